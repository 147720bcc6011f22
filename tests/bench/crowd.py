"""Many sessions at once: so many that all start together, then as many as the machine bears."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench.ground import Ground
from tests.support.sessions import docker

LIMIT = 120
LEAST_FREE = 2 << 30  # bytes
_BATCH = 4  # sessions that start side by side while the machine is filled


@dataclass(frozen=True)
class Together:
    """What came of so many sessions started at the same moment: seconds until all had ended, and each one's start."""

    count: int
    seconds: float
    starts: list[float]
    problems: list[str]
    left: list[str]


@dataclass(frozen=True)
class Filled:
    """How many sessions were open at the same time, what `docker ps` said to that, and why not more."""

    count: int
    containers: int
    why: str
    seconds_to_fill: float
    seconds_to_end: float
    bytes_each: float
    problems: list[str]
    left: list[str]


def together(ground: Ground, count: int) -> Together:
    """Start so many sessions at the same moment and wait until all have ended."""
    begun = time.monotonic()
    launches = [ground.launch("now") for _ in range(count)]
    moments = [(launch, launch.told()) for launch in launches]
    problems = [problem for problem in [launch.end() for launch in launches] if problem]
    seconds = time.monotonic() - begun
    ground.launches.clear()
    starts = [moment - launch.at for launch, moment in moments if moment is not None]
    return Together(count, seconds, starts, problems, ground.left())


def filled(ground: Ground, limit: int) -> Filled:
    """Open sessions and hold them until there are `limit`, memory runs out or one fails; then let all go."""
    before, begun, count, why = free(), time.monotonic(), 0, ""
    while not why:
        batch = [ground.launch("hold") for _ in range(min(_BATCH, limit - count))]
        opened = [launch for launch in batch if launch.told() is not None]
        count += len(opened)
        if len(opened) < len(batch):
            why = "a session did not start"
        elif count >= limit:
            why = "the bench's own limit"
        elif free() < LEAST_FREE:
            why = f"less than {LEAST_FREE >> 30} GiB of memory were free"
    took, each = time.monotonic() - begun, (before - free()) / max(count, 1)
    containers = len(docker("ps", "--quiet", "--filter", "label=claude-bottle.role=agent",
                            "--filter", f"name=^claude-bottle-{ground.name}-").split())  # fmt: skip
    return _released(ground, Filled(count, containers, why, took, 0, each, [], []))


def free() -> int:
    """Return how many bytes of memory could be given to programs (proc(5), MemAvailable)."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))


def _released(ground: Ground, seen: Filled) -> Filled:
    begun = time.monotonic()
    for launch in ground.launches:
        if launch.process.stdin:
            launch.process.stdin.close()
            launch.process.stdin = None
    problems = [problem for problem in [launch.end() for launch in ground.launches] if problem]
    took = time.monotonic() - begun
    ground.launches.clear()
    return replace(seen, seconds_to_end=took, problems=problems, left=ground.left())
