"""The names of sessions; docker is a fake one, and the other session a process that holds a lock."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from claude_bottle.errors import UsageError
from claude_bottle.host.machine import Machine
from claude_bottle.session import names
from tests.support.labels import LIST, row
from tests.support.owners import ELSEWHERE, OBSERVER, REBOOTED
from tests.support.scene import Scene

ANOTHER = """
import fcntl, sys
with open(sys.argv[1], "w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print(flush=True)
    input()
"""


def machine(scene: Scene) -> Machine:
    environ = {"PATH": str(scene.docker.parent), "HOME": str(scene.folder)}
    return Machine(environ, scene.folder, interactive=False, owner=OBSERVER)


def path(scene: Scene, name: str) -> Path:
    return scene.key.with_name("names") / name


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("a", True), ("my-1", True), ("0", True), ("a" * 40, True),
        ("", False), ("-a", False), ("a-", False), ("A", False), ("a" * 41, False), ("a/b", False), ("..", False),
        ("ä", False), ("a\n", False),
    ],
)  # fmt: skip
def test_names(text: str, right: bool) -> None:
    assert names.is_name(text) == right


def test_a_name_is_held_and_let_go(scene: Scene) -> None:
    scene.rule(LIST, stdout=row("demo-1", OBSERVER, called="other") + row("demo-2", REBOOTED, called="mine"))
    for _ in range(2):
        with names.held(machine(scene), "mine"):
            assert path(scene, "mine").stat().st_mode & 0o777 == 0o600
        assert not path(scene, "mine").exists()


def test_a_name_that_another_session_of_this_user_holds(scene: Scene) -> None:
    path(scene, "mine").parent.mkdir()
    command = (sys.executable, "-c", ANOTHER, str(path(scene, "mine")))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        other.stdout.readline()
        taken = r'^a session named "mine" is running$'
        with pytest.raises(UsageError, match=taken), names.held(machine(scene), "mine"):
            pass
        assert path(scene, "mine").exists()
        other.kill()  # its lock ends with it, and its file is left
    scene.rule(LIST, stdout="")
    with names.held(machine(scene), "mine"):
        pass


@pytest.mark.parametrize("owner", [OBSERVER, ELSEWHERE, replace(OBSERVER, started="-")])
def test_a_name_that_a_session_on_the_engine_has(scene: Scene, owner: object) -> None:
    scene.rule(LIST, stdout=row("demo-1", owner, called="mine"))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is running"), names.held(machine(scene), "mine"):
        pass
    assert not path(scene, "mine").exists()


def test_a_session_without_a_name_asks_nothing(scene: Scene) -> None:
    with names.held(machine(scene), ""):
        pass
    assert scene.calls == []
