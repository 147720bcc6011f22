"""Sessions that lose their sidecar, bottle or engine: the message, the exit code, the teardown."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_bottle.bottle.plan import Run
from claude_bottle.process import command
from claude_bottle.session.monitor import Heart, Monitor
from tests.support import plans
from tests.support.clients import NO_ENGINE, RECORDED
from tests.support.scene import NAME, STEPS, TRUSTING, UNDO, USUAL, Patches, Scene

START = ("start", "demo", "--yes")
SIDECAR = f"State.Running}}}} {NAME}-sidecar"
GATE = f"State.Running}}}} {NAME}-gate"
BOTTLE = f"State.Running}}}} {NAME}"
UNREACHABLE = f"{NO_ENGINE[RECORDED]}\n"
SILENT = "docker cannot be used: "
QUICK: Patches = {"session.monitor._BEAT": 0.001, "session.runner._SILENCE": 20}
REMOVED = "the bottle was removed from outside, which ended the session"


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        ({"stdout": "false\n"}, 70, "the sidecar has exited, which ended the session"),
        ({"code": 1, "stderr": f"Error: No such object: {NAME}-sidecar\n"}, 70, "the sidecar has exited"),
        ({"code": 1, "stderr": f"error: no such object: {NAME}-sidecar\n"}, 70, "the sidecar has exited"),
        ({"code": 1, "stderr": UNREACHABLE}, 69, f"{SILENT}failed to connect to the docker API"),
        ({"fifo": "never"}, 69, f"{SILENT}no answer within 1 s"),
    ],
    ids=["ended", "removed", "removed-29", "unreachable", "hangs"],
)
def test_the_end_of_the_log_ends_the_session(scene: Scene, answer: dict[str, object], code: int, message: str) -> None:
    """The monitor closes the bottle's lifeline, which ends claude as well."""
    scene.rule(STEPS["claude"], fifo="claude", code=137)
    scene.rule(SIDECAR, **answer)
    scene.rule(GATE, stdout="true\n")
    scene.rule("version", **(answer if answer.get("stderr") == UNREACHABLE else {}))
    child = scene.launch(*START, patches=TRUSTING | {"session.monitor._TIMEOUT": 1})
    with scene.held("claude"):
        (scene.folder / "removed").touch()
        while not any(event.ends(STEPS["bottle"]) for event in scene.log):
            time.sleep(0.01)
    ended, _, err = scene.end(child)
    assert ended == code
    assert err.count(f"claude-bottle: {message}") == 1, err
    assert scene.undone == USUAL


def test_the_log_of_a_running_sidecar_is_followed_again(scene: Scene) -> None:
    scene.rule(STEPS["claude"], fifo="claude", code=5)
    scene.rule(SIDECAR, stdout="true\n", times=1)
    scene.rule(SIDECAR, fifo="again", stdout="true\n")
    child = scene.launch(*START)
    with scene.held("claude"):
        (scene.folder / "removed").touch()
        with scene.held("again"):
            pass
    assert scene.end(child)[0] == 5


def test_a_remote_bottle_hears_the_beat_before_it_is_up(scene: Scene) -> None:
    """However long the rest of the set-up takes: it gives up after 45 s without one."""
    scene.rule(STEPS["bottle"], line=True, stdout="up\n")
    scene.rule(STEPS["claude"], code=5)
    code, _, err = scene.run(*START, patches=TRUSTING | QUICK, DOCKER_HOST="tcp://198.51.100.129:2375")
    assert code == 5, err


def test_the_heart_of_a_remote_bottle_that_does_not_come_up_lets_go_of_it(scene: Scene) -> None:
    scene.rule(STEPS["home"], code=1)
    code, _, err = scene.run(*START, patches=TRUSTING | QUICK, DOCKER_HOST="tcp://198.51.100.129:2375")
    assert code == 70, err
    for step in ("bottle", "gate"):
        [ended] = [event for event in scene.log if event.ends(STEPS[step])]
        assert (ended.more["code"], UNDO[step] in scene.undone) == (0, False)  # the end of its stdin was enough


@pytest.mark.parametrize("code", [1, 255])
@pytest.mark.parametrize(
    ("answer", "ended", "message"),
    [
        ({"stdout": "true\n"}, None, ""),
        ({"code": 1, "stderr": f"Error: No such object: {NAME}\n"}, 70, REMOVED),
        ({"code": 1, "stderr": f"error: no such object: {NAME}\n"}, 70, REMOVED),
        ({"code": 1, "stderr": UNREACHABLE}, 69, f"{SILENT}failed to connect"),
        ({"fifo": "never"}, 69, f"{SILENT}no answer within 1 s"),
    ],
    ids=["runs", "removed", "removed-29", "unreachable", "hangs"],
)
def test_claudes_own_exit_code_is_distinguished_from_a_lost_connection(
    scene: Scene, code: int, answer: dict[str, object], ended: int | None, message: str
) -> None:
    scene.rule(STEPS["claude"], code=code)
    scene.rule(BOTTLE, **answer)
    scene.rule("version", **(answer if answer.get("stderr") == UNREACHABLE else {}))
    seen, _, err = scene.run(*START, patches=TRUSTING | {"session.start._TIMEOUT": 1})
    assert seen == (code if ended is None else ended), err
    assert not message or f"claude-bottle: {message}" in err
    assert scene.undone == USUAL


