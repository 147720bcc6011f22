"""Agents and bottles: what is read, and the whole message for what is wrong."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from claude_bottle.egress.allowlist import Host
from claude_bottle.errors import ManifestError
from claude_bottle.manifest import agent as manifest
from claude_bottle.manifest.agent import Agent, Bottle, EnvVar, Limits, Skill
from tests.support import plans

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"

PIDS = "want a whole number of processes, from 64 (claude and its tools need some) to 4194304"
SIZE = "want a size such as 4g, 512m or a number of bytes"
NAME = "a host name is not empty and has no spaces or control characters"


@dataclass(frozen=True)
class Place:
    """A folder of agents, with a user's home beside it."""

    root: Path

    @property
    def agents(self) -> Path:
        return self.root / "agents"

    def write(self, path: str, text: str = "") -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    def load(self, name: str = "a", environ: Mapping[str, str] | None = None) -> Agent:
        return manifest.load_agent(self.agents, name, environ=environ or {}, home=self.root / "home")

    def load_all(self) -> tuple[Agent, ...]:
        return manifest.load_agents(self.agents, environ={}, home=self.root / "home")

    def faults(self, name: str | None = "a") -> list[str]:
        """Return the lines of the error, each without the folder that all begin with."""
        with pytest.raises(ManifestError) as raised:
            self.load_all() if name is None else self.load(name)
        return [line.replace(f"{self.agents}/", "") for line in str(raised.value).split("\n")]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = Place(tmp_path)
    found.write("agents/a.yaml", "description: An agent\n")
    found.write("agents/bottles/default.yaml")
    return found


def bottle_faults(place: Place, text: str) -> list[str]:
    place.write("agents/bottles/default.yaml", text)
    return place.faults()


def test_an_agent_with_everything(place: Place) -> None:
    place.write(
        "agents/Größe 1 'x'.yaml", "description: >\n  two\n  lines\nbottle: b\nskills: [own, host, own]\nprompt: -p $x"
    )
    place.write("agents/skills/own/SKILL.md")
    place.write("home/.claude/skills/own/SKILL.md")
    place.write("home/.claude/skills/host/SKILL.md")
    place.write("agents/certs/ca.pem", CERTIFICATE)
    place.write("home/ca.pem", CERTIFICATE)
    place.write("agents/bottles/Dockerfile.x")
    bottle = place.write(
        "agents/bottles/b.yaml",
        """
env: {ONE: "1", EMPTY: "", HOST: "${FROM}", DOLLAR: $FROM, LD_PRELOAD: x}
egress: {allow: [B.com, a.com:22, b.com, b.com:22, "*.c.com"]}
ca_certs: [../certs/ca.pem, ~/ca.pem, ~/ca.pem]
limits: {cpus: 0.5, memory: 1.5GiB, pids: 64}
image: {dockerfile: Dockerfile.x}
""",
    )
    name = "Größe 1 'x'"
    assert place.load(name, {"FROM": ""}) == Agent(
        name,
        place.agents / f"{name}.yaml",
        "two lines",
        Bottle(
            "b",
            bottle,
            env=(
                EnvVar("ONE", "1"),
                EnvVar("EMPTY", ""),
                EnvVar("HOST", source="FROM"),
                EnvVar("DOLLAR", "$FROM"),
                EnvVar("LD_PRELOAD", "x"),
            ),
            allow=(Host("b.com"), Host("a.com", 22), Host("b.com", 22), Host("*.c.com")),
            ca_certs=(bottle.parent / "../certs/ca.pem", place.root / "home/ca.pem"),
            limits=Limits(0.5, 1536 * 1024**2, 64),
            dockerfile=bottle.parent / "Dockerfile.x",
        ),
        skills=(
            Skill("own", (place.agents / "skills/own").resolve()),
            Skill("host", (place.root / "home/.claude/skills/host").resolve()),
        ),
        prompt="-p $x",
    )


def test_an_empty_agent_gets_the_default_bottle(place: Place) -> None:
    agent = manifest.load_agent(place.agents, place.write("agents/e.yaml").stem, environ={}, home=place.root)
    assert agent == Agent("e", place.agents / "e.yaml", "", Bottle("default", place.agents / "bottles/default.yaml"))
    assert agent.bottle.limits == Limits(cpus=2, memory=4 * 1024**3, pids=1024)


