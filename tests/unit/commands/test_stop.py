"""Sessions ended by their launchers or by removal; docker is a fake one, the launchers are real children."""

import time

from claude_bottle.host.owner import Owner
from tests.support.labels import LIST, objects, row
from tests.support.owners import ELSEWHERE, launcher
from tests.support.scene import Patches, Scene

PATIENCE, KEEPING, BUDGET = "commands.stop._PATIENCE", "session.conversation.BUDGET", "repository.fetch.BUDGET"
AT_ONCE: Patches = {PATIENCE: 0, KEEPING: 0}
LABEL = f"{'1' * 40} {'1' * 40} /x"
WAITS = "claude-bottle: demo-1 is still bringing its work back; waiting\n"
REMOVES = "claude-bottle: demo-1 does not stop on its own; removing it\n"
REMOVED = ["claude-bottle-demo-1", "claude-bottle-demo-1-sidecar"]


def test_stop_asks_a_launcher_that_lives_here_and_removes_nothing_itself(scene: Scene) -> None:
    with launcher() as (process, owner):
        scene.rule(LIST, stdout=row("demo-1", owner))
        code, out, _ = scene.run("stop", "demo-1", "demo")
        assert (code, out, process.wait()) == (0, "stopped demo-1\n", -15)
    assert scene.undone == []


def test_stop_removes_in_order_what_a_launcher_elsewhere_owns(scene: Scene) -> None:
    scene.rule(LIST, stdout=row("demo-1", ELSEWHERE))
    scene.rule("ps --all --filter label=claude-bottle.session=demo-1", stdout=objects("demo-1", ELSEWHERE))
    assert scene.run("stop", "demo-1")[:2] == (0, "stopped demo-1\n")
    assert [argv[-1] for argv in scene.undone] == ["claude-bottle-demo-1", "claude-bottle-demo-1-sidecar"]


def test_stop_removes_what_a_launcher_that_does_not_end_keeps(scene: Scene) -> None:
    with launcher(deaf=True) as (_, owner):
        scene.rule(LIST, stdout=row("demo-1", owner))
        scene.rule("ps --all --filter label", stdout=objects("demo-1", owner))
        code, _, err = scene.run("stop", "demo-1", patches=AT_ONCE)
    assert code == 0
    assert "demo-1 does not stop on its own" in err
    assert [argv[-1] for argv in scene.undone] == ["claude-bottle-demo-1", "claude-bottle-demo-1-sidecar"]


def test_stop_all_leaves_others_alone(scene: Scene) -> None:
    with launcher() as (process, owner):
        scene.rule(LIST, stdout=row("demo-1", owner) + row("demo-2", ELSEWHERE))
        code, out, _ = scene.run("stop", "--all")
        assert (code, out, process.wait()) == (0, "1 session of other users or hosts left alone\nstopped demo-1\n", -15)
    assert scene.undone == []


def busy(scene: Scene, owner: Owner) -> None:
    """Have one session, of a launcher that lives and does not act on a signal yet."""
    scene.rule(LIST, stdout=row("demo-1", owner, repository=LABEL))
    scene.rule("ps --all --filter label", stdout=objects("demo-1", owner))


def test_stop_removes_what_is_there_once_a_hand_back_must_be_over(scene: Scene) -> None:
    with launcher(deaf=True) as (_, owner):
        busy(scene, owner)
        code, out, err = scene.run("stop", "demo-1", patches={**AT_ONCE, BUDGET: 0})
    assert (code, out, err) == (0, "stopped demo-1\n", WAITS + REMOVES)
    assert [argv[-1] for argv in scene.undone] == REMOVED


def test_stop_waits_for_work_until_it_has_come_back(scene: Scene) -> None:
    with launcher(deaf=True) as (_, owner):
        busy(scene, owner)
        child = scene.launch("stop", "demo-1", patches=AT_ONCE)
        assert child.stderr
        assert child.stderr.readline() == WAITS
        (scene.folder / "rules.json").write_text("[]")  # nothing is left of it
        assert scene.end(child) == (0, "stopped demo-1\n", "")
    assert scene.undone == []


def test_stop_does_not_wait_for_work_that_nobody_brings_back(scene: Scene) -> None:
    with launcher(deaf=True) as (process, owner):
        busy(scene, owner)
        child = scene.launch("stop", "demo-1", patches=AT_ONCE)
        assert child.stderr
        assert child.stderr.readline() == WAITS
        process.kill()
        process.wait()
        assert scene.end(child) == (0, "stopped demo-1\n", REMOVES)
    assert [argv[-1] for argv in scene.undone] == REMOVED


def test_stop_gives_a_conversation_that_is_kept_its_own_time(scene: Scene) -> None:
    with launcher(deaf=True) as (_, owner):
        scene.rule(LIST, stdout=row("demo-1", owner))
        scene.rule("ps --all --filter label", stdout=objects("demo-1", owner))
        child = scene.launch("stop", "demo-1", patches={PATIENCE: 0})
        while (
            len([call for call in scene.calls if call.starts("ps --all --filter label")]) < 3 and child.poll() is None
        ):
            time.sleep(0.01)  # it looks again and again
        (scene.folder / "rules.json").write_text("[]")  # nothing is left of it
        assert scene.end(child) == (0, "stopped demo-1\n", "")
    assert scene.undone == []
