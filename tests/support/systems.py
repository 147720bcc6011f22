"""What a unit test needs of its system; on another one it is skipped, and names its reason."""

import contextlib
import socket
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


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


NEEDS_IPV6 = pytest.mark.skipif(not _has_ipv6(), reason="needs a loopback of IPv6")
