"""`python3 -m tests.world up|down|demo|shells|browser`."""

import sys

from tests import world
from tests.world import browser, demo, shells
from tests.world.shell import WorldError

COMMANDS = {
    "up": world.up,
    "down": world.down,
    "demo": demo.start,
    "shells": shells.ensure,
    "browser": browser.ensure,
}


def main() -> None:
    """Run the command that is named; one that cannot be done is one message and exit 1."""
    if len(sys.argv) != 2 or sys.argv[1] not in COMMANDS:
        sys.exit(f"usage: python3 -m tests.world {'|'.join(COMMANDS)}")
    try:
        COMMANDS[sys.argv[1]]()
    except WorldError as error:
        sys.exit(f"world: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


main()
