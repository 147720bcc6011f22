"""The watchdog as a real process: what it asks of docker when its launcher, here the test, has let go of it."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from claude_bottle.cleanup.watchdog import Watchdog
from claude_bottle.host.owner import Owner
from tests.support.clients import NO_ENGINE, RECORDED
from tests.support.labels import listed
from tests.support.owners import OBSERVER
from tests.support.scene import NAME, SESSION, STEPS, UNDO, USUAL, Argv, Scene

UNREACHABLE = f"{NO_ENGINE[RECORDED]}\n"
QUERY = ("version", "--format")  # whether there is an engine
LISTINGS = [("ps", "--all"), ("network", "ls"), ("volume", "ls")]


class Dog:
    """A watchdog of a test's own."""

    def __init__(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        self.scene = scene
        self.owner = OBSERVER
        started = list["subprocess.Popen[bytes]"]()

        class Noted(subprocess.Popen[bytes]):
            def __init__(self, *args: Any, **options: Any) -> None:
                super().__init__(*args, **options)
                started.append(self)

        with monkeypatch.context() as patched:
            patched.setattr("subprocess.Popen", Noted)
            self.end = Watchdog.start(scene.environ, self.owner)
        [self.pid] = [each.pid for each in started]

    def let_go(self, *, clean: bool = False) -> list[Argv]:
        """Let it go and wait for its end; return what it asked of docker, without the options of its queries."""
        self.end.close(clean=clean)
        assert os.waitpid(self.pid, 0) == (self.pid, 0)
        return asked(self.scene)


def asked(scene: Scene) -> list[Argv]:
    """Return what was asked of docker by others than launchers."""
    calls = [
        event.argv[1:] for event in scene.calls if event.kind == "start" and event.more["parent"] not in scene.pids
    ]
    return [call[:2] if call[:2] in (*LISTINGS, QUERY) else call for call in calls]


@pytest.fixture
def dog(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Dog:
    return Dog(scene, monkeypatch)


def stage_dir(scene: Scene, session: str, owner: str = "") -> Path:
    folder = scene.tmp / f"claude-bottle-{session}-x{len(owner)}"
    folder.mkdir()
    if owner:
        (folder / "owner").write_text(owner)
    return folder


def test_dismissed_it_does_nothing(dog: Dog) -> None:
    dog.end.watch(SESSION, USUAL)
    assert dog.let_go(clean=True) == []


def test_before_the_session_has_a_name_there_is_nothing_to_do(dog: Dog) -> None:
    assert dog.let_go() == []


def test_it_undoes_in_order_and_looks_twice(dog: Dog, scene: Scene) -> None:
    own = (stage_dir(scene, SESSION), stage_dir(scene, SESSION, str(dog.owner)))
    others = (stage_dir(scene, "demo-ffffffff"), stage_dir(scene, SESSION, "a:fetch:1:1"))
    scene.rule("network rm", code=1, stderr="has active endpoints\n")
    dog.end.watch("demo-00000000", [("docker", "rm", "what-an-earlier-attempt-made")])
    dog.end.watch(SESSION, USUAL)
    assert dog.let_go() == [*(argv[1:] for argv in USUAL), *LISTINGS, *LISTINGS]
    assert [folder.exists() for folder in (*own, *others)] == [False, False, True, True]


def test_it_removes_what_a_client_made_after_the_first_look(dog: Dog, scene: Scene) -> None:
    names = ((f"{NAME}-sidecar", "sidecar"), (NAME, "agent"))
    found = "".join(listed(name, SESSION, dog.owner, role) for name, role in names)
    scene.rule("ps --all", times=1)
    scene.rule("ps --all", times=1, stdout=found)
    dog.end.watch(SESSION, [])
    containers = [UNDO["bottle"][1:], UNDO["sidecar"][1:]]
    assert dog.let_go() == [*LISTINGS, *LISTINGS, *containers, *LISTINGS, *LISTINGS]


def test_it_waits_for_an_engine_that_does_not_answer(dog: Dog, scene: Scene) -> None:
    scene.rule("network ls", code=1, stderr=UNREACHABLE, times=2)
    dog.end.watch(SESSION, [])
    scene.rule("version --format", code=1, stderr=UNREACHABLE, times=2)
    failed = [*LISTINGS[:2], QUERY, ("--version",)]
    assert dog.let_go() == [*failed, *failed, *LISTINGS, *LISTINGS]


def test_it_waits_for_a_docker_that_has_vanished(dog: Dog, scene: Scene) -> None:
    scene.rule("rm --force", vanish=True, times=1)
    dog.end.watch(SESSION, USUAL)
    dog.end.close(clean=False)
    while scene.docker.exists():
        time.sleep(0.01)
    scene.bring_back()
    assert dog.let_go()[-6:] == [*LISTINGS, *LISTINGS]


def test_it_ends_the_clients_and_nobody_who_has_their_number_since(dog: Dog) -> None:
    waiting = (sys.executable, "-c", "input()")
    with (
        subprocess.Popen(waiting, stdin=subprocess.PIPE) as client,
        subprocess.Popen(waiting, stdin=subprocess.PIPE) as other,
    ):
        dog.end.note(client.pid)
        dog.end.tell("client", other.pid, "1")
        dog.let_go()
        assert client.wait() == -signal.SIGKILL
        assert other.poll() is None
        other.kill()


def test_in_passing_it_removes_what_the_certainly_dead_have_left(dog: Dog, scene: Scene) -> None:
    owners = {"dead": replace(OBSERVER, started="1"), "living": OBSERVER, "far": Owner("far", "-", 1, "1")}
    scene.rule("network ls", stdout="".join(listed(name, "x", owner, "network") for name, owner in owners.items()))
    dog.end.watch(SESSION, USUAL)
    dog.end.tell("reap")
    assert dog.let_go(clean=True) == [*LISTINGS, ("network", "rm", "dead")]


def test_an_engine_that_fails_in_passing_is_no_reason_to_leave_the_post(dog: Dog, scene: Scene) -> None:
    scene.rule("ps --all", code=1, stderr=UNREACHABLE, times=1)
    dog.end.watch(SESSION, [])
    dog.end.tell("reap")
    while not asked(scene):
        time.sleep(0.01)
    assert sorted(dog.let_go()) == sorted([("ps", "--all"), QUERY, *LISTINGS, *LISTINGS])


def test_a_launcher_that_is_killed_in_a_step_leaves_nothing_to_do(scene: Scene) -> None:
    """Its clients in flight are ended before anything is undone."""
    scene.rule(STEPS["bottle"], fifo="bottle")
    scene.rule(STEPS["sidecar"], fifo="sidecar")
    child = scene.launch("start", "demo", "--yes")
    with scene.held("bottle"), scene.held("sidecar"):
        child.kill()
        child.communicate()
        while list(scene.tmp.iterdir()):
            time.sleep(0.01)
    while [call for call in asked(scene) if call in LISTINGS] != [*LISTINGS, *LISTINGS]:
        time.sleep(0.01)
    undone = [call for call in asked(scene) if "rm" in call[:2]]
    assert undone == [UNDO[step][1:] for step in ("selftest", "gate", "lock", "bottle", "sidecar", "network")]
    ended = [event for event in scene.log if event.ends(STEPS["bottle"]) or event.ends(STEPS["sidecar"])]
    assert ended == []
