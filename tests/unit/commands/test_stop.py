"""Sessions ended by their launchers or by removal; docker is a fake one, the launchers are real children."""

from tests.support.labels import LIST, objects, row
from tests.support.owners import ELSEWHERE, launcher
from tests.support.scene import Scene


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
    with launcher() as (process, owner):
        process.send_signal(19)  # SIGSTOP: it cannot act on what it is asked
        scene.rule(LIST, stdout=row("demo-1", owner))
        scene.rule("ps --all --filter label", stdout=objects("demo-1", owner))
        code, _, err = scene.run("stop", "demo-1", patches={"commands.stop._PATIENCE": 0})
    assert code == 0
    assert "demo-1 does not stop on its own" in err
    assert [argv[-1] for argv in scene.undone] == ["claude-bottle-demo-1", "claude-bottle-demo-1-sidecar"]


def test_stop_all_leaves_others_alone(scene: Scene) -> None:
    with launcher() as (process, owner):
        scene.rule(LIST, stdout=row("demo-1", owner) + row("demo-2", ELSEWHERE))
        code, out, _ = scene.run("stop", "--all")
        assert (code, out, process.wait()) == (0, "1 session of other users or hosts left alone\nstopped demo-1\n", -15)
    assert scene.undone == []
