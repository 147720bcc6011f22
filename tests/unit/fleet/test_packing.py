"""Pack a start: all that its manifests name, so that the same bottle is made elsewhere, and no secret."""

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from claude_bottle.errors import ManifestError
from claude_bottle.fleet import packing, payload
from claude_bottle.fleet.packing import Options
from claude_bottle.manifest.agent import Agent, load_agent
from claude_bottle.session import planning
from tests.support import keys, plans

VALUE = "planted-value-of-a-variable"
ENVIRON = {"HOST_KEY": VALUE, "CLAUDE_BOTTLE_OAUTH_TOKEN": plans.TOKEN, "CLAUDE_BOTTLE_BASE_IMAGE": "base:x"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Manifests that use every key, but for an encrypted ssh key."""
    made = plans.everything(tmp_path / "agents")
    bottle = made / "bottles" / "everything.yaml"
    lines = bottle.read_text().splitlines(keepends=True)
    bottle.write_text("".join(line for line in lines if "ssh/locked" not in line).replace("Dockerfile.own", "../own/D"))
    (made / "own").mkdir()
    (made / "bottles/Dockerfile.own").rename(made / "own/D")
    (made / "own/.dockerignore").write_text("x\n")
    return made


def load(folder: Path, home: Path) -> Agent:
    return load_agent(folder, "demo", environ=ENVIRON, home=home)


def packed(folder: Path) -> bytes:
    into = io.BytesIO()
    agent = load(folder, folder / "bottles")
    packing.pack(plans.machine(**ENVIRON), agent, Options("Why?", time=90), into)
    return into.getvalue()


def test_a_payload_makes_the_same_bottle_elsewhere(folder: Path, tmp_path: Path) -> None:
    """But for the paths, all that a bottle is made of is the same."""
    here, out = load(folder, folder / "bottles"), tmp_path / "out"
    out.mkdir()
    task = payload.read(io.BytesIO(packed(folder)), out)
    assert (task.agent, task.question, task.time) == ("demo", "Why?", 90)
    assert task.settings == {"BASE_IMAGE": "base:x"}
    assert task.secrets == ("CLAUDE_BOTTLE_OAUTH_TOKEN", "HOST_KEY", "key-1")
    given = packing.secrets(plans.machine(**ENVIRON), here)
    (out / "agents/keys").mkdir()
    (out / "agents/keys/key-1").write_text(given["key-1"])
    there = load(out / "agents", tmp_path / "nobody")
    alike = ("name", "env", "allow", "registries", "limits", "presets", "claude", "git", "credentials", "api")
    assert [getattr(there.bottle, key) for key in alike] == [getattr(here.bottle, key) for key in alike]
    assert [replace(host, key=here.bottle.ssh[0].key) for host in there.bottle.ssh] == list(here.bottle.ssh)
    assert (there.name, there.description, there.prompt) == (here.name, here.description, here.prompt)
    assert [skill.name for skill in there.skills] == ["look"]
    machine = plans.machine(**ENVIRON)
    assert planning.images(machine, there.bottle)[-1].tag == planning.images(machine, here.bottle)[-1].tag


def test_a_payload_holds_no_secret(folder: Path) -> None:
    data = packed(folder)
    private = keys.private("plain").splitlines()[2].encode()
    assert not [secret for secret in (VALUE.encode(), plans.TOKEN.encode(), private) if secret in data]
    given = packing.secrets(plans.machine(**ENVIRON), load(folder, folder / "bottles"))
    assert (given["HOST_KEY"], given["CLAUDE_BOTTLE_OAUTH_TOKEN"]) == (VALUE, plans.TOKEN)
    assert private.decode() in given["key-1"]


def test_a_path_of_this_machine_is_not_in_a_manifest(folder: Path, tmp_path: Path) -> None:
    (folder / "demo.yaml").write_text(f"bottle: everything\nrepo: {tmp_path}\n")
    data = packed(folder)
    assert str(tmp_path).encode() not in data
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert {"agents/demo.yaml", "agents/files/ca-1.pem", "agents/context/D"} <= set(tar.getnames())


def test_a_key_with_a_passphrase_is_refused(tmp_path: Path) -> None:
    folder = plans.everything(tmp_path / "agents")
    with pytest.raises(ManifestError, match=r"ssh/locked has a passphrase"):
        packed(folder)


def test_a_key_beside_the_dockerfile_is_refused(folder: Path) -> None:
    (folder / "own/D").rename(folder / "bottles/D")
    bottle = folder / "bottles" / "everything.yaml"
    bottle.write_text(bottle.read_text().replace("../own/D", "D"))
    with pytest.raises(ManifestError, match=r"ssh/plain lies in .*/bottles, which is packed for its Dockerfile"):
        packed(folder)


@pytest.mark.parametrize("name", ["PATH", "DOCKER_HOST", "XDG_STATE_HOME", "GIT_CONFIG_GLOBAL"])
def test_a_variable_of_the_other_machines_own_is_refused(tmp_path: Path, name: str) -> None:
    folder = plans.manifests(tmp_path / "agents", bottle=f"env: {{X: '${{{name}}}'}}\n")
    agent = load_agent(folder, "demo", environ={name: "x"}, home=tmp_path)
    with pytest.raises(ManifestError, match=rf"\$\{{{name}\}} cannot go along"):
        packing.names(agent)


def test_what_yaml_reads_differently_arrives_as_it_was(tmp_path: Path) -> None:
    odd = "a\u0085b\u2028 c\u2029 d\ufeffe"
    folder = plans.manifests(tmp_path / "agents", agent=f"prompt: {json.dumps(odd)}\n")
    into, out = io.BytesIO(), tmp_path / "out"
    out.mkdir()
    packing.pack(plans.machine(**ENVIRON), load(folder, tmp_path), Options("Why?"), into)
    into.seek(0)
    payload.read(into, out)
    assert load(out / "agents", tmp_path).prompt == odd
