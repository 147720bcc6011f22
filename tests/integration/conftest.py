"""Fixtures of the tests that need an engine."""

import fcntl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from claude_bottle.bottle import image as bottle_image
from claude_bottle.host.machine import Machine
from claude_bottle.process.liveness import this_process
from claude_bottle.session.planning import images
from tests import world as test_world
from tests.support.matrix import Matrix
from tests.support.sessions import PUPPET, Bench
from tests.world import World, certificates


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", "long: waits for minutes, so it starts before the others and runs beside them")
    config.addinivalue_line("markers", "presets: a language that CI leaves out; -m presets runs these")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the long ones to the front."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell the size and the result of the fault matrix."""
    reports = [report for each in terminalreporter.stats.values() for report in each]
    calls = [report for report in reports if getattr(report, "when", "") == "call"]
    found = [value for report in calls for name, value in report.user_properties if name == "matrix"]
    if found:
        cases, wrong = (sum(value[place] for value in found) for place in (0, 1))
        gone = sorted(seconds for value in found for seconds in value[2])
        terminalreporter.section("fault matrix")
        terminalreporter.write_line(f"{cases} cases, {cases - wrong} ended with the right code and left nothing")
        if gone:
            median, slowest = gone[len(gone) // 2], gone[-1]
            terminalreporter.write_line(
                f"after SIGKILL nothing was left in {median:.1f} s, median, {slowest:.1f} s at most"
            )


@pytest.fixture(scope="session")
def world() -> World:
    """The test world, made where it is not there."""
    return test_world.up()


@pytest.fixture(scope="session", autouse=True)
def image(world: World) -> str:
    """The agent's image; it and the puppet's are built by one worker, and not by four at once."""
    base, *_ = images(Machine(world.environ(Path()), Path.home(), interactive=False, owner=this_process()), None)
    with (certificates.cache() / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for one in (base, bottle_image.for_bottle(PUPPET / "Dockerfile", base)):
            if subprocess.run(("docker", "image", "inspect", one.tag), capture_output=True, check=False).returncode:
                subprocess.run(one.argv, input=one.context, capture_output=True, check=True)
    return base.tag


@pytest.fixture
def agents_dir(world: World, tmp_path: Path) -> Path:
    """A copy of the repository's agents that trusts the test world, for a test to add its manifests to."""
    return world.copy_agents(tmp_path / "agents")


@pytest.fixture
def bench(world: World, agents_dir: Path, tmp_path: Path) -> Iterator[Bench]:
    """A place for one test's sessions, of which nothing may be left at its end."""
    made = Bench(world, agents_dir, tmp_path)
    yield made
    left = made.left_at_last()
    made.remove_left()
    assert left == []


@pytest.fixture
def matrix(world: World, agents_dir: Path, tmp_path: Path, record_property: Callable[[str, object], None]) -> Matrix:
    """The cases of one test, sessions that are ended from outside."""
    return Matrix(world, agents_dir, tmp_path, record_property)
