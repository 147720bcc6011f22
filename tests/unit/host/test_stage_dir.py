"""The folder of what a session is made from."""

import os
import stat
from pathlib import Path

from claude_bottle.host.stage_dir import StageDir
from tests.support.owners import OBSERVER


def test_a_stage_dir_is_private_and_goes_with_all_that_is_in_it() -> None:
    before = os.umask(0)
    try:
        stage = StageDir.make("demo-0a1b2c3d")
        stage.write("file", b"data")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in stage.path.iterdir()}
    assert (stat.S_IMODE(stage.path.stat().st_mode), modes) == (0o700, {"file": 0o600})
    stage.remove()
    assert not stage.path.exists()
    stage.remove()


def test_a_stage_dir_elsewhere_has_a_link_as_long_as_it_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "links"
    with StageDir.held("demo-0a1b2c3d", OBSERVER, tmp_path, folder) as stage:
        assert [link.readlink() for link in folder.iterdir()] == [stage.path]
    assert list(folder.iterdir()) == []


def test_a_stage_dir_elsewhere_needs_no_link(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with StageDir.held("demo-0a1b2c3d", OBSERVER, tmp_path, tmp_path / "file" / "links") as stage:
        assert (stage.path / "owner").read_text() == str(OBSERVER)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
