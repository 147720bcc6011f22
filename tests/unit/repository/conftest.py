"""Fixtures of the tests of repositories."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.repos import Ground


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    made = Ground(tmp_path)
    made.user.commit("the user's", kept="1", changed="1")
    yield made
    for process in Path("/proc").glob("[0-9]*"):  # what still runs in a bottle ends with it
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink().is_relative_to(tmp_path):
                os.kill(int(process.name), signal.SIGKILL)
    assert list((tmp_path / "tmp").iterdir()) == []
