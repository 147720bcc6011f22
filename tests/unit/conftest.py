"""Fixtures of the unit tests."""

import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from tests.support.scene import Scene

GUARD = 300  # seconds; no test comes near it


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A scene whose handshakes cannot wait for ever."""
    scene = Scene(tmp_path)

    def stuck(_number: int, _frame: FrameType | None) -> None:
        for child in scene.children:
            child.kill()
        raise TimeoutError("a handshake did not come about")

    before = signal.signal(signal.SIGALRM, stuck)
    signal.alarm(GUARD)
    yield scene
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
