"""Fixtures of the tests of the self-test."""

from pathlib import Path

import pytest

from claude_bottle.bottle.plan import Plan, Run
from tests.support import plans


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """The plan of a session."""
    return plans.plan(plans.manifests(tmp_path), Run(terminal=True), CLAUDE_BOTTLE_OAUTH_TOKEN=plans.TOKEN)
