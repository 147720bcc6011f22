"""What counts as removed; the order of undos and signals are in test_session.py, where sessions are whole."""

from dataclasses import replace

import pytest

from claude_bottle.cleanup.stack import Teardown, ask_to_end, remove
from claude_bottle.process.liveness import Process
from tests.support.clients import NO_ENGINE, NOT_REMOVED
from tests.support.owners import ELSEWHERE, OBSERVER, REBOOTED, launcher
from tests.support.scene import Scene

UNDO = ("docker", "rm", "--force", "x")


@pytest.mark.parametrize(("code", "said"), NOT_REMOVED.values(), ids=NOT_REMOVED)
def test_absence_is_success(scene: Scene, code: int, said: str) -> None:
    scene.rule("rm --force", code=code, stderr=said)
    assert remove(UNDO, scene.environ) is None


def test_everything_else_is_a_failure_told_in_dockers_words(scene: Scene) -> None:
    said = "error while removing network: network x has active endpoints"
    scene.rule("rm --force", code=1, stderr=f"Error response from daemon: {said}\n")
    assert remove(UNDO, scene.environ) == said


@pytest.mark.parametrize("said", [*NO_ENGINE.values(), "Error: No such container: x"], ids=[*NO_ENGINE, "absent"])
def test_without_an_engine_nothing_counts_as_removed(scene: Scene, said: str) -> None:
    """Whatever else its client says."""
    scene.rule("rm", code=1, stderr=f"{said}\nexit status 1\n")  # as `network rm` adds it
    scene.without_engine(said)
    assert remove(UNDO, scene.environ) == said


def test_a_removal_under_way_is_waited_for(scene: Scene) -> None:
    said = "Error response from daemon: removal of container x is already in progress\n"
    scene.rule("rm --force", code=1, stderr=said, times=2)
    scene.rule("rm --force", code=1, stderr="Error: No such container: x\n")
    assert remove(UNDO, scene.environ) is None
    assert len([event for event in scene.log if event.starts("rm --force")]) == 3


def test_a_removal_that_stays_under_way_is_given_up(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("claude_bottle.cleanup.stack._TIMEOUT", 1)
    scene.rule("rm --force", code=1, stderr="removal of container x is already in progress\n")
    assert remove(UNDO, scene.environ) == "removal of container x is already in progress"


def test_undos_run_once_from_the_highest_place_down_whatever_they_raise() -> None:
    done = []

    def undo(name: str, error: Exception | None = None) -> str | None:
        done.append(name)
        if error:
            raise error
        return "it is busy" if name == "busy" else None

    teardown = Teardown()
    teardown.arm(1, "low", lambda: undo("low"))
    teardown.arm(3, "busy", lambda: undo("busy"))
    teardown.arm(2, "broken", lambda: undo("broken", OSError("no luck")))
    assert teardown.run() == ["busy (it is busy)", "broken (no luck)"]
    assert teardown.run() == []
    assert done == ["busy", "broken", "low"]


def test_only_a_launcher_that_certainly_lives_here_is_asked_to_end() -> None:
    with launcher() as (process, owner):
        for one in (replace(owner, started="1"), REBOOTED, ELSEWHERE, OBSERVER):
            assert not ask_to_end(one, OBSERVER)
        assert process.poll() is None
        assert ask_to_end(owner, OBSERVER)
        assert process.wait() == -15


def test_a_launcher_of_which_nothing_is_shown_is_asked_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its session would be removed under it."""
    monkeypatch.setattr("claude_bottle.process.liveness.look", lambda _: Process())
    with launcher() as (process, owner):
        assert ask_to_end(replace(owner, started="-"), OBSERVER)
        assert process.wait() == -15
