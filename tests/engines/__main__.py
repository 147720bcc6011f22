"""`python -m tests.engines [--only PATH]... [NAME...]`: run the tests on each engine, write the table."""

import argparse
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from tests import world
from tests.engines import report, suite
from tests.engines.engine import ENGINES, engine
from tests.support import images
from tests.world.shell import WorldError, need_root, say

REPORT = world.REPOSITORY / "docs" / "platforms.md"


def main() -> None:
    """Run what the command line says. Ctrl-C is exit 130, once all is removed."""
    parser = argparse.ArgumentParser(prog="python -m tests.engines", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all if none is named: {', '.join(ENGINES)}")
    parser.add_argument("--only", action="append", default=[], metavar="PATH", help="run these tests, write no table")
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - ENGINES.keys():
        parser.error(f"no such engine: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, _end)
    try:
        rows = _run(chosen.names or tuple(ENGINES), chosen.only)
    except WorldError as error:
        sys.exit(f"engines: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(not all(row.passed for row in rows))


def _run(names: Sequence[str], only: Sequence[str]) -> list[report.Row]:
    need_root("an engine of another release is made in namespaces of its own")
    made = world.up()
    lent = images.of_the_tests(made)
    rows = []
    for name in names:
        with engine(name) as up:
            up.load(*lent)
            rows.append(suite.tested(up, only))
        if not only:
            # Written after each: the rows of those that ran are not lost if a later one cannot be made.
            REPORT.write_text(report.updated(REPORT.read_text() if REPORT.exists() else "", rows, tuple(ENGINES)))
    for row in rows:
        say(str(row))
    print(next((row for row in rows if not row.passed), rows[-1]).summary)  # as after any run of pytest
    return rows


def _end(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


main()