def test_every_fault_of_agent_and_bottle_is_told_at_once_in_order(place: Place) -> None:
    place.write("agents/a.yaml", "descriptoin: x\nskills: [ab]\nprompt: [x]\nskills: []\nbottle: default\n")
    place.write("agents/skills/abc/SKILL.md")
    place.write(
        "agents/bottles/default.yaml", "ssh: 1\nenv:\n  A B: x\n  N: 1\nlimits: {cpu: 2}\negress: {}\nenv: {}\n"
    )
    assert place.faults() == [
        'a.yaml:1:1: unknown key "descriptoin"; did you mean "description"?',
        f'a.yaml:2:10: skills: no skill "ab" in {place.agents / "skills"} or {place.root}/home/.claude/skills; '
        'did you mean "abc"?'.replace(f"{place.agents}/", ""),
        "a.yaml:3:9: prompt: want text, found a list",
        'a.yaml:4:1: the key "skills" stands here a second time',
        "bottles/default.yaml:1:6: ssh: want a list, found a number",
        "bottles/default.yaml:3:3: env.A B: a variable's name has only letters, digits and _, and no digit in front",
        "bottles/default.yaml:4:6: env.N: want text (quote it), found a number",
        'bottles/default.yaml:5:10: unknown key "limits.cpu"; did you mean "cpus"?',
        'bottles/default.yaml:7:1: the key "env" stands here a second time',
    ]


def test_all_agents_are_checked_and_bottles_that_nobody_uses(place: Place) -> None:
    place.write("agents/b.yaml", "bottle: Defualt\n")
    place.write("agents/c.yaml", "hello\n")
    place.write("agents/d.yaml", "a: [\n")
    place.write("agents/bottles/unused.yaml", "Limits: {}\n")
    place.write("agents/.#a.yaml", "{{{")
    assert place.faults(None) == [
        f'b.yaml:1:9: bottle: no bottle "Defualt" in {place.agents}/bottles; did you mean "default"?'.replace(
            f"{place.agents}/", ""
        ),
        "c.yaml:1:1: want a mapping (key: value), found text",
        "d.yaml:2:1: not YAML: while parsing a flow node, expected the node content, but found '<stream end>'",
        'bottles/unused.yaml:1:1: unknown key "Limits"; did you mean "limits"?',
    ]
    assert place.load().name == "a", "the faults of other files are not this agent's"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("env: [A]", "1:6: env: want a mapping (key: value), found a list"),
        ("env:", "1:5: env: want a mapping (key: value), found nothing"),
        ("egress: {allow: github.com}", "1:17: egress.allow: want a list, found text"),
        ("egress: {allow: [1.5]}", "1:18: egress.allow: want text (quote it), found a number"),
        ("env: {A: yes, B: true}", "1:18: env.B: want text (quote it), found true or false"),
        ('env: {A: "x\\0"}', "1:10: env.A: holds a NUL character, which cannot be passed on"),
        ("limits: {cpus: two}", "1:16: limits.cpus: want a number, found text"),
        ("limits: {cpus: true}", "1:16: limits.cpus: want a number, found true or false"),
        ("limits: {cpus: 0}", "1:16: limits.cpus: want a number of cpus, from 0.01 to 4096"),
        ("limits: {cpus: .nan}", "1:16: limits.cpus: want a number of cpus, from 0.01 to 4096"),
        ("limits: {memory: 4 gallons}", f"1:18: limits.memory: {SIZE}, found text"),
        ("limits: {pids: 1.5}", f"1:16: limits.pids: {PIDS}"),
        ("limits: {pids: .inf}", f"1:16: limits.pids: {PIDS}"),
        ("image: {}", '1:8: image: names no "dockerfile"'),
        ("egress: {alow: []}", '1:10: unknown key "egress.alow"; did you mean "allow"?'),
        ("zzz: 1", '1:1: unknown key "zzz"; known here: env, ssh, git, egress, ca_certs, limits, image'),
        ('egress: {allow: ["a.com\\x1b[2J"]}', rf'1:18: egress.allow: "a.com\x1b[2J": {NAME}'),
    ],
)  # fmt: skip
def test_a_type_fault_names_key_wanted_and_found(place: Place, text: str, fault: str) -> None:
    found = bottle_faults(place, text)
    assert found == [f"bottles/default.yaml:{fault}"]
    assert found[0].isprintable()


@pytest.mark.parametrize("memory", ["511m", "6m", "536870911", "0", "-4", "2000t", '"536870911b"'])
def test_too_little_or_too_much_memory_is_told(place: Place, memory: str) -> None:
    (fault,) = bottle_faults(place, f"limits: {{memory: {memory}}}")
    assert "limits.memory: want " in fault


@pytest.mark.parametrize("memory", ["512m", "512M", "536870912", '"536870912"', "0.5 GB", "524288KiB"])
def test_sizes_are_binary_in_any_spelling(place: Place, memory: str) -> None:
    place.write("agents/bottles/default.yaml", f"limits: {{memory: {memory}}}")
    assert place.load().bottle.limits.memory == 512 * 1024**2


