"""The agent's image as it is on the engine, and bottles' own images on top of it, with both of docker's builders."""

import os
import re
import secrets
import subprocess
from pathlib import Path

import pytest

from claude_bottle.bottle import image
from claude_bottle.bottle.image import Image
from claude_bottle.host.machine import Machine
from claude_bottle.process.engine import Engine
from claude_bottle.process.liveness import this_process
from claude_bottle.session import planning
from tests.world import World

TOOLS = "claude bash curl git jq less nc nft ps python3 rg ssh ssh-agent ssh-add"

LOOK = f"""
echo "user: $(id -un) $(id -u) $(id -g) $HOME $PWD"
echo "owned: $(stat -c '%n %U %a' /work /run/ssh-agent /home/agent | paste -sd ' ')"
echo "version: $(claude --version)"
echo "missing:$(for tool in {TOOLS}; do PATH=$PATH:/usr/sbin command -v $tool > /dev/null || echo " $tool"; done)"
echo "of the build:$(for tool in npm node nodejs; do command -v $tool; done)"
echo "large: $(find / -xdev -type f -size +60M 2> /dev/null)"
echo "setuid:$(find / -xdev -type f -perm /6000 2> /dev/null)"
echo "lists:$(find /var/lib/apt/lists -type f)"
echo "sources: $(grep -rhoE '[a-z]+://' /etc/apt/sources.list* | sort -u)"
echo "quiet: $DISABLE_AUTOUPDATER $CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"
echo "marketplace: $CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL"
"""


def docker(*args: str) -> subprocess.CompletedProcess[str]:
    """Run docker's client."""
    return subprocess.run(("docker", *args), capture_output=True, text=True, check=False)


