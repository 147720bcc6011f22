"""Where docker's commands lead, decided from what the user chose."""

import hashlib
import json
from pathlib import Path

import pytest

from claude_bottle.process import endpoint
from claude_bottle.process.endpoint import FORWARDED, SOCKET, Endpoint
from tests.support.scene import Scene


@pytest.mark.parametrize(
    ("url", "local"),
    [
        (SOCKET, True),
        ("unix:///run/user/1000/docker.sock", True),
        ("npipe:////./pipe/docker_engine", True),
        ("ssh://ada@build-1", False),
        ("tcp://198.51.100.7:2376", False),
        ("tcp://127.0.0.1:2375", False),  # where that leads, nobody can see
        ("", False),
    ],
)
def test_whose_addresses_and_whether_the_link_can_be_cut(url: str, local: bool) -> None:
    there = Endpoint(url)
    assert (there.is_here, there.can_be_cut) == (local, not local)
    declared = Endpoint(url, declared=True)
    assert (declared.is_here, declared.can_be_cut) == (False, True)


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, Endpoint(SOCKET)),
        ({"DOCKER_HOST": "ssh://a", "DOCKER_CONTEXT": "far"}, Endpoint("ssh://a")),
        ({"DOCKER_CONTEXT": "default"}, Endpoint(SOCKET)),
        ({"DOCKER_HOST": "unix:///own.sock"}, Endpoint("unix:///own.sock")),
        ({"DOCKER_HOST": "unix:///own.sock", "CLAUDE_BOTTLE_REMOTE": "0"}, Endpoint("unix:///own.sock")),
        ({"DOCKER_HOST": "unix:///own.sock", "CLAUDE_BOTTLE_REMOTE": "1"}, Endpoint("unix:///own.sock", declared=True)),
        ({"DOCKER_HOST": "unix:///ours.sock", FORWARDED: "ssh://a"}, Endpoint("ssh://a")),
    ],
)
@pytest.mark.parametrize("ask", [True, False])
def test_the_endpoint_is_the_one_that_the_user_chose(
    scene: Scene, environ: dict[str, str], found: Endpoint, ask: bool
) -> None:
    assert endpoint.read(scene.environ | environ, ask=ask) == found
    assert scene.log == []


def test_docker_says_where_a_context_leads(scene: Scene) -> None:
    scene.rule("context inspect", stdout="ssh://ada@build-1\n")
    assert endpoint.read(scene.environ | {"DOCKER_CONTEXT": "far"}) == Endpoint("ssh://ada@build-1")
    assert scene.log[0].argv[-1] == "far"


@pytest.mark.parametrize("chosen", ["by the environment", "by docker's configuration"])
def test_without_docker_its_store_says_where_a_context_leads(tmp_path: Path, chosen: str) -> None:
    environ = {"DOCKER_CONFIG": str(tmp_path)}
    if chosen == "by the environment":
        environ["DOCKER_CONTEXT"] = "far"
    else:
        (tmp_path / "config.json").write_text('{"currentContext": "far"}')
    assert endpoint.read(environ, ask=False) == Endpoint(SOCKET)
    folder = tmp_path / "contexts" / "meta" / hashlib.sha256(b"far").hexdigest()
    folder.mkdir(parents=True)
    for said, url in (
        ({"Name": "far", "Endpoints": {"docker": {"Host": "ssh://ada@build-1"}}}, "ssh://ada@build-1"),
        ({"Endpoints": []}, SOCKET),
    ):
        (folder / "meta.json").write_text(json.dumps(said))
        assert endpoint.read(environ, ask=False) == Endpoint(url)
