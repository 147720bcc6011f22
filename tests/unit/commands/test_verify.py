"""The isolation of bottles proved without claude, as lines and as JSON; docker is a fake one."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from claude_bottle.bottle import plan
from claude_bottle.bottle.plan import Request
from claude_bottle.commands import check
from claude_bottle.errors import DockerError
from claude_bottle.host.machine import MadeUp
from claude_bottle.process.endpoint import Endpoint
from claude_bottle.process.engine import EGRESS, Egress, EngineFacts
from claude_bottle.session import planning, start
from tests.support import plans
from tests.support.scene import TRUSTING, Scene
from tests.support.systems import LINUX

CREDENTIALS = """\
env: {KEY: "${HOST_KEY}"}
credentials:
  - {host: api.example.net, header: {Authorization: "Bearer ${HOST_KEY}"}}
  - {host: code.example.net, basic: {user: "${HOST_USER}", password: "${HOST_KEY}"}}
"""
PLANTED = {"HOST_KEY": "planted", "HOST_USER": "planted:user\n", "CLAUDE_BOTTLE_OAUTH_TOKEN": "planted"}


def test_each_agent_has_its_outcome_and_the_first_fault_gives_the_exit_code(scene: Scene) -> None:
    (scene.agents / "writer.yaml").write_text("description: Writes\n")
    scene.rule("python3 -I -", stdout="{}\n", times=1)
    scene.rule("network create --driver bridge --internal", stdout="0a\n", times=1)
    scene.rule("network create --driver bridge --internal", code=1, stderr="no luck\n")
    code, out, _ = scene.run("verify")
    first, *_, name, error = out.splitlines()
    assert (code, first, name) == (70, "demo", "writer")
    assert "no luck" in error
    outcome = json.loads(scene.run("verify", "demo", "--json")[1])
    assert outcome["demo"]["passed"] is False
    assert "no luck" in outcome["demo"]["error"]


def test_a_bottle_that_is_not_isolated_gives_66(scene: Scene) -> None:
    # The fake docker builds nothing: every check fails, unless there is none.
    code, out, _ = scene.run("verify", "demo", "--json", patches={})
    outcome = json.loads(out)["demo"]
    assert (code, outcome["passed"]) == (66, False)
    unknown = set() if LINUX else {"not applicable"}  # the addresses of this machine
    assert {check["verdict"] for check in outcome["checks"]} == {"failed", *unknown}
    assert scene.run("verify", "demo", patches=TRUSTING)[0] == 0


def test_no_credential_has_to_be_set(scene: Scene) -> None:
    (scene.agents / "bottles/default.yaml").write_text(CREDENTIALS)
    code, out, err = scene.run("verify", CLAUDE_BOTTLE_OAUTH_TOKEN="")
    assert code == 0, out + err
    assert scene.run("check")[0] == 64  # where they have to be


@pytest.mark.parametrize("environ", [{}, PLANTED], ids=["unset", "set"])
def test_no_credential_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]) -> None:
    folder = plans.manifests(tmp_path, bottle=CREDENTIALS)
    machine = plans.machine(CLAUDE_BOTTLE_AGENTS=str(folder), **environ)
    requests = list[Request]()

    @contextmanager
    def context(*_: object, **__: object) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(engine=SimpleNamespace(endpoint=Endpoint), machine=machine)

    def resolve(requested: Request, _: object) -> None:
        requests.append(requested)
        raise DockerError("no further")

    monkeypatch.setattr(start, "_context", context)
    monkeypatch.setattr(start, "with_key", lambda machine: machine)
    monkeypatch.setattr(planning, "resolve", resolve)
    assert [str(error) for _, error in start.verify(machine, check.check(machine, None, MadeUp()), verbose=False)] == [
        "no further"
    ]
    [requested] = requests
    made = plan.make(requested, EngineFacts(Egress(EGRESS)))
    hosts = json.loads(made.signing.settings)["hosts"]
    assert hosts["api.anthropic.com"]["set"]["Authorization"].startswith("Bearer sk-ant-oat01-made-up-")
    assert hosts["api.example.net"]["set"]["Authorization"].startswith("Bearer made-up-")
    assert made.signing.shaped
    assert b"planted" not in made.signing.settings + made.home + made.config