@pytest.mark.parametrize(
    "name",
    [
        *("http_proxy", "HTTPS_PROXY", "Ftp_Proxy", "no_proxy", "ALL_PROXY", "HOME", "NODE_EXTRA_CA_CERTS"),
        *("CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_BOTTLE_X", "CLAUDE_CONFIG_DIR", "DISABLE_AUTOUPDATER"),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
    ],
)
def test_what_the_launcher_sets_is_refused(place: Place, name: str) -> None:
    assert bottle_faults(place, f"env:\n  {name}: x") == [
        f"bottles/default.yaml:2:3: env.{name}: is set by claude-bottle itself"
    ]


@pytest.mark.parametrize(
    "name",
    ["PATH", "LD_PRELOAD", "DYLD_X", "DOCKER_HOST", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "GODEBUG", "TMPDIR", "XDG_X"],
)
def test_a_host_value_must_not_change_the_docker_client(place: Place, name: str) -> None:
    place.write("agents/bottles/default.yaml", f"env: {{{name}: '${{X}}'}}")
    with pytest.raises(ManifestError, match=f"env.{name}: cannot come from the host"):
        place.load(environ={"X": "x"})
    place.write("agents/bottles/default.yaml", f"env: {{{name}: x}}")
    assert place.load().bottle.env == (EnvVar(name, "x"),)
    place.write("agents/bottles/default.yaml", f"env: {{GOOGLE_KEY: '${{{name}}}'}}")
    assert place.load(environ={name: "x"}).bottle.env == (EnvVar("GOOGLE_KEY", source=name),)


@pytest.mark.parametrize("value", ["a${X}", "${X} ", "${X}${Y}", "${}", "${1X}", "${X:-y}", "${X"])
def test_a_literal_is_never_half_a_reference(place: Place, value: str) -> None:
    assert bottle_faults(place, f"env:\n  A: '{value}'") == [
        'bottles/default.yaml:2:6: env.A: "${" only works as a whole value, "${NAME}" with the name of a host variable'
    ]


def test_an_unset_host_variable_is_named(place: Place) -> None:
    assert bottle_faults(place, "env:\n  A: ${SECRET_KEY}") == [
        "bottles/default.yaml:2:6: env.A: SECRET_KEY is not set on the host"
    ]


def test_no_value_of_a_variable_is_shown(place: Place) -> None:
    faults = bottle_faults(place, "env:\n  A: 1337.5\n  B: 'x${hunter2}${'\n  A-B: hunter2\n")
    assert len(faults) == 3
    assert "hunter2" not in str(faults)
    assert "1337" not in str(faults)
    assert "hunter2" not in repr(EnvVar("A", "hunter2"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ca_certs: [none.pem]", "none.pem cannot be read: No such file or directory"),
        ("ca_certs: [.]", " is not a file"),
        ("ca_certs: [default.yaml]", "holds no PEM certificate"),
        ("ca_certs: [~/key.pem]", "/home/key.pem holds a private key"),
        ("image: {dockerfile: none}", "bottles/none cannot be read: No such file or directory"),
        ("image: {dockerfile: .}", "bottles is not a file"),
        ("image: {dockerfile: ~/Dockerfile}", "/home/Dockerfile lies outside of "),
        ("image: {dockerfile: ../../home/Dockerfile}", "/home/Dockerfile lies outside of "),
        ("image: {dockerfile: out/Dockerfile}", "bottles/out/Dockerfile lies outside of "),
        ('image: {dockerfile: "a\\0b"}', "holds a NUL character"),
    ],
)
def test_a_path_must_lead_to_what_is_wanted(place: Place, text: str, reason: str) -> None:
    place.write("home/key.pem", f"{CERTIFICATE}-----BEGIN EC PRIVATE KEY-----\n")
    place.write("home/Dockerfile")
    (place.agents / "bottles/out").symlink_to(place.root / "home")
    (fault,) = bottle_faults(place, text)
    assert reason in fault


