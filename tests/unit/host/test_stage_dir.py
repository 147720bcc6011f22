"""The folder of what a session is made from."""

import os
import stat

from claude_bottle.host.stage_dir import StageDir


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
