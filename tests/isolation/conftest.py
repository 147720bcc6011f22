"""The battery's run, once for all its tests, and its counts at the end of pytest's output."""

import os
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
        limits = sum("::test_limit" in report.nodeid for report in terminalreporter.getreports("passed"))
        told += f"; {limits} more are as open as docs/security.md says of this engine"
        errors = counts["test_attack", "error"] + counts["test_detector", "error"]
        terminalreporter.write_line(told + (f"; {errors} DID NOT RUN" if errors else ""))
