"""The hosts of registries: read from a preset's image, and from nothing else; kept for what calls no docker."""

import socket
from pathlib import Path

import pytest

from claude_bottle.egress.allowlist import Host
from claude_bottle.errors import ManifestError
from claude_bottle.manifest import agent as manifest
from claude_bottle.process.engine import Engine
from claude_bottle.session import registries
from tests.support import plans
from tests.support.scene import Scene

START = ("start", "demo", "--yes", "--print", "hello")
BOTTLE = "image: {preset: node}\negress: {registries: [npm]}\n"
RECORDED = "npm https://one.test/\nnpm two.test:8443\nnpm https://one.test/a/b.tgz\n"
UNKNOWN = "  npm     npm's registry, known once the image is built\n          anyone can publish here: data can leave\n"
KNOWN = "  npm     one.test, two.test:8443\n          anyone can publish here: data can leave\n"
ID, READ = "image inspect --format {{.Id}}", "claude-bottle-registries-"


def image(scene: Scene, recorded: str = RECORDED, name: str = "sha256:one", **what: object) -> None:
    """Have the engine give a preset's image this id and this list."""
    scene.rule(ID, stdout=f"{name}\n", **what)
    scene.rule(READ, stdout=recorded)


@pytest.fixture
def npm(scene: Scene) -> Scene:
    """A scene whose bottle may reach npm's registry."""
    (scene.agents / "bottles" / "default.yaml").write_text(BOTTLE)
    return scene


def kept(scene: Scene) -> Path:
    """Return the one file in which the hosts are kept."""
    [file] = scene.key.with_name("registries").iterdir()
    return file


def reads(scene: Scene) -> int:
    return sum(event.starts(READ) for event in scene.log)


def test_a_list_is_hosts_of_registries() -> None:
    found = registries.parse(RECORDED.encode() + b"go proxy.test\n")
    assert found == {"npm": (Host("one.test"), Host("two.test", 8443)), "go": (Host("proxy.test"),)}


@pytest.mark.parametrize(
    "text",
    [
        "npm https://ada:secret@one.test/",
        "npm http://one.test/",
        "npm *.test.test",
        "npm 10.1.2.3",
        "npm [::1]",
        "npm localhost",
        "npm api.claude.ai",
        "npm",
        "npm one.test two.test",
        "npm one.test\x1b[2J",
        "npm öne.test",
        "other one.test",
        " one.test",
        "npm one.test\n" * 80,
    ],
)
def test_a_forged_list_is_refused(npm: Scene, text: str) -> None:
    with pytest.raises(ValueError, match=r"^[ -~]+$"):
        registries.parse(text.encode())
    image(npm, text)
    code, out, err = npm.run(*START)
    assert (code, out) == (70, "")
    assert ": its list of registries cannot be used: " in err
    assert not npm.key.with_name("registries").exists()
    assert not [event for event in npm.log if event.starts("docker create")]


@pytest.mark.parametrize("rule", [{"code": 1, "stderr": "head: cannot open: No such file\n"}, {"stdout": ""}])
def test_an_image_without_a_list_is_refused_whatever_its_labels_say(npm: Scene, rule: dict[str, object]) -> None:
    npm.rule(ID, stdout="sha256:one\n")
    npm.rule(READ, **rule)
    npm.rule("image inspect", stdout='{"claude-bottle.registries": "npm one.test"}\n')
    code, _, err = npm.run(*START)
    assert (code, ": it has no list of its registries: " in err) == (70, True)


