"""The user's program: when it is run, with what, and for how long; docker is a fake one."""

import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from claude_bottle.errors import ManifestError
from claude_bottle.session import notify
from claude_bottle.session.notify import Notifier, Program
from tests.support import plans
from tests.support.scene import NAME, PATCHED, ROOT, SESSION, STEPS, TRUSTING, Scene

FOLLOWED = "last=$now"  # a part of the command that follows a bottle
GUARD = 60


class Told:
    """A program that writes down how it was run, and what came of it."""

    def __init__(self, folder: Path, more: str = "") -> None:
        self.path, self._log = folder / "notify me", folder / "told"
        self.path.write_text(f'#!/bin/sh\ncat; echo lost; echo lost >&2\necho "$*" >> {self._log}\n{more}\n')
        self.path.chmod(0o755)
        self._log.touch()

    def lines(self, count: int) -> list[str]:
        """Wait until it was run so often."""
        end = time.monotonic() + GUARD
        while len(lines := self._log.read_text().splitlines()) < count:
            assert time.monotonic() < end, lines
            time.sleep(0.01)
        return lines


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path)


@pytest.fixture
def notifier(told: Told) -> Iterator[Notifier]:
    made = Notifier(Program(told.path, {"PATH": os.environ["PATH"]}), SESSION)
    yield made
    made.stop()


def test_a_program_is_found_by_its_path_or_by_its_name(tmp_path: Path, told: Told) -> None:
    for named, path in ((str(told.path), ""), ("notify me", str(tmp_path)), ("~/notify me", "")):
        environ = {"CLAUDE_BOTTLE_NOTIFY": named, "PATH": path, "DISPLAY": ":0", "SECRET": "planted"}
        machine = plans.machine(**environ)
        found = notify.program(replace(machine, home=tmp_path))
        assert found == Program(told.path, {"PATH": path, "DISPLAY": ":0", "LANG": "C.UTF-8"})
    assert notify.program(plans.machine()) is None


@pytest.mark.parametrize("named", ["nothing-like-it", "/etc/passwd", "./a b\x1b"])
def test_a_program_that_does_not_exist_is_one_line(named: str) -> None:
    with pytest.raises(ManifestError) as caught:
        notify.program(plans.machine(CLAUDE_BOTTLE_NOTIFY=named, PATH="/usr/bin"))
    assert str(caught.value) == f"CLAUDE_BOTTLE_NOTIFY: {named}: no such program".replace("\x1b", r"\x1b")


def test_a_start_with_a_program_that_does_not_exist_asks_no_engine(scene: Scene) -> None:
    code, out, err = scene.run("start", "demo", "--yes", CLAUDE_BOTTLE_NOTIFY="nothing")
    assert (code, out, err) == (64, "", "CLAUDE_BOTTLE_NOTIFY: nothing: no such program\n")
    assert scene.log == []


def test_it_is_run_when_the_agent_begins_to_wait(scene: Scene, notifier: Notifier, told: Told) -> None:
    scene.rule(FOLLOWED, stdout="working \nwaits   \n", stays="follow")
    pids: list[int] = []
    notifier.follow(NAME, scene.environ, pids.append)
    assert told.lines(1) == [f"waits {SESSION}"]
    assert len(pids) == 1


def test_what_is_past_or_unknown_is_no_event(scene: Scene, notifier: Notifier, told: Told) -> None:
    scene.rule(FOLLOWED, stdout="waits   \nworking \n\x1b]0;x\x07\nwaitsx\n", stays="follow")
    followed = threading.Event()
    notifier.follow(NAME, scene.environ, lambda _: followed.set())
    with scene.held("follow"):  # it has said all
        pass
    notifier.ended()
    assert told.lines(1) == [f"ended {SESSION}"]


