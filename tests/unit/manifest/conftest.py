"""Fixtures of the tests of manifests."""

from pathlib import Path

import pytest

from tests.support.manifests import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = Place(tmp_path)
    found.write("agents/a.yaml", "description: An agent\n")
    found.write("agents/bottles/default.yaml")
    return found
