"""`python -m tests.picture`: record a session, write docs/session.svg."""

import sys
import tempfile
from pathlib import Path

from tests import world
from tests.picture.record import record
from tests.picture.svg import svg
from tests.world.shell import WorldError

PICTURE = world.REPOSITORY / "docs" / "session.svg"
TITLE = "A session of ./cli.py start demo, recorded; what answers as Anthropic's API is a stand-in"


def main() -> None:
    """Write the picture; a session that fails is one message and exit 1."""
    try:
        with tempfile.TemporaryDirectory(prefix="bottle-picture-") as folder:
            PICTURE.write_text(svg(record(world.up(), Path(folder)), TITLE))
    except WorldError as error:
        sys.exit(f"picture: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    world.shell.say(f"wrote {PICTURE}")


main()
