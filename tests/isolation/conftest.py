"""The battery's run, once for all its tests, and its counts at the end of pytest's output."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from claude_bottle.bottle import image
from tests import world as test_world
from tests.isolation.evidence import Evidence
from tests.isolation.run import battery
from tests.world.shell import attempt, run


@pytest.fixture(scope="session")
def evidence() -> Evidence:
    """What became of every attack, in the bottle and in its anti-test."""
    world = test_world.up()
    ca = os.environ.get("CLAUDE_BOTTLE_BUILD_CA")
    base = image.base(base_image=world.base_image, ca=Path(ca).read_bytes() if ca else b"")
    if attempt("docker", "image", "inspect", base.tag).returncode != 0:
        run(*base.argv, stdin=base.context)
    return battery(world, base.tag, world.pipelock_image)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the counts."""
    counts = {
        (test, outcome): sum(f"::{test}[" in report.nodeid for report in terminalreporter.getreports(outcome))
        for test in ("test_attack", "test_detector")
        for outcome in ("passed", "failed", "error")
    }
    leaks, fired = counts["test_attack", "failed"], counts["test_detector", "passed"]
    held = counts["test_attack", "passed"]
    if any(counts.values()):
        told = f"leak battery: {held + leaks} attacks, {leaks} leak{'' if leaks == 1 else 's'}; "
        told += f"{fired} detectors fired in the anti-test"
        reports = [report for outcome in ("passed", "failed") for report in terminalreporter.getreports(outcome)]
        limits = [value for report in reports for name, value in report.user_properties if name == "limit"]
        told += "".join(f"; {limit}" for limit in _limits(limits))
        errors = counts["test_attack", "error"] + counts["test_detector", "error"]
        terminalreporter.write_line(told + (f"; {errors} DID NOT RUN" if errors else ""))


def _limits(seen: Sequence[tuple[str, bool]]) -> Iterator[str]:
    """Yield what was measured of the attacks that the engine's version decides about: its version, and what arrived."""
    for version in sorted({version for version, _ in seen}):
        arrived = [arrived for of, arrived in seen if of == version]
        yield f"{sum(arrived)} of {len(arrived)} more arrived, which Engine {version} decides"
