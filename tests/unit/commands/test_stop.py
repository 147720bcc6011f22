"""What `stop` waits for: a launcher that brings its work back, as long as that may take and no longer."""

import signal
import subprocess

from claude_bottle.host.owner import Owner
from tests.support.owners import launcher
from tests.support.scene import Scene
from tests.unit.session.test_registry import LIST, objects, row

PATIENCE, BUDGET = "commands.running._PATIENCE", "repository.fetch.BUDGET"
LABEL = f"{'1' * 40} {'1' * 40} /x"
WAITS = "claude-bottle: demo-1 still brings its work back: waiting for it\n"
REMOVES = "claude-bottle: demo-1 does not end by itself: removing what it has\n"
REMOVED = ["claude-bottle-demo-1", "claude-bottle-demo-1-sidecar"]


def busy(scene: Scene, process: "subprocess.Popen[bytes]", owner: Owner) -> None:
    """Have one session, of a launcher that lives and does not act on a signal yet."""
    process.send_signal(signal.SIGSTOP)
    scene.rule(LIST, stdout=row("demo-1", owner, repository=LABEL))
    scene.rule("ps --all --filter label", stdout=objects("demo-1", owner))


def test_stop_removes_what_is_there_once_a_hand_back_must_be_over(scene: Scene) -> None:
    with launcher() as (process, owner):
        busy(scene, process, owner)
        code, out, err = scene.run("stop", "demo-1", patches={PATIENCE: 0, BUDGET: 0})
    assert (code, out, err) == (0, "stopped demo-1\n", WAITS + REMOVES)
    assert [argv[-1] for argv in scene.undone] == REMOVED


def test_stop_waits_for_work_until_it_has_come_back(scene: Scene) -> None:
    with launcher() as (process, owner):
        busy(scene, process, owner)
        child = scene.launch("stop", "demo-1", patches={PATIENCE: 0})
        assert child.stderr
        assert child.stderr.readline() == WAITS
        (scene.folder / "rules.json").write_text("[]")  # nothing is left of it
        assert scene.end(child) == (0, "stopped demo-1\n", "")
    assert scene.undone == []


def test_stop_does_not_wait_for_work_that_nobody_brings_back(scene: Scene) -> None:
    with launcher() as (process, owner):
        busy(scene, process, owner)
        child = scene.launch("stop", "demo-1", patches={PATIENCE: 0})
        assert child.stderr
        assert child.stderr.readline() == WAITS
        process.kill()
        process.wait()
        assert scene.end(child) == (0, "stopped demo-1\n", REMOVES)
    assert [argv[-1] for argv in scene.undone] == REMOVED
