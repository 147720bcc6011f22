"""docs/performance.md: the numbers, how they were made, and on what."""

import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.bench.crowd import LEAST_FREE, LIMIT, Filled, Together
from tests.bench.history import Journey
from tests.bench.memory import Weight
from tests.bench.rounds import Round, Times
from tests.support.sessions import docker

METHOD = """\
# Performance

Written by `make bench`. Milliseconds are one machine's, at one moment; the ratios are what to compare.

## Method

Each round gets to the same claude and back in three ways, one after another, so that whatever else the machine does
meets all three:

- **a** `./cli.py start <agent> --yes --print <question>`: everything, with Python's own start, lock, gate, self-test,
  watchdog and the report at the end.
- **b** the docker commands that `--dry-run` shows for such a session, one after another, run by a program that is there
  already. What stands before a `||` finds its object and makes nothing; lock and gate leave nothing to undo.
- **c** what a shell script would run that confines and proves nothing: `network create --internal`, `run` of the
  sidecar, `network connect`, `run` of the agent, `exec` of claude, `rm --force` of both, `network rm`. The images and
  claude are the same.

The bottle is the default one but for its image: claude is a small program (`tests/bench/clock/`), put there by the
bottle's own Dockerfile. It prints the kernel's monotonic clock, which containers share with their host, and exits at
once. *Start* is from the first command to that moment, *teardown* from that moment to the prompt.

A round before the first is not counted. Ratios are taken within each round; p95 is by nearest rank.
"""


class Ratio(NamedTuple):
    """A ratio of two of a round's times, and what it is to be at most."""

    name: str
    of: Callable[[Round], float]
    target: float | None


RATIOS = (
    Ratio("a/b, start", lambda each: each.a.start / each.b.start, 0.65),
    Ratio("a/c, start", lambda each: each.a.start / each.c.start, 1.0),
    Ratio("a/b, teardown", lambda each: each.a.teardown / each.b.teardown, None),
    Ratio("a/c, teardown", lambda each: each.a.teardown / each.c.teardown, 1.0),
)


@dataclass(frozen=True)
class Results:
    """All that was measured; `load` is the machine's, of the minute before."""

    load: float
    sidecar_image: str
    rounds: Sequence[Round]
    help: Sequence[float]
    dry_run: Sequence[float]
    weight: Weight
    journey: Journey
    together: Together
    filled: Filled


def p95(values: Iterable[float]) -> float:
    """Return the value that 95 of 100 do not exceed, by nearest rank."""
    ranked = sorted(values)
    return ranked[ceil(0.95 * len(ranked)) - 1]


def text(results: Results) -> str:
    """Return the report."""
    parts = (
        *(_machine(results), _rounds(results.rounds), _weight(results.weight), _journey(results.journey)),
        *(_crowd(results), _commands(results)),
    )
    return "\n".join((METHOD, *("\n".join((*part, "")) for part in parts))).rstrip() + "\n"


def _machine(results: Results) -> Iterator[str]:
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    versions = docker("version", "--format", "{{.Server.Version}} (client {{.Client.Version}})").strip()
    engine = docker("info", "--format", "{{.OperatingSystem}}, {{.Driver}}, cgroup v{{.CgroupVersion}}").strip()
    yield "## Machine\n"
    yield from (
        f"- {os.cpu_count()} CPUs{f' ({cpu[1]})' if cpu else ''}, {total / (1 << 30):.0f} GiB; {engine}",
        f"- Linux {platform.release()}, Docker Engine {versions}, Python {platform.python_version()}",
        f"- sidecar `{results.sidecar_image}`",
        f"- {datetime.now(UTC):%Y-%m-%d}, {len(results.rounds)} rounds; load of the minute before: {results.load:.1f}",
    )


def _rounds(rounds: Sequence[Round]) -> Iterator[str]:
    yield "## Start and teardown\n"
    yield "| ms | start, median | p95 | teardown, median | p95 |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for name, way in (("a: the launcher", "a"), ("b: its commands in sequence", "b"), ("c: bare and unproven", "c")):
        times: list[Times] = [getattr(each, way) for each in rounds]
        starts, ends = [one.start for one in times], [one.teardown for one in times]
        yield f"| {name} | {_ms(median(starts))} | {_ms(p95(starts))} | {_ms(median(ends))} | {_ms(p95(ends))} |"
    yield "\n| ratio | median | p95 | wanted | |"
    yield "| --- | ---: | ---: | ---: | --- |"
    for ratio in RATIOS:
        values = [ratio.of(each) for each in rounds]
        yield f"| {ratio.name} | {median(values):.2f} | {p95(values):.2f} | {_target(ratio, median(values))} |"


def _target(ratio: Ratio, value: float) -> str:
    if ratio.target is None:
        return "- | "
    return f"<= {ratio.target:.2f} | {'reached' if value <= ratio.target else '**missed**'}"


def _weight(weight: Weight) -> Iterator[str]:
    yield "## Memory of one session, beside claude's own\n"
    yield "While claude waits. PSS divides what processes have in common among them, of other sessions too.\n"
    yield "| MiB | processes | PSS | RSS |"
    yield "| --- | ---: | ---: | ---: |"
    for part in weight.parts:
        yield f"| {part.name} | {part.processes} | {_mib(part.pss)} | {_mib(part.rss)} |"
    yield f"| together | {sum(part.processes for part in weight.parts)} | {_mib(weight.pss)} | |"
    yield f"\nThe sidecar's cgroup: {_mib(weight.cgroup)} MiB."


def _journey(journey: Journey) -> Iterator[str]:
    yield "## A large repository\n"
    yield (
        f"One of {journey.objects:,} objects, {_mib(journey.bytes)} MiB packed, goes in with `--repo`, and one commit"
        f" comes back. Claude started after {journey.start:.1f} s; the prompt was back {journey.back:.1f} s after it."
    )


def _crowd(results: Results) -> Iterator[str]:
    many, most = results.together, results.filled
    yield "## Many at once\n"
    yield (
        f"- **{many.count} sessions started at the same moment**: all had ended after {many.seconds:.1f} s;"
        f" claude started after {median(many.starts):.1f} s (median), {max(many.starts):.1f} s (last)."
        f" Failed: {len(many.problems)}. Left behind: {len(many.left)}."
    )
    yield (
        f"- **{most.count} sessions open at the same time**, then stopped: {most.why} (limits: {LIMIT} sessions,"
        f" {LEAST_FREE >> 30} GiB free). `docker ps` counted {most.containers} bottles. Opening them took"
        f" {most.seconds_to_fill:.0f} s, ending all at once {most.seconds_to_end:.0f} s;"
        f" {_mib(most.bytes_each)} MiB of the machine's free memory each. Failed: {len(most.problems)}."
        f" Left behind: {len(most.left)}."
    )
    for problem in dict.fromkeys((*many.problems, *many.left, *most.problems, *most.left)):
        yield f"  - {problem}"


def _commands(results: Results) -> Iterator[str]:
    yield "## Commands that call no docker\n"
    yield "| ms | median | p95 |"
    yield "| --- | ---: | ---: |"
    for name, values in (("--help", results.help), ("start --dry-run", results.dry_run)):
        yield f"| `./cli.py {name}` | {_ms(median(values))} | {_ms(p95(values))} |"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f}"


def _mib(size: float) -> str:
    return f"{size / (1 << 20):.0f}"
