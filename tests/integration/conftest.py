"""Fixtures of the tests that need an engine."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import world as test_world
from tests.support import images
from tests.support.matrix import Matrix
from tests.support.sessions import Bench
from tests.world import World


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
    """The agent's image, which is there, as the puppet's is."""
    return images.ensure(world)[0]


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
