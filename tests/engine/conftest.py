"""Fixtures of the tests that need an engine."""

from pathlib import Path

import pytest

from tests import world as test_world
from tests.world import World


@pytest.fixture(scope="session")
def world() -> World:
    """The test world, made where it is not there."""
    return test_world.up()


@pytest.fixture
def agents_dir(world: World, tmp_path: Path) -> Path:
    """A copy of the repository's agents that trusts the test world, for a test to add its manifests to."""
    return world.copy_agents(tmp_path / "agents")