def build(built: Image, builder: str) -> subprocess.CompletedProcess[str]:
    """Build an image with the machine's own docker client; `builder` is "0" for the classic one, "1" for BuildKit."""
    chosen = {"DOCKER_BUILDKIT": builder, "PATH": f"/usr/bin:{os.environ['PATH']}"}
    return subprocess.run(built.argv, env=os.environ | chosen, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def base(world: World, tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The agent's image, built where it is not there."""
    settings = os.environ | world.environ(tmp_path_factory.getbasetemp())
    base, *_ = planning.images(Machine(settings, Path.home(), interactive=False, owner=this_process()))
    if docker("image", "inspect", base.tag).returncode != 0:
        subprocess.run(base.argv, input=base.context, check=True)
    return base


def test_image_holds_what_an_agent_needs_and_nothing_of_the_build(base: Image) -> None:
    seen = docker("run", "--rm", "--network", "none", base.tag, "bash", "-c", LOOK)
    pinned = re.search(rb"^ARG CLAUDE_CODE_VERSION=(\S+)$", image.DOCKERFILE.read_bytes(), re.MULTILINE)
    assert pinned
    assert (seen.stdout.splitlines(), seen.stderr) == (
        [
            "user: agent 1000 1000 /home/agent /work",
            "owned: /work agent 755 /run/ssh-agent agent 700 /home/agent agent 755",
            f"version: {pinned[1].decode()} (Claude Code)",
            "missing:",
            "of the build:",
            "large: /usr/local/bin/claude",
            "setuid:",
            "lists:",
            "sources: https://",
            "quiet: 1 1",
            "marketplace: 1",
        ],
        "",
    )


def test_image_says_which_claude_is_in_it(base: Image) -> None:
    version = docker("run", "--rm", "--network", "none", base.tag, "claude", "--version").stdout.split()[0]
    found = Engine(dict(os.environ)).facts([base.tag])
    assert found.claude == {base.tag: version}


def test_image_is_at_most_800_mb(base: Image) -> None:
    assert int(docker("image", "inspect", "--format", "{{.Size}}", base.tag).stdout) <= 800_000_000


def test_image_can_be_asked_for_nft_as_root(base: Image) -> None:
    drop = ("--network", "none", "--user", "0", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN")
    listed = docker("run", "--rm", *drop, "--entrypoint", "nft", base.tag, "add table inet x; list tables")
    assert (listed.stdout, listed.stderr) == ("table inet x\n", "")


@pytest.mark.parametrize("builder", ["0", "1"], ids=["classic", "buildkit"])
def test_bottle_builds_on_the_base(base: Image, tmp_path: Path, builder: str) -> None:
    (tmp_path / "note").write_text(secrets.token_hex(8))
    (tmp_path / ".dockerignore").write_text("unwanted\n")
    (tmp_path / "unwanted").touch()
    (tmp_path / "Dockerfile.mine").write_text(
        "ARG BASE_IMAGE\nFROM $BASE_IMAGE\nUSER root\nRUN id -u > /root-was-here\nUSER agent\nCOPY . /opt/context\n"
    )
    built = image.for_bottle(tmp_path / "Dockerfile.mine", base)
    result = build(built, builder)
    try:
        assert result.returncode == 0, result.stdout + result.stderr
        look = "id -un; cat /root-was-here; ls -A /opt/context; cat /opt/context/note"
        seen = docker("run", "--rm", "--network", "none", built.tag, "sh", "-c", look)
        note = (tmp_path / "note").read_text()
        assert seen.stdout.split() == ["agent", "0", ".dockerignore", "Dockerfile.mine", "note", note]
        role = docker("image", "inspect", "--format", '{{index .Config.Labels "claude-bottle.role"}}', built.tag)
        assert role.stdout == "image\n"
    finally:
        docker("image", "rm", "--force", built.tag)


@pytest.mark.parametrize("builder", ["0", "1"], ids=["classic", "buildkit"])
def test_failed_build_leaves_neither_container_nor_tag(base: Image, tmp_path: Path, builder: str) -> None:
    mark = f"test.image={secrets.token_hex(8)}"  # the container of a RUN has the labels of the image so far
    (tmp_path / "Dockerfile").write_text(
        f"ARG BASE_IMAGE\nFROM $BASE_IMAGE\nLABEL {mark}\nRUN echo no such luck; false\n"
    )
    built = image.for_bottle(tmp_path / "Dockerfile", base)
    result = build(built, builder)
    containers = docker("ps", "--all", "--quiet", "--filter", f"label={mark}")
    docker("image", "prune", "--force", "--filter", f"label={mark}")  # the classic builder's cache
    assert result.returncode != 0
    assert "no such luck" in result.stdout + result.stderr
    assert containers.stdout == ""
    assert docker("image", "inspect", built.tag).returncode != 0


@pytest.mark.parametrize("builder", ["0", "1"], ids=["classic", "buildkit"])
def test_image_does_not_depend_on_the_users_umask(base: Image, tmp_path: Path, builder: str) -> None:
    (tmp_path / "Dockerfile").write_text(
        "ARG BASE_IMAGE\nFROM $BASE_IMAGE\nCOPY tool /usr/local/bin/tool\nCOPY . /opt/context\n"
    )
    (tmp_path / "tool").write_text(f"#!/bin/sh\necho {secrets.token_hex(8)}\n")
    (tmp_path / ".dockerignore").write_text("unwanted\n")
    (tmp_path / "unwanted").touch()
    for path in (tmp_path, *tmp_path.iterdir()):
        path.chmod(0o700 if path.name == "tool" or path.is_dir() else 0o600)  # as a checkout under umask 077
    built = image.for_bottle(tmp_path / "Dockerfile", base)
    result = build(built, builder)
    try:
        assert result.returncode == 0, result.stdout + result.stderr
        look = "tool; stat -c '%a %n' /opt/context/* /opt/context; ls -A /opt/context | grep unwanted"
        seen = docker("run", "--rm", "--network", "none", built.tag, "sh", "-c", look)
        word = (tmp_path / "tool").read_text().split()[-1]
        modes = "644 /opt/context/Dockerfile 755 /opt/context/tool 755 /opt/context"
        assert (seen.stdout.split(), seen.stderr) == ([word, *modes.split()], "")
    finally:
        docker("image", "rm", "--force", built.tag)


def test_content_trust_does_not_break_what_is_built_here(base: Image, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"ARG BASE_IMAGE\nFROM $BASE_IMAGE\nLABEL x={secrets.token_hex(8)}\n")
    built = image.for_bottle(tmp_path / "Dockerfile", base)
    settings = os.environ | {"DOCKER_CONTENT_TRUST": "1"}
    machine = Machine(settings, tmp_path, interactive=False, owner=this_process())
    env = planning.client_environment(machine)
    run = ("docker", "run", "--rm", "--network", "none", "--pull", "never", built.tag, "true")
    try:
        for argv in (built.argv, run):
            done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
    finally:
        docker("image", "rm", "--force", built.tag)
