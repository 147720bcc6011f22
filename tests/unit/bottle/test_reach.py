"""What an agent is told of its limits: all that its plan opens, and no secret."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from claude_bottle.bottle import reach
from claude_bottle.bottle.plan import Plan, Run
from claude_bottle.egress.allowlist import Host
from claude_bottle.session import steps
from tests.support import plans


def everything(folder: Path) -> Plan:
    """Plan an agent whose bottle has every key of a manifest."""
    return plans.plan(plans.everything(folder), Run(terminal=True), HOST_KEY="planted-secret")


def test_the_file_in_the_home_has_all_that_the_bottle_may_reach(tmp_path: Path) -> None:
    plan = everything(tmp_path)
    with tarfile.open(fileobj=io.BytesIO(plan.home)) as tar:
        file = tar.extractfile(".claude-bottle/reach.json")
        assert file
        data = file.read()
    assert data == plan.reach
    found = json.loads(data)
    assert (found["hosts"], found["ports"]) == (list(plan.allow), list(plan.ports))
    assert found["allowed_since_the_start"] == []
    assert found["ssh"][1] == {"name": "second", "host": "git.example.org", "port": 2222, "user": "deploy"}
    signed = [
        {"host": "api.example.net", "from": ["HOST_KEY"], "methods": ["GET", "POST"], "paths": ["/v1/", "/graphql"]},
        {"host": "code.example.net:8443", "from": ["HOST_KEY"], "methods": "all", "paths": "all"},
    ]
    assert found["credentials_set_outside"] == signed
    limits = {"cpus": 0.5, "memory_bytes": 1 << 30, "processes": 64, "messages_to_the_api": 800, "seconds": 7200}
    assert found["limits"] == limits
    assert "./cli.py allow demo-0a1b2c3d HOST" in found["to_allow_more"]


def test_it_holds_no_secret_and_no_path_of_this_machine(tmp_path: Path) -> None:
    text = everything(tmp_path).reach.decode()
    assert [word for word in ("planted-secret", str(tmp_path), "Bearer", "ada", "PRIVATE") if word in text] == []


def test_claudes_memory_gets_two_lines_behind_what_the_image_has(tmp_path: Path) -> None:
    plan = everything(tmp_path)
    [step] = [step for step in steps.table(plan) if step.name == "home"]
    assert step.argv[-1].splitlines() == reach.memory(plan.session).splitlines()
    assert (len(step.argv[-1].splitlines()), ">> /home/agent/.claude/CLAUDE.md" in step.argv[-5]) == (2, True)


def test_what_is_allowed_later_is_added(tmp_path: Path) -> None:
    data = plans.plan(plans.manifests(tmp_path), Run(terminal=True)).reach
    names = (*json.loads(data)["hosts"], "a.test", "*.b.test")
    once = reach.widened(data, names, [Host("a.test"), Host("*.b.test", 8443), Host("claude.ai")])
    found = json.loads(once)
    assert (found["hosts"], found["ports"]) == (sorted(names), [443, 8443])
    assert found["allowed_since_the_start"] == ["a.test", "*.b.test:8443"]
    before = json.loads(data)
    assert {key for key in found if found[key] != before[key]} == {"hosts", "ports", "allowed_since_the_start"}
    assert reach.widened(once, names, [Host("a.test"), Host("a.test", 8443)]) == once
    assert reach.state(once) == ((443, 8443), (Host("a.test"), Host("*.b.test", 8443)))


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"{", b'{"ports": 1}', b'{"allowed_since_the_start": ["x y"]}'])
def test_what_is_no_such_file_says_nothing(data: bytes) -> None:
    assert reach.state(data) == ((), ())
