"""The shells that a user may complete in, and tmux, for the tests that type into each."""

from tests.world import apt
from tests.world.shell import say, which

SHELLS = ("bash", "fish", "tmux", "zsh")


def ensure() -> None:
    """Install those that are missing."""
    missing = [shell for shell in SHELLS if not which(shell)]
    if missing:
        apt.install(*missing)
    say(f"{', '.join(SHELLS)} are there")
