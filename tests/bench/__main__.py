"""`python -m tests.bench`: measure everything, write the report, leave nothing."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests import world
from tests.bench import crowd, history, memory, report, rounds
from tests.bench.ground import Ground
from tests.support.sessions import CLI
from tests.world.shell import WorldError

REPORT = world.REPOSITORY / "docs" / "performance.md"
TOGETHER = 40
MOST_ROUNDS = 200


def main() -> None:
    """Run what the command line says; Ctrl-C is exit 130, when all is removed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, choices=range(1, MOST_ROUNDS + 1), metavar="N")
    parser.add_argument("--most", type=int, default=crowd.LIMIT, choices=range(1, crowd.LIMIT + 1), metavar="N")
    parser.add_argument("--out", type=Path, default=REPORT, metavar="FILE")
    chosen = parser.parse_args()
    try:
        ready = world.up()
        with tempfile.TemporaryDirectory(prefix="bottle-bench-") as folder, Ground(ready, Path(folder)) as ground:
            written = report.text(_measure(ground, chosen.rounds, chosen.most))
    except WorldError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    chosen.out.parent.mkdir(exist_ok=True)
    chosen.out.write_text(written)
    print(written)


def _measure(ground: Ground, count: int, most: int) -> report.Results:
    load = os.getloadavg()[0]
    _say("a round to warm up, which builds what is missing")
    rounds.run(ground)
    taken = []
    for number in range(count):
        taken.append(rounds.run(ground))
        ways = (taken[-1].a, taken[-1].b, taken[-1].c)
        _say(f"round {number + 1}: " + ", ".join(f"{way.start:.3f} + {way.teardown:.3f} s" for way in ways))
    help_ = rounds.timed(count, lambda: ground.command(str(CLI), "--help"))
    dry = rounds.timed(count, lambda: ground.command(str(CLI), "start", ground.name, "--dry-run"))
    _say("the memory of a session")
    weight = memory.weigh(ground)
    _say(f"a repository of {history.OBJECTS} objects")
    journey = history.measure(ground)
    _say(f"{TOGETHER} sessions at once")
    together = crowd.together(ground, TOGETHER)
    _say(f"as many as the machine bears, {most} at most")
    filled = crowd.filled(ground, most)
    return report.Results(load, ground.world.pipelock_image, taken, help_, dry, weight, journey, together, filled)


def _say(line: str) -> None:
    print(f"bench: {line}", file=sys.stderr, flush=True)


main()
