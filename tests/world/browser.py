"""Debian's headless Chromium, for the test that looks at a page as a user does."""

from tests.world import apt
from tests.world.shell import say, which

PROGRAM = "chromium"


def ensure() -> None:
    """Install it if it is missing; WorldError without root on a Debian machine."""
    if not which(PROGRAM):
        apt.install(PROGRAM)
    say(f"{PROGRAM} is there")
