"""What a unit test needs of Linux itself; on another system it is skipped, and names its reason."""

import sys
from pathlib import Path

import pytest

LINUX = sys.platform == "linux"


def needs_linux(why: str) -> pytest.MarkDecorator:
    """Return the mark of a test that can run on Linux alone."""
    return pytest.mark.skipif(not LINUX, reason=f"{why}, which Linux alone has")


def full() -> str:
    """Return the path of a disk that is always full."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, which Linux alone has")
    return "/dev/full"
