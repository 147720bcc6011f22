"""A task's container: its command, its record in labels, and whose leftovers its engine knows to be dead."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from claude_bottle.cleanup import orphans
from claude_bottle.cleanup.orphans import Leftover
from claude_bottle.errors import DockerError, UsageError
from claude_bottle.fleet import tasks
from claude_bottle.fleet.tasks import Task
from claude_bottle.host.owner import TASK, Owner, this_machine
from claude_bottle.repository.clone import Work
from tests.support import plans
from tests.support.labels import KEY
from tests.support.scene import Scene

WORK = Work(Path("/home/ada/src"), "1" * 40, "2" * 40)
OBSERVER = Owner("laptop", "boot", 1, "2")


def test_a_tasks_container_has_no_network_no_privilege_and_no_secret() -> None:
    machine = replace(plans.machine(CLAUDE_BOTTLE_SUBNET="10.9.0.0/16", CLAUDE_BOTTLE_OAUTH_TOKEN=plans.TOKEN), key=KEY)
    argv = tasks.create("demo-1", "demo", WORK, "launcher:x", 1 << 20, machine)
    line = " ".join(argv)
    for words in (
        "--network none", "--read-only", "--cap-drop ALL --security-opt no-new-privileges", "--tmpfs /tmp:mode=0700",
        "--pull never", "--env CLAUDE_BOTTLE_REMOTE=1", "--env CLAUDE_BOTTLE_SUBNET=10.9.0.0/16", "--memory 3761242112",
    ):  # fmt: skip
        assert words in line
    assert argv[3] == f"{TASK}demo-1"
    assert plans.TOKEN not in line


def test_a_task_is_read_from_its_labels(scene: Scene) -> None:
    machine = replace(plans.machine(), key=KEY)
    argv = tasks.create("demo-1", "demo", WORK, "launcher:x", 0, machine)
    labels = dict(word.split("=", 1) for word in argv if word.startswith("claude-bottle.task"))
    fields = [labels[f"claude-bottle.{name}"] for name in ("task", "task-agent", "task-work", "task-proof")]
    line = "\t".join(f'"{field}"' for field in (*fields, "2026-11-30 15:10:03 +0000 UTC", "Exited (7) 2 minutes ago"))
    scene.rule("label=claude-bottle.task", stdout=f"{line}\nrubbish\n")
    [task] = tasks.listed(scene.environ)
    assert (task.id, task.agent, task.code) == ("demo-1", "demo", 7)
    assert Work.of_label(task.work) == WORK
    assert task.is_proven(KEY)
    assert not replace(task, work=replace(WORK, repository=Path("/elsewhere")).label).is_proven(KEY)
    assert not task.is_proven(b"")


@pytest.mark.parametrize(
    ("status", "code"),
    [("Up 2 hours", None), ("Created", 70), ("Exited (0) 1 second ago", 0), ("Exited (143) 3 weeks ago", 143)],
)
def test_a_state_in_dockers_words(status: str, code: int | None) -> None:
    assert tasks._code(status) == code


def test_a_name_finds_one_task() -> None:
    found = [Task(name, "demo", "", "", "", None) for name in ("demo-1a", "demo-1b", "other-2")]
    assert tasks.find(found, "other").id == "other-2"
    for name, why in (("demo-1", "ambiguous task"), ("nobody", "no task"), ("", "no task")):
        with pytest.raises(UsageError, match=why):
            tasks.find(found, name)


def leftover(name: str) -> Leftover:
    return Leftover("container", name, name, Owner(f"{TASK}{name}", "boot", 7, "1"))


def test_the_engine_knows_whose_launcher_is_dead(scene: Scene) -> None:
    scene.rule("label=claude-bottle.task", stdout=f"{TASK}living\n")
    items = (leftover("living"), leftover("killed"), Leftover("container", "x", "x", Owner("elsewhere", "b", 1, "2")))
    assert orphans.dead(scene.environ, items, OBSERVER) == (items[1],)


def test_an_engine_that_does_not_say_has_no_dead(scene: Scene) -> None:
    scene.rule("label=claude-bottle.task", code=1, stderr="Error response from daemon: no\n")
    with pytest.raises(DockerError):
        orphans.dead(scene.environ, (leftover("killed"),), OBSERVER)


def test_a_launcher_in_a_container_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: f"{TASK}demo-1")
    assert this_machine() == f"{TASK}demo-1"
