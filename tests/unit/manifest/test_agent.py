"""Agents: what is read, every fault at once, and the whole message for what is wrong."""

import os
from pathlib import Path

import pytest

from claude_bottle.egress.allowlist import Host
from claude_bottle.manifest import agent as manifest
from claude_bottle.manifest.agent import Agent, Bottle, EnvVar, Limits, Skill
from tests.support import plans
from tests.support.manifests import CERTIFICATE, Place


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
image: {preset: go, dockerfile: Dockerfile.x}
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
            presets=("go",),
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
        "a.yaml:3:9: prompt: expected a string, got a list",
        'a.yaml:4:1: duplicate key "skills"',
        "bottles/default.yaml:1:6: ssh: expected a list, got a number",
        "bottles/default.yaml:3:3: env.A B: a variable's name has only letters, digits and _, and no digit in front",
        "bottles/default.yaml:4:6: env.N: expected a string, got a number (add quotes)",
        'bottles/default.yaml:5:10: unknown key "limits.cpu"; did you mean "cpus"?',
        'bottles/default.yaml:7:1: duplicate key "env"',
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
        "c.yaml:1:1: expected a mapping (key: value), got a string",
        "d.yaml:2:1: not YAML: while parsing a flow node, expected the node content, but found '<stream end>'",
        'bottles/unused.yaml:1:1: unknown key "Limits"; did you mean "limits"?',
    ]
    assert place.load().name == "a", "the faults of other files are not this agent's"


@pytest.mark.parametrize(
    ("agent", "reason"),
    [
        ("prompt: '  '", "a.yaml:1:9: prompt: is empty"),
        ('prompt: "a\\0"', "a.yaml:1:9: prompt: contains a NUL character"),
        (f"prompt: {'é' * 60001}", "a.yaml:1:9: prompt: is 120002 bytes long; 120000 is the most"),
        ("bottle: none", 'a.yaml:1:9: bottle: no bottle "none" in '),
        ("bottle: ../a", 'a.yaml:1:9: bottle: "../a" is not a plain name'),
        ("bottle: ''", 'a.yaml:1:9: bottle: "" is not a plain name'),
        ("skills: [../../home/x]", 'a.yaml:1:10: skills: "../../home/x" is not a plain name'),
        ("skills: [.hidden]", 'a.yaml:1:10: skills: ".hidden" is not a plain name'),
        ('skills: ["a\\u202e"]', r'a.yaml:1:10: skills: "a\u202e" has control or invisible characters'),
        ("skills: [bare]", "skills/bare has no SKILL.md of its own"),
        ("skills: [linked-file]", "skills/linked-file has no SKILL.md of its own"),
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
        "folder.yaml:1:1: cannot be read: not a file",
        f"out.yaml:1:1: is a link that leads out of {place.agents}",
        "pipe.yaml:1:1: cannot be read: not a file",
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
    assert place.faults() == place.faults(None) == [f"{place.agents}: contains no agent (a file <name>.yaml)"]
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
