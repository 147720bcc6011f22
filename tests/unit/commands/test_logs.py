"""A session's requests, a line each."""

import json

from tests.support.clients import NO_ENGINE
from tests.support.labels import LIST, row
from tests.support.owners import OBSERVER
from tests.support.scene import Scene


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
    scene.without_engine(NO_ENGINE["29.7.2"])
    code, _, err = scene.run("logs", "demo-1", "--follow")
    assert (code, err.startswith("claude-bottle: docker cannot be used: ")) == (69, True)