def test_the_list_is_read_once_without_a_network_from_the_presets_image_and_not_the_bottles(npm: Scene) -> None:
    (npm.agents / "bottles" / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM $BASE_IMAGE\n")
    text = "image: {preset: node, dockerfile: Dockerfile}\negress: {registries: [npm]}\n"
    (npm.agents / "bottles" / "default.yaml").write_text(text)
    dry = npm.run("start", "demo", "--dry-run")
    assert UNKNOWN in dry[2]
    tags = [line.split(" --tag ")[1].split()[0] for line in dry[1].splitlines() if line.startswith("docker build")]
    image(npm)
    assert KNOWN in npm.run(*START)[2]
    [asked] = [event.argv for event in npm.log if event.starts(ID)]
    [read] = [event.argv for event in npm.log if event.starts(READ)]
    assert len(tags) == 3
    assert asked[-1] == tags[1]
    assert read[read.index("--network") + 1] == "none"
    assert read[-4] == "sha256:one"
    assert KNOWN in npm.run(*START)[2]
    assert reads(npm) == 1
    assert KNOWN in npm.run("start", "demo", "--dry-run")[2]
    assert reads(npm) == 1
    assert "npm: one.test, two.test:8443: anyone can publish here: data can leave\n" in npm.run("check")[2]
    assert "9 hosts" in npm.run("agents")[1]


def test_a_build_reads_the_list_as_well(npm: Scene) -> None:
    image(npm)
    assert npm.run("build")[0] == 0
    assert kept(npm).read_text() == f"sha256:one\n{RECORDED}"
    assert KNOWN in npm.run("start", "demo", "--dry-run")[2]


def test_another_image_of_the_same_tag_is_read_again(npm: Scene) -> None:
    image(npm, times=1)
    npm.rule(ID, stdout="sha256:two\n")
    assert npm.run(*START)[0] == npm.run(*START)[0] == 0
    assert reads(npm) == 2
    assert kept(npm).read_text() == f"sha256:two\n{RECORDED}"


@pytest.mark.parametrize("kind", ["forged", "readable", "link", "large"])
def test_a_kept_list_that_is_not_one_is_not_used(npm: Scene, kind: str) -> None:
    image(npm)
    assert npm.run(*START)[0] == 0
    file = kept(npm)
    if kind == "forged":
        file.write_text("sha256:one\nnpm 10.1.2.3\n")
    elif kind == "readable":
        file.chmod(0o644)
    elif kind == "link":
        file.rename(npm.folder / "elsewhere")
        file.symlink_to(npm.folder / "elsewhere")
    else:
        file.write_text("sha256:one\n" + "npm one.test\n" * 80)
    assert UNKNOWN in npm.run("start", "demo", "--dry-run")[2]
    assert KNOWN in npm.run(*START)[2]
    assert reads(npm) == 2


def test_a_build_that_makes_the_hosts_known_shows_the_preflight_again(npm: Scene) -> None:
    npm.rule(ID, code=1, times=1)
    npm.rule("image inspect --format [{{json .Config.Env}},{{json .Config.Labels}}] claude-bottle:", code=1, times=3)
    image(npm)
    code, _, err = npm.run(*START)
    assert code == 0
    assert err.index(UNKNOWN) < err.index(KNOWN)
    builds = [place for place, event in enumerate(npm.log) if event.starts("docker build")]
    assert len(builds) == 2
    assert max(builds) < npm.at("start", READ) < npm.at("start", "create --name")


@pytest.mark.parametrize("address", ["10.1.2.3", "127.0.0.1", "169.254.1.1", "fd00::1"])
def test_a_mirror_with_a_private_address_is_refused_with_that_reason(
    npm: Scene, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    path = npm.agents / "bottles" / "default.yaml"
    path.write_text(f"{BOTTLE}env: {{NPM_CONFIG_REGISTRY: https://mirror.test/npm/}}\n")
    assert "  npm     https://mirror.test/npm/\n" in npm.run("start", "demo", "--dry-run")[2]
    here = plans.machine()
    agent = manifest.load_agent(npm.agents, "demo", environ={}, home=npm.folder)
    found = [(0, 0, 0, "", (each, 443)) for each in ("1.1.1.1", address)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    why = f"^{path}: mirror.test has a private address, {address}, and a bottle reaches none$"
    with pytest.raises(ManifestError, match=why):
        registries.learned(here, agent, Engine({}))
