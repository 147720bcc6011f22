"""The labels by which other commands know what a session's credential proxy ends."""

from pathlib import Path

import pytest

from claude_bottle.bottle import docker_flags
from claude_bottle.bottle.plan import Run
from tests.support import plans


def test_agent_and_sidecar_name_the_ended_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else does: a comma would end the label of a volume that a --mount makes."""
    plan = plans.plan(plans.manifests(tmp_path), Run(terminal=False))
    monkeypatch.setattr(docker_flags, "ended", lambda _: ("a.test", "b.test:8443"))
    named = "claude-bottle.signs=a.test,b.test:8443"
    for role in ("agent", "sidecar"):
        assert named in docker_flags.owned_by(plan, role)
    for role in ("network", "gate", "lock", "key-holder", "key-volume"):
        assert "claude-bottle.signs=" in docker_flags.owned_by(plan, role)
    assert "volume-label=claude-bottle.signs=," in docker_flags.volume_labels(plan, "config")
