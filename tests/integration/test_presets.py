"""The presets' images, and a project in each language: installed, built and tested by Claude Code inside a bottle."""

import fcntl
import json
import re
import secrets
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from claude_bottle.bottle.image import Image
from claude_bottle.host.machine import Machine
from claude_bottle.manifest.bottle import PRESETS, Bottle
from claude_bottle.process.liveness import this_process
from claude_bottle.session import planning, registries
from tests.support.registries import mirrored, npm_package, relayed, wheel
from tests.support.repos import users
from tests.support.sessions import Bench, docker
from tests.world import World, certificates

PROJECTS = Path(__file__).parents[1] / "support" / "projects"
MB = 1_000_000
MOST = dict.fromkeys(PRESETS, 500 * MB) | {"rust": 800 * MB}
LOOK = """
echo "user: $(id -un) $PWD"
echo "setuid:$(find / -xdev -type f -perm /6000 2> /dev/null)"
echo "writable:$(find / -xdev -type f -perm /022 2> /dev/null)"
echo "lists:$(find /var/lib/apt/lists -type f)"
"""
LEFT = "find /root /tmp -mindepth 1 ! -name .bashrc ! -name .profile"
#: of each language: what its check.sh prints if the tests of the project passed
PASSED = {
    "node": ("pass 1", "fail 0", "fetched 200"),
    "python": ("Ran 1 test", "OK", "+ markupsafe==3.0.4"),
    "go": ("--- PASS: TestWord",),
    "rust": ("test result: ok. 1 passed",),
    "java": ("Tests run: 1, Failures: 0",),
}
IN_CI = ("node", "python")  # each of the others takes minutes
LANGUAGES = [pytest.param(name, marks=() if name in IN_CI else pytest.mark.presets) for name in PRESETS]

pytestmark = pytest.mark.xdist_group("presets")  # one build at a time


