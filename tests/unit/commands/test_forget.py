"""Forget what was approved, through the command line."""

from dataclasses import replace
from pathlib import Path

from claude_bottle.session import approvals
from tests.support import plans
from tests.support.labels import KEY
from tests.support.scene import Scene


def _record(scene: Scene, path: Path) -> None:
    here = plans.machine(HOME=str(scene.folder), XDG_STATE_HOME=str(scene.key.parents[1]))
    approvals.write(replace(here, key=KEY), path, ())


def test_a_record_is_removed_once(scene: Scene) -> None:
    _record(scene, scene.agents / "demo.yaml")
    assert scene.run("forget", "demo") == (0, "removed the record of your last yes to demo\n", "")
    assert list(scene.key.with_name("approvals").iterdir()) == []
    assert scene.run("forget", "demo") == (0, "no yes to demo is recorded; nothing changed\n", "")
    assert scene.log == []


def test_the_agent_may_be_faulty_or_gone(scene: Scene) -> None:
    for name in ("demo", "gone"):
        _record(scene, scene.agents / f"{name}.yaml")
        (scene.agents / "demo.yaml").write_text("no: {such\n")
        assert scene.run("forget", name)[0] == 0
    code, out, err = scene.run("forget", "gone")
    assert (code, out, err.count("\n")) == (64, "", 1)
    assert 'no agent "gone"' in err