@pytest.mark.parametrize(
    ("agent", "reason"),
    [
        ("prompt: '  '", "a.yaml:1:9: prompt: is empty"),
        ('prompt: "a\\0"', "a.yaml:1:9: prompt: holds a NUL character"),
        (f"prompt: {'é' * 60001}", "a.yaml:1:9: prompt: is 120002 bytes long; 120000 is the most"),
        ("bottle: none", 'a.yaml:1:9: bottle: no bottle "none" in '),
        ("bottle: ../a", 'a.yaml:1:9: bottle: "../a" is not a plain name'),
        ("bottle: ''", 'a.yaml:1:9: bottle: "" is not a plain name'),
        ("skills: [../../home/x]", 'a.yaml:1:10: skills: "../../home/x" is not a plain name'),
        ("skills: [.hidden]", 'a.yaml:1:10: skills: ".hidden" is not a plain name'),
        ('skills: ["a\\u202e"]', r'a.yaml:1:10: skills: "a\u202e" has control or invisible characters'),
        ("skills: [bare]", "skills/bare holds no SKILL.md of its own"),
        ("skills: [linked-file]", "skills/linked-file holds no SKILL.md of its own"),
        ("skills: [linked]", "skills/linked is a link that leads out of "),
        ("skills: [loop]", "skills/loop is a link that leads out of "),
    ],
)
def test_what_an_agent_cannot_name(place: Place, agent: str, reason: str) -> None:
    place.write("home/x/SKILL.md")
    place.write("agents/skills/.hidden/SKILL.md")
    place.write("agents/skills/bare/skill.txt")
    (place.write("agents/skills/linked-file/x").parent / "SKILL.md").symlink_to(place.root / "home/x/SKILL.md")
    (place.agents / "skills/linked").symlink_to("../../home/x")
    (place.agents / "skills/loop").symlink_to("loop")
    place.write("agents/a.yaml", agent)
    (fault,) = place.faults()
    assert reason in fault


def test_the_longest_prompt_and_links_inside_are_fine(place: Place) -> None:
    place.write("agents/shared/skill/SKILL.md")
    place.write("agents/skills/x/SKILL.md")
    (place.agents / "skills/linked").symlink_to("../shared/skill")
    (place.agents / "b.yaml").symlink_to("a.yaml")
    place.write("agents/a.yaml", f"skills: [linked]\nprompt: {'é' * 60000}")
    agent = place.load("b")
    assert len((agent.prompt or "").encode()) == 120_000
    assert agent.skills == (Skill("linked", (place.agents / "shared/skill").resolve()),)


def test_a_manifest_is_never_read_from_outside_the_folder(place: Place) -> None:
    place.write("home/secret.yaml", "description: x")
    place.write("home/bottles/b.yaml")
    (place.agents / "out.yaml").symlink_to(place.root / "home/secret.yaml")
    (place.agents / "bottles/out.yaml").symlink_to(place.root / "home/bottles/b.yaml")
    os.mkfifo(place.agents / "pipe.yaml")
    (place.agents / "folder.yaml").mkdir()
    place.write("agents/\x1b[2J.yaml")
    assert place.faults(None) == [
        r'\x1b[2J.yaml:1:1: "\x1b[2J.yaml" has control or invisible characters in its name',
        "folder.yaml:1:1: is not a file",
        f"out.yaml:1:1: is a link that leads out of {place.agents}",
        "pipe.yaml:1:1: is not a file",
        f"bottles/out.yaml:1:1: is a link that leads out of {place.agents}",
    ]


def test_an_unknown_agent_gets_a_suggestion_or_the_list(place: Place) -> None:
    place.write("agents/reviewer.yaml")
    assert place.faults("Reviwer") == [f'{place.agents}: no agent "Reviwer"; did you mean "reviewer"?']
    (place.agents / "other.yml").write_text("bottle: default\n")
    assert place.faults("other") == [f'{place.agents}: no agent "other"; other.yml must be named other.yaml']
    assert place.faults("../a\n") == [f'{place.agents}: no agent "../a\\n"; there are a, reviewer']


def test_a_missing_or_empty_folder_is_one_clear_line(tmp_path: Path) -> None:
    place = Place(tmp_path)
    hint = "--agents DIR or CLAUDE_BOTTLE_AGENTS names the folder of agents"
    assert place.faults() == place.faults(None) == [f"{place.agents}: No such file or directory; {hint}"]
    place.agents.mkdir()
    assert place.faults() == place.faults(None) == [f"{place.agents}: holds no agent (a file <name>.yaml)"]
    place.agents.rmdir()
    place.write("agents")
    assert place.faults() == [f"{place.agents}: Not a directory; {hint}"]


def test_what_ships_is_valid() -> None:
    (demo,) = manifest.load_agents(Path(__file__).parents[3] / "agents", environ={}, home=Path("/nonexistent"))
    assert (demo.name, demo.bottle.name, demo.bottle.allow, len(demo.skills)) == ("demo", "default", (), 1)


@pytest.mark.parametrize(("repo", "path"), [("../code", "{agents}/../code"), ("~/code", "/nobody/code"), ("/a", "/a")])
def test_a_repository_is_named_from_where_its_manifest_stands(tmp_path: Path, repo: str, path: str) -> None:
    folder = plans.manifests(tmp_path, agent=f"repo: {repo}\n")
    agent = manifest.load_agent(folder, "demo", environ={}, home=Path("/nobody"))
    assert str(agent.repo) == path.format(agents=folder)