@pytest.mark.parametrize(
    ("said", "ended", "message"), [(UNREACHABLE, 69, f"{SILENT}failed to connect"), ("", 70, REMOVED)]
)
def test_a_bottle_that_went_with_its_engine_was_removed_by_nobody(
    scene: Scene, said: str, ended: int, message: str
) -> None:
    """Claude is killed, and the client of the bottle ends, in either case."""
    scene.rule(STEPS["bottle"], stdout="up\n", stays="bottle", code=1)
    scene.rule(STEPS["claude"], fifo="claude", code=137)
    scene.rule(BOTTLE, code=1, stderr=said or f"Error: No such object: {NAME}\n")
    scene.rule("version", **({"code": 1, "stderr": said} if said else {}))
    child = scene.launch(*START)
    with scene.held("claude"), scene.held("bottle"):
        pass
    code, _, err = scene.end(child)
    assert (code, f"claude-bottle: {message}" in err) == (ended, True), err


ENDED = ("api.anthropic.com",)


@contextlib.contextmanager
def monitored(
    scene: Scene, tmp_path: Path, ended: tuple[str, ...] = ENDED, *, terminal: bool = False, detached: bool = False
) -> Iterator[tuple[Monitor, command.Client]]:
    """Monitor a session whose bottle is a program that ends with its stdin."""
    plan = plans.plan(plans.manifests(tmp_path / "more"), Run(terminal=terminal))
    bottle = command.start(("cat",), scene.environ | {"PATH": "/usr/bin:/bin"})
    monitor = Monitor(plan, scene.environ, bottle, lambda _: None, Heart(scene.environ), None, ended, detached=detached)
    try:
        yield monitor, bottle
    finally:
        monitor.stop()
        (scene.folder / "removed").touch()
        monitor.join()
        bottle.close_stdin()


def test_requests_of_both_logs_are_counted(scene: Scene, tmp_path: Path) -> None:
    tunnel = {"event": "tunnel_open", "target": "api.anthropic.com:443"}
    request = {"event": "request", "verdict": "allowed", "host": "api.anthropic.com", "sent": 5, "messages": True}
    scene.rule(f"logs --follow {NAME}-sidecar", stdout=f"{json.dumps(tunnel)}\n" * 3)
    scene.rule(f"logs --follow {NAME}-gate", stdout=f"{json.dumps(request)}\n" * 2)
    for each, counts in ((ENDED, (2, 2, 10)), ((), (3, 0, 0))):
        (scene.folder / "removed").unlink(missing_ok=True)
        with monitored(scene, tmp_path / "-".join(each), each) as (monitor, _):
            monitor.start()
        assert (monitor.tally.allowed, monitor.tally.messages, monitor.tally.sent) == counts
        assert monitor.ended is None


@pytest.mark.parametrize(
    ("ends", "runs", "message"),
    [
        (GATE, SIDECAR, "the credential proxy has exited, which ended the session"),
        (SIDECAR, GATE, "the sidecar has exited, which ended the session"),
    ],
    ids=["proxy", "sidecar"],
)
def test_the_end_of_either_ends_the_session(scene: Scene, tmp_path: Path, ends: str, runs: str, message: str) -> None:
    scene.rule(ends, stdout="false\n")
    scene.rule(runs, stdout="true\n")
    with monitored(scene, tmp_path) as (monitor, bottle):
        last = list[str]()
        monitor.last = lambda: last.append("work")
        monitor.start()
        (scene.folder / "removed").touch()
        assert bottle.process.wait(60) == 0
        assert str(monitor.ended) == message
        assert last == ["work"]


def test_the_first_end_that_is_seen_is_the_one_that_is_named(scene: Scene, tmp_path: Path) -> None:
    scene.rule(GATE, code=1, stderr=f"Error: No such object: {NAME}-gate\n")
    scene.rule(SIDECAR, fifo="later", stdout="false\n")
    with monitored(scene, tmp_path) as (monitor, bottle):
        monitor.start()
        (scene.folder / "removed").touch()
        with scene.held("later"):
            assert bottle.process.wait(60) == 0
        monitor.join()
        assert str(monitor.ended) == "the credential proxy has exited, which ended the session"


@pytest.mark.parametrize(("terminal", "detached"), [(False, False), (True, False), (True, True)])
def test_without_the_users_terminal_the_first_refusals_are_printed_as_they_come(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str], *, terminal: bool, detached: bool
) -> None:
    hosts = ["a.test", "a.test", "10.0.0.1", "www.claude.com", "\x1b[31mred.test", *(f"h{n}.test" for n in range(9))]
    lines = [{"event": "blocked", "scanner": "allowlist", "target": f"{host}:443"} for host in hosts]
    scene.rule(f"logs --follow {NAME}-sidecar", stdout="".join(f"{json.dumps(line)}\n" for line in lines))
    with monitored(scene, tmp_path, (), terminal=terminal, detached=detached) as (monitor, _):
        monitor.start()
    said = [
        f"refused: {host}; to allow it: ./cli.py allow demo-0a1b2c3d {host}"
        for host in ("a.test", "h0.test", "h1.test", "h2.test")
    ]
    more = "and more were refused: ./cli.py logs demo-0a1b2c3d --blocked"
    expected = [] if terminal and not detached else [said[0], "refused: www.claude.com", *said[1:], more]
    assert capsys.readouterr().err.splitlines() == [f"claude-bottle: {line}" for line in expected]
