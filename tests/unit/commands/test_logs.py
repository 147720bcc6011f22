"""A session's requests, a line each."""

import json
import time

from tests.support.clients import NO_ENGINE, RECORDED
from tests.support.labels import LIST, row
from tests.support.owners import OBSERVER
from tests.support.scene import Scene

GATE = "State.Running}} claude-bottle-demo-1-gate"


def two_logs(scene: Scene, words: str = "logs") -> None:
    """Have a session with a credential proxy, and requests in both of its logs."""
    scene.rule(LIST, stdout=row("demo-1", OBSERVER, signs="a.test"))
    sidecar = [
        {"event": "tunnel_open", "target": "a.test:443", "time": "2026-01-01T00:00:01Z"},
        {"event": "blocked", "target": "b.test:443", "time": "2026-01-01T00:00:02Z"},
        {"event": "tunnel_open", "target": "c.test:443", "time": "2026-01-01T00:00:04Z"},
    ]
    gate = [
        {"event": "request", "verdict": "allowed", "host": "a.test", "path": "/1", "time": "2026-01-01T00:00:01Z"},
        {"event": "request", "verdict": "blocked", "host": "a.test", "path": "/2", "time": "2026-01-01T00:00:03Z"},
        {"event": "request", "verdict": "failed", "host": "a.test", "path": "/3", "time": "2026-01-01T00:00:05Z"},
    ]
    for name, log in (("sidecar", sidecar), ("gate", gate)):
        lines = "".join(f"{json.dumps(one)}\n" for one in log)
        # The proxy's first line is no request, and nginx may say something, too.
        scene.rule(f"{words} claude-bottle-demo-1-{name}", stdout=f"up QUJD\nnginx: [notice]\n{lines}")


BOTH = [
    "1Z allowed a.test - /1", "2Z blocked b.test", "3Z blocked a.test - /2", "4Z allowed c.test",
    "5Z failed a.test - /3",
]  # fmt: skip


def shown(out: str) -> list[str]:
    return [" ".join(line.split()).removeprefix("2026-01-01T00:00:0") for line in out.splitlines()]


def test_both_logs_are_merged_by_time(scene: Scene) -> None:
    two_logs(scene)
    assert shown(scene.run("logs", "demo")[1]) == BOTH
    assert shown(scene.run("logs", "demo", "--blocked")[1]) == [BOTH[1], BOTH[2]]


def test_both_logs_are_followed_side_by_side(scene: Scene) -> None:
    two_logs(scene, "logs --follow")
    scene.rule(GATE, stdout="true\n")
    child = scene.launch("logs", "demo", "--follow")
    followed = {f"logs --follow claude-bottle-demo-1-{name}" for name in ("sidecar", "gate")}
    while not all(any(call.starts(words) for call in scene.calls) for words in followed):
        assert child.poll() is None
        time.sleep(0.01)
    (scene.folder / "removed").touch()
    code, out, _ = scene.end(child)
    assert (code, sorted(shown(out))) == (0, BOTH)


def test_a_log_that_is_not_there_yet_is_awaited(scene: Scene) -> None:
    two_logs(scene, "logs --follow")
    scene.rule(GATE, code=1, stderr="Error: No such container\n", times=1)
    scene.rule(GATE, stdout="false\n", times=1)
    scene.rule(GATE, stdout="true\n")
    (scene.folder / "removed").touch()
    code, out, _ = scene.run("logs", "demo", "-f")
    assert (code, sorted(shown(out))) == (0, BOTH)
    assert len([event for event in scene.log if event.starts(GATE)]) == 3


def test_a_proxy_that_does_not_come_is_not_awaited_for_ever(scene: Scene) -> None:
    two_logs(scene)
    (scene.folder / "removed").touch()
    scene.rule(GATE, code=1, stderr="Error: No such container\n")
    assert scene.run("logs", "demo", "-f", patches={"commands.logs._PATIENCE": -1})[0] == 0
    assert len([event for event in scene.log if event.starts(GATE)]) == 1


def test_a_proxy_is_not_awaited_without_its_sidecar(scene: Scene) -> None:
    two_logs(scene)
    (scene.folder / "removed").touch()
    scene.rule(GATE, code=1, stderr="Error: No such container\n")
    scene.rule("Id}} claude-bottle-demo-1-sidecar", times=3)
    scene.rule("Id}} claude-bottle-demo-1-sidecar", code=1)
    assert scene.run("logs", "demo", "-f", patches={"commands.logs._PATIENCE": 10_000})[0] == 0
    assert len([event for event in scene.log if event.starts(GATE)]) == 3


def test_logs_of_a_session_show_one_line_a_request(scene: Scene) -> None:
    scene.rule(LIST, stdout=row("demo-1", OBSERVER))
    events = [
        {"event": "tunnel_open", "target": "a.test:443", "request_id": "req-1", "time": "T"},
        {"event": "blocked", "target": "\u2028b\x1b.test:443", "reason": "not in allowlist", "request_id": "req-2"},
    ]
    scene.rule("logs", stdout="".join(json.dumps(one, ensure_ascii=False) + "\n" for one in events))
    _, out, _ = scene.run("logs", "demo")
    assert [line.split() for line in out.split("\n")] == [
        ["T", "allowed", "a.test"], ["-", "blocked", r"\u2028b\x1b.test", "not", "in", "allowlist"], [],
    ]  # fmt: skip
    assert scene.run("logs", "demo", "--blocked")[1].count("\n") == 1


def test_logs_that_nobody_reads_any_more_end(scene: Scene) -> None:
    scene.rule(LIST, stdout=row("demo-1", OBSERVER))
    scene.rule("logs", stdout=json.dumps({"event": "tunnel_open", "target": "a.test:443"}) + "\n", fifo="logs")
    with scene.launch("logs", "demo") as child:
        with scene.held("logs"):
            assert child.stdout
            assert child.stderr
            child.stdout.close()
        err = child.stderr.read()
    assert (child.returncode, err) == (1, "")


def test_a_log_that_an_engines_end_cuts_off_is_not_whole(scene: Scene) -> None:
    scene.rule(LIST, stdout=row("demo-1", OBSERVER))
    scene.rule("container inspect")
    scene.rule("logs", code=1, times=1)
    (scene.folder / "removed").touch()  # the sidecar: its log ends
    assert scene.run("logs", "demo-1", "--follow")[0] == 0
    scene.without_engine(NO_ENGINE[RECORDED])
    code, _, err = scene.run("logs", "demo-1", "--follow")
    assert (code, err.startswith("claude-bottle: docker cannot be used: ")) == (69, True)