def test_two_of_one_event_are_apart(
    scene: Scene, notifier: Notifier, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the agent's file says so: nothing is read for so long, but for the session's end."""
    apart = queue.SimpleQueue[float]()

    class Over(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            apart.put(timeout or 0.0)
            return super().wait(timeout)

    monkeypatch.setattr(notifier, "_over", Over())
    monkeypatch.setattr(notify, "_APART", 3600.0)
    scene.rule(FOLLOWED, stdout="waits   \n", stays="follow")
    notifier.follow(NAME, scene.environ, lambda _: None)
    assert 3000 < apart.get(timeout=GUARD) <= 3600
    notifier.ended()
    assert told.lines(2) == [f"waits {SESSION}", f"ended {SESSION}"]


def test_a_program_that_does_not_end_is_ended_with_what_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "_SECONDS", 0.2)
    pid = tmp_path / "pid"
    told = Told(tmp_path, f"sleep 3600 & echo $! > {pid}; wait")
    monkeypatch.setattr(notify, "_TICK", 0.1)
    notifier = Notifier(Program(told.path, {"PATH": os.environ["PATH"]}), SESSION)
    while not (pid.exists() and pid.read_text()):  # under load it may not have come that far
        notifier.ended()
        monkeypatch.setattr(notify, "_SECONDS", notify._SECONDS * 2)
    child = Path(f"/proc/{pid.read_text().strip()}/stat")
    end = time.monotonic() + GUARD
    while child.exists() and child.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < end
        time.sleep(0.01)
    assert notifier._thread is None


def test_what_follows_the_bottle_is_started_again_if_the_agent_ends_it(
    scene: Scene, notifier: Notifier, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "_AGAIN", 0.01)
    scene.rule(FOLLOWED, code=137, times=1)
    scene.rule(FOLLOWED, stdout="waits   \n", stays="follow")
    notifier.follow(NAME, scene.environ, lambda _: None)
    assert told.lines(1) == [f"waits {SESSION}"]


def test_a_session_tells_of_its_wait_and_of_its_end_with_nothing_of_its_environment(scene: Scene) -> None:
    seen = scene.folder / "seen"
    program = scene.folder / "program"
    program.write_text(f'#!/bin/sh\nexport -p >> {seen}\necho "$*" >> {seen}.words\n')
    program.chmod(0o755)
    scene.rule(FOLLOWED, stdout="waits   \n", stays="follow")
    scene.rule(STEPS["claude"], fifo="claude", code=5)
    child = scene.launch(
        "start", "demo", "--yes", CLAUDE_BOTTLE_NOTIFY=str(program), DISPLAY=":7", MINE="planted",
        PATH=f"{scene.environ['PATH']}:/usr/bin:/bin",
    )  # fmt: skip
    words = scene.folder / "seen.words"
    with scene.held("claude"):
        end = time.monotonic() + GUARD
        while not words.exists():
            assert time.monotonic() < end
            time.sleep(0.01)
    with scene.held("follow"):
        pass
    assert scene.end(child)[0] == 5
    assert words.read_text().splitlines() == [f"waits {SESSION}", f"ended {SESSION}"]
    assert "planted" not in seen.read_text()
    assert ":7" in seen.read_text()
    assert json.dumps(seen.read_text()).count("CLAUDE_BOTTLE") == 0


@pytest.mark.parametrize("detached", [False, True])
def test_a_program_that_learns_of_the_end_can_wait_for_the_session_and_read_of_it(scene: Scene, detached: bool) -> None:
    learned, program = scene.folder / "learned", scene.folder / "program"
    cli = f"PYTHONPATH={ROOT} {sys.executable} {PATCHED} {{}}"
    program.write_text(
        f'#!/bin/sh\n[ "$1" = ended ] || exit\n{cli} wait "$2" > {learned}.new; echo $? >> {learned}.new\n'
        f'{cli} history "$2" >> {learned}.new\nmv {learned}.new {learned}\n'
    )
    program.chmod(0o755)
    scene.rule(STEPS["claude"], code=7)
    how = ("--detach",) if detached else ("--keep",)
    child = scene.launch(
        "start", "demo", "--yes", *how, "--name", "docs", "--print", "Why?",
        patches={**TRUSTING, "session.notify._SECONDS": GUARD}, CLAUDE_BOTTLE_NOTIFY=str(program),
        PATH=f"{scene.environ['PATH']}:/usr/bin:/bin",
    )  # fmt: skip
    _, err = child.communicate()
    assert child.returncode == (0 if detached else 7), err
    end = time.monotonic() + GUARD
    while not learned.exists():
        assert time.monotonic() < end, err
        time.sleep(0.01)
    lines = learned.read_text().splitlines()
    assert lines[:3] == ["7", f"session       {SESSION}", "name          docs"]
    assert "exit code     7" in lines


def test_signals_do_not_change_the_exit_code_while_the_program_runs(scene: Scene) -> None:
    program = scene.folder / "program"
    os.mkfifo(scene.folder / "end")
    program.write_text(f'#!/bin/sh\n[ "$1" = ended ] && exec cat {scene.folder}/end\n')
    program.chmod(0o755)
    scene.rule(STEPS["claude"], code=5)
    child = scene.launch(
        "start", "demo", "--yes", "--keep", "--print", "Why?",
        patches={**TRUSTING, "session.notify._SECONDS": GUARD}, CLAUDE_BOTTLE_NOTIFY=str(program),
        PATH=f"{scene.environ['PATH']}:/usr/bin:/bin",
    )  # fmt: skip
    with scene.held("end"):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            child.send_signal(number)
    assert scene.end(child)[0] == 5
