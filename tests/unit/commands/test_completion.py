"""What the shells get of click's scripts."""

import shutil

import pytest

from tests.support.scene import ROOT, Scene


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_calls_this_very_program_and_knows_its_aliases(scene: Scene, shell: str) -> None:
    (scene.docker.parent / "bash").symlink_to(shutil.which("bash") or "")  # click asks it for its version
    code, out, err = scene.run("completion", shell, "bottle")
    assert (code, err) == (0, "")
    assert str(ROOT / "cli.py") in out
    assert "bottle" in out.replace(str(ROOT), "")
    assert scene.log == []