def images(world: World, name: str) -> tuple[Image, Image]:
    """Return the base image and a preset's, which is built if it is not there."""
    machine = Machine(world.environ(Path()), Path.home(), interactive=False, owner=this_process())
    base, preset = planning.images(machine, Bottle("", Path(), presets=(name,)))
    with (certificates.cache() / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if subprocess.run(("docker", "image", "inspect", preset.tag), capture_output=True, check=False).returncode:
            done = subprocess.run(preset.argv, input=preset.context, capture_output=True, check=False)
            assert done.returncode == 0, (done.stdout + done.stderr).decode()[-4000:]
    return base, preset


def recorded(tag: str) -> dict[str, list[str]]:
    """Return the hosts that the tools of an image use, as its build has recorded them."""
    found = registries.parse(docker("run", "--rm", "--network", "none", tag, "cat", registries.FILE).encode())
    return {name: [host.name for host in hosts] for name, hosts in found.items()}


@pytest.mark.parametrize("name", LANGUAGES)
def test_a_preset_is_small_and_adds_nothing_but_its_tools(world: World, name: str) -> None:
    base, preset = images(world, name)
    sizes = [int(docker("image", "inspect", "--format", "{{.Size}}", one.tag)) for one in (base, preset)]
    assert sizes[1] - sizes[0] <= MOST[name]
    seen = docker("run", "--rm", "--network", "none", preset.tag, "bash", "-c", LOOK)
    assert seen.splitlines() == ["user: agent /work", "setuid:", "writable:", "lists:"]
    assert docker("run", "--rm", "--network", "none", "--user", "0", preset.tag, "bash", "-c", LEFT) == ""


@pytest.mark.parametrize("name", LANGUAGES)
def test_claude_installs_builds_and_tests_a_project(world: World, bench: Bench, name: str) -> None:
    base, preset = images(world, name)
    repository = users(bench.folder / "project", bench.environ)
    shutil.copytree(PROJECTS / name, repository.path, dirs_exist_ok=True)
    repository.git("add", ".")
    repository.commit("Add a project")
    [(registry, hosts)] = recorded(preset.tag).items()
    bench.write({"image": {"preset": name}, "egress": {"registries": [registry]}}, repo=str(repository.path))
    assert f"{registry}'s registry, known once the image is built" in bench.start("--dry-run").err
    with relayed(world, base.tag, hosts):
        ended = bench.start("--yes", "--print", "RUN: bash check.sh 2>&1; echo exit $?")
    said = ended.out.decode()
    assert f"  {registry:<7} {', '.join(hosts)}\n          anyone can publish here: data can leave\n" in ended.err
    assert f"  {registry:<7} {', '.join(hosts)}\n" in bench.start("--dry-run").err
    assert said.strip().endswith("exit 0"), said
    assert [text for text in PASSED[name] if text not in said] == [], said


@dataclass(frozen=True)
class Mirrored:
    """A registry, the variable that gives its tool a mirror, where that is, and how a package is installed and used."""

    registry: str
    variable: str
    url: str
    package: Callable[[str, str, str], dict[str, bytes]]
    code: str
    use: str


MIRRORED = {
    "node": Mirrored(
        *("npm", "NPM_CONFIG_REGISTRY", "https://{}/repository/npm", npm_package, "module.exports = '{}'"),
        "mkdir p && cd p && npm install {0} 2>&1 && node -p 'require(\"{0}\")'",
    ),
    "python": Mirrored(
        *("pypi", "PIP_INDEX_URL", "https://{}:8443/simple", wheel, "word = '{}'"),
        "pip install {0} 2>&1 && python3 -c 'import {0}; print({0}.word)'",
    ),
}


@pytest.mark.parametrize(("name", "literal"), [("node", False), ("python", True)])
def test_a_mirror_of_the_users_own_has_what_only_it_has(world: World, bench: Bench, name: str, literal: bool) -> None:
    case, package, word = MIRRORED[name], f"bottleonly{secrets.token_hex(6)}", secrets.token_hex(8)
    url = case.url.format(f"mirror-{secrets.token_hex(4)}.test")
    base, _ = images(world, name)
    bench.environ["THE_MIRROR"] = url
    env = {case.variable: url if literal else "${THE_MIRROR}"}
    bottle = {"image": {"preset": name}, "egress": {"registries": [case.registry]}, "env": env}
    with mirrored(world, base.tag, url, case.package(url, package, case.code.format(word)), bench.folder / "tls") as ca:
        bench.write(bottle)
        manifest = bench.agents / "bottles" / f"{bench.name}.yaml"
        manifest.write_text(manifest.read_text().replace("ca_certs: [", f"ca_certs: [{json.dumps(str(ca))}, "))
        ended = bench.start("--yes", "--print", f"RUN: {case.use.format(package)}; echo exit $?")
        assert ended.out.decode().splitlines()[-2:] == [word, "exit 0"], ended
    assert f"  {case.registry:<7} {url}\n          anyone can publish here: data can leave\n" in ended.err


def test_a_bottle_of_its_own_begins_with_a_preset(world: World, bench: Bench) -> None:
    images(world, "python")
    folder = bench.agents / "own"
    folder.mkdir()
    (folder / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM $BASE_IMAGE\nRUN uv --version > /home/agent/version\n")
    bench.write({"image": {"preset": "python", "dockerfile": "../own/Dockerfile"}})
    assert "uv 0." in bench.ask("RUN: cat ~/version")
    shown = bench.start("--dry-run")
    steps = re.findall(r"^# ([a-z-]*image)\b", shown.out.decode(), re.MULTILINE)
    assert steps == ["image", "python-image", "bottle-image", "sidecar-image"]


def test_a_start_whose_build_makes_the_hosts_known_asks_again(world: World, bench: Bench, image: str) -> None:
    images(world, "python")  # so that the build finds each step done
    bench.environ["CLAUDE_BOTTLE_BASE_IMAGE"] = f"{world.base_image}-{bench.name}"  # an image that no other test meets
    machine = Machine(bench.environ, bench.folder, interactive=False, owner=this_process())
    base, preset = planning.images(machine, Bottle("", Path(), presets=("python",)))
    bench.write({"image": {"preset": "python"}, "egress": {"registries": ["pypi"]}})
    docker("tag", image, base.tag)
    try:
        with bench.terminal(screen=False) as terminal:
            assert b"pypi's registry, known once the image is built" in terminal.until_bytes(b"[y/N] ")
            terminal.type(b"y\r")
            shown = terminal.until_bytes(b"[y/N] ").decode()
            assert f"  pypi    {', '.join(recorded(preset.tag)['pypi'])}\r\n" in shown
            terminal.type(b"n\r")
            assert terminal.code() == 65
        assert bench.sessions() == []
    finally:
        docker("image", "rm", base.tag, preset.tag)


FORGED = {
    "label": (
        "LABEL claude-bottle.registries='npm example.org' claude-bottle.role=image",
        "it has no list of its registries",
    ),
    "password": ("RUN echo npm https://a:b@example.org/", "its list of registries cannot be used"),
    "wildcard": ("RUN echo 'npm *.example.org'", "its list of registries cannot be used"),
    "private": ("RUN echo npm 10.1.2.3", "its list of registries cannot be used"),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_presets_image_that_says_something_else_is_refused(world: World, bench: Bench, image: str, kind: str) -> None:
    line, why = FORGED[kind]
    bench.environ["CLAUDE_BOTTLE_BASE_IMAGE"] = (
        f"{world.base_image}-{bench.name}"  # so that no other test meets the image
    )
    machine = Machine(bench.environ, bench.folder, interactive=False, owner=this_process())
    base, preset = planning.images(machine, Bottle("", Path(), presets=("node",)))
    echoed = f" > {registries.FILE}" if line.startswith("RUN") else ""
    text = f"FROM {image}\nUSER root\nRUN mkdir -p {Path(registries.FILE).parent}\n{line}{echoed}\nUSER agent\n"
    bench.write({"image": {"preset": "node"}, "egress": {"registries": ["npm"]}})
    try:
        docker("tag", image, base.tag)
        docker("build", "--force-rm", "--tag", preset.tag, "-", stdin=text.encode())
        ended = bench.start("--yes", "--print", "SAY: no")
        assert (ended.code, ended.out) == (70, b"")
        assert f"{preset.tag}: {why}: " in ended.err
    finally:
        docker("image", "rm", base.tag, preset.tag)
