"""What a yes was to: every part of a plan is recorded or known to be irrelevant, no secret is, and a change shows."""

import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from claude_bottle.bottle.plan import Conversation, Plan, Run
from claude_bottle.egress.allowlist import Host
from claude_bottle.host.machine import Machine
from claude_bottle.manifest.registries import Registry
from claude_bottle.session import approvals
from claude_bottle.session.approvals import Approval
from tests.support import golden, keys, plans
from tests.support.labels import KEY

WHEN = "2026-11-30 08:12"
RUN = Run(terminal=True, arguments=("--model", "opus"))

IRRELEVANT = {
    # of one start, or of where it runs
    *("Plan.session", "Plan.owner", "Plan.addresses", "Plan.range", "Plan.known", "Plan.elsewhere", "Plan.remote"),
    *("Plan.engine", "Work.branch"),
    *("Plan.passed_on", "Plan.token_source", "Plan.signing", "Run.terminal", "Run.login", "Run.name"),
    *("EngineFacts.present", "EngineFacts.taken", "EngineFacts.icc_off", "EngineFacts.ipv6_off", "EngineFacts.debug"),
    *(
        "EngineFacts.paths",
        "EngineFacts.claude",
        "EngineFacts.memory",
        "EngineFacts.bottles",
        "Egress.subnet",
        "Egress.gateway",
    ),
    # made of what is recorded: the hosts, the inputs of the image's tag, the ssh hosts, the skill's content
    *(
        "Plan.config",
        "Plan.reach",
        "Image.argv",
        "Image.context",
        "Key.step",
        "Key.file",
        "Key.hosts",
        "Skill.notes",
    ),
    *("Bottle.git", "Bottle.claude", "Agent.repo"),  # the plan has its own identity, image and repository
    "Mirror.url",  # its host counts, and the variable that it comes from
    *("Agent.name", "Agent.path", "Bottle.path"),  # a record is its file's, and has what the files say
    # the repository's own state, which each commit changes
    *("Work.commit", "Work.start", "Repository.ref", "Repository.shallow", "Repository.origin", "Repository.author"),
    "Repository.notes",
    # all in it that does not come from what is recorded are the skills, which have a test of their own
    "Plan.home",
}


def keyed(plan: Plan) -> Plan:
    return replace(plan, key=KEY)


def everything(folder: Path, run: Run = RUN) -> Plan:
    """Return a plan in which every field has a value somewhere."""
    made = plans.with_repository(plans.plan(plans.everything(folder), run, HOST_KEY="planted"))
    known = Registry("crates", recorded=(Host("index.test"),))
    registries = (*made.agent.bottle.registries, known)
    bottle = replace(made.agent.bottle, claude="2.1.332", registries=registries)
    images = (*made.images[:-1], replace(made.image, claude="2.1.332"))
    return keyed(replace(made, agent=replace(made.agent, bottle=bottle), images=images))


def approval(plan: Plan) -> Approval:
    return Approval(WHEN, approvals.entries(plan))


def mutants(value: Any, name: str = "", *, shorten: bool = True) -> Iterator[tuple[str, Any]]:
    """Yield a value with one leaf changed, for each leaf, after the class and field of the leaf.

    None in place of the value if there is no other of the leaf's type.
    """
    if is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            own = f"{type(value).__name__}.{field.name}"
            for inner, changed in mutants(getattr(value, field.name), own):
                new = None if changed is None else replace(value, **{field.name: changed})
                yield own if own in IRRELEVANT else inner, new
    elif isinstance(value, tuple) and value:
        yield from [(name, value[:-1])] if shorten else []
        for place, item in enumerate(value):
            for inner, changed in mutants(item, name, shorten=False):
                yield inner, None if changed is None else (*value[:place], changed, *value[place + 1 :])
    else:
        yield name, other(value)


def other(value: object) -> object:
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return f"{value}x"
        case bytes():
            return value + b"x"
        case Path():
            return value / "x"
    return None


def fields_of(folder: Path) -> dict[str, set[bool]]:
    """Return each field of a plan, and whether what is recorded changes with it: maybe both, or nothing is known."""
    resumed = Conversation("demo-0a1b2c3d", "1-2-3", b"{}")
    # A question in place of the agent's prompt, which a conversation that goes on has had.
    asked = everything(folder / "asked", Run(terminal=False, question="Why?", resumed=resumed))
    asked = replace(asked, agent=replace(asked.agent, prompt=None))
    seen = defaultdict[str, set[bool]](set)
    for plan in (everything(folder / "all"), asked):
        before = approval(plan)
        for name, changed in mutants(plan):
            seen[name] |= set() if changed is None else {approvals.changes(before, approvals.entries(changed)) != []}
    return seen


def test_every_field_of_a_plan_is_recorded_or_irrelevant(tmp_path: Path) -> None:
    """A new field fails here: record it in approvals.py, or list it above with the reason."""
    seen = fields_of(tmp_path)
    inner = {"Run.resumed"}  # None in one of the plans; in the other each of its own fields counts
    assert {name for name, changes in seen.items() if changes != {True}} - IRRELEVANT - inner == set()
    assert seen["Conversation.data"] == {True}
    assert {name for name in IRRELEVANT if seen.get(name, {True}) == {True}} == set()  # it is recorded, or gone


def test_the_test_above_sees_what_is_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approvals, "_canonical", lambda _: "")  # only what is in a name still counts
    seen = fields_of(tmp_path)
    found = {"Limits.pids", "Header.template", "EnvVar.literal", "SshHost.pins", "Plan.certificates", "Run.arguments"}
    assert {name for name in found if seen[name] == {True}} == set()


def test_a_change_of_a_skills_content_is_shown(tmp_path: Path) -> None:
    folder = plans.everything(tmp_path)
    skill = folder / "skills/look"

    def made() -> Plan:
        return keyed(plans.plan(folder, RUN, HOST_KEY="x"))

    before = approval(made())
    for change in (
        lambda: (skill / "run").write_text("1"),
        lambda: (skill / "run").write_text("2"),
        lambda: (skill / "run").chmod(0o755),
        lambda: (skill / "run").rename(skill / "go"),
        lambda: (skill / "link").symlink_to("go"),
        (skill / "folder").mkdir,
    ):
        assert approvals.changes(before, approvals.entries(made())) == []
        change()
        assert approvals.changes(before, approvals.entries(made())) == [
            f"~ skills  look: {skill.resolve()} (content changed)"
        ]
        before = approval(made())


def test_neither_a_host_variables_value_nor_a_new_commit_is_a_change(tmp_path: Path) -> None:
    folder = plans.everything(tmp_path)
    one, two = (plans.with_repository(keyed(plans.plan(folder, RUN, HOST_KEY=value))) for value in ("1", "2"))
    assert two.repository
    work = replace(two.repository.work, commit="d" * 40, start="e" * 40)
    two = replace(two, repository=replace(two.repository, work=work, ref="other dddddddddd"))
    assert approvals.changes(approval(one), approvals.entries(two)) == []


BEFORE = """
env: {LITERAL: "1", GONE: x, TOKEN: "${HOST_KEY}"}
egress: {allow: [gone.example.com, stays.example.com]}
limits: {pids: 64}
image: {claude: 2.1.331}
ssh: [{host: git.example.org, key: ssh/plain, known_host: PINNED}]
"""
AFTER = """
env: {LITERAL: "2", NEW: x, TOKEN: "${OTHER_KEY}"}
egress: {allow: [stays.example.com, "*.example.net:8443"]}
limits: {pids: 128, memory: 1g}
ssh: [{host: git.example.org, key: ssh/plain, known_host: OTHER, user: deploy}]
api: {paths: [POST /v1/files, /v1/skills/], server_side_fetch: true}
credentials: [{host: api.example.net, header: {Authorization: "Bearer ${HOST_KEY}"}, methods: [GET]}]
ca_certs: [ca.pem]
"""


def plan_of(folder: Path, bottle: str, run: Run = RUN, agent: str = "") -> Plan:
    """Return the plan of an agent whose bottle is written anew."""
    if not folder.exists():
        plans.ssh(plans.manifests(folder) / "bottles")
        (folder / "bottles/ca.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    pins = {"PINNED": keys.public("pinned"), "OTHER": keys.public("other")}
    for word, pin in pins.items():
        bottle = bottle.replace(word + "}", pin + "}").replace(word + ",", pin + ",")
    (folder / "bottles/default.yaml").write_text(bottle)
    (folder / "demo.yaml").write_text(agent or "description: Looks around\n")
    return keyed(plans.plan(folder, run, HOST_KEY="1", OTHER_KEY="2"))


def test_the_lines_of_what_is_new_other_and_gone(tmp_path: Path) -> None:
    folder = tmp_path / "agents"
    before = plan_of(folder, BEFORE)
    run = Run(terminal=True, question="Why is that?", arguments=("--model", "sonnet"))
    after = plan_of(folder, AFTER, run, "description: Looks around again\n")
    own = replace(after.image, tag="claude-bottle:0e3000000000")
    after = plans.with_repository(replace(after, images=(*after.images[:-1], own)))
    text = approvals.compared(approval(before), approvals.entries(after))
    golden.same("preflight-changed", text.replace(str(folder), "FOLDER"))


def test_what_has_not_changed_is_one_line(tmp_path: Path) -> None:
    now = approvals.entries(plan_of(tmp_path / "agents", BEFORE))
    assert approvals.compared(Approval(WHEN, now), now) == f"plan    as approved on {WHEN}\n"
    assert approvals.compared(None, now) == "plan    first time\n"


def test_nothing_in_the_lines_can_steer_the_terminal(tmp_path: Path) -> None:
    plan = plans.with_repository(plan_of(tmp_path / "agents", ""))
    assert plan.repository
    hostile = replace(plan.repository.work, repository=Path("/x\x1b[2J\n- egress  y\u202e"))
    other = replace(plan, repository=replace(plan.repository, work=hostile))
    for before, now in ((plan, other), (other, plan)):
        [line] = approvals.changes(approval(before), approvals.entries(now))
        assert r"/x\x1b[2J\n- egress  y\u202e at HEAD" in line
        assert line.isprintable()


def machine(folder: Path) -> Machine:
    """Return a machine whose state is in `folder`."""
    return replace(plans.machine(XDG_STATE_HOME=str(folder / "state")), key=KEY)


def record(folder: Path) -> Path:
    """Return the path of the one record."""
    [path] = (folder / "state/claude-bottle/approvals").iterdir()
    return path


@pytest.fixture
def recorded(tmp_path: Path) -> Plan:
    """A plan of everything, whose approval is recorded."""
    plan = everything(tmp_path / "agents")
    approvals.write(machine(tmp_path), plan.agent.path, approvals.entries(plan))
    return plan


def test_a_record_is_read_back_by_the_real_path_alone(tmp_path: Path, recorded: Plan) -> None:
    here, path = machine(tmp_path), recorded.agent.path
    (tmp_path / "link").symlink_to(path.parent)
    found = approvals.read(here, tmp_path / "link" / path.name)
    assert found
    assert found.entries == approvals.entries(recorded)
    assert approvals.read(here, path.with_name("other.yaml")) is None
    record(tmp_path).rename(approvals._file(here, path.with_name("other.yaml")))
    assert approvals.read(here, path.with_name("other.yaml")) is None  # it says whose it is


def test_a_record_is_for_its_user_alone_and_has_no_secret(tmp_path: Path, recorded: Plan) -> None:
    path = record(tmp_path)
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent)] == [0o600, 0o700]
    text = path.read_text()
    assert recorded.agent.prompt
    literals = {"planted", "Bearer", "ada:", "not-an-option", "opus", KEY.hex(), "BEGIN", "Does all"}
    assert [literal for literal in literals if literal in text] == []
    planted = [*keys.private("plain").splitlines(), *keys.private("locked", encrypted=True).splitlines()]
    assert [line for line in planted if line in text] == []


def test_the_same_literal_has_another_code_under_another_key_or_name(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "agents", 'env: {A: "1", B: "1"}\n')
    one, two = (approvals.entries(each) for each in (plan, replace(plan, key=bytes(32))))
    codes = [entry.code for entry in (*one, *two) if entry.group == "env"]
    assert len(set(codes)) == 4


@pytest.mark.parametrize("damage", ["empty", "cut", "forged", "binary", "large"])
def test_a_damaged_or_forged_record_is_none(tmp_path: Path, recorded: Plan, damage: str) -> None:
    path = record(tmp_path)
    data = path.read_bytes()
    texts = {"empty": b"", "cut": data[:-9], "forged": data.replace(b"memory", b"Memory"), "binary": b"\xff\0" + data}
    if damage in texts:
        assert texts[damage] != data
        path.write_bytes(texts[damage])
    else:
        os.truncate(path, approvals._MOST + 1)
    assert approvals.read(machine(tmp_path), recorded.agent.path) is None


@pytest.mark.parametrize("kind", ["open", "link", "fifo", "folder", "none"])
def test_what_is_no_private_file_is_no_record(tmp_path: Path, recorded: Plan, kind: str) -> None:
    path, there = record(tmp_path), tmp_path / "record"
    path.rename(there)
    if kind == "open":
        there.rename(path)
        path.chmod(0o644)
    elif kind == "link":
        path.symlink_to(there)
    elif kind == "fifo":
        os.mkfifo(path, 0o600)
    elif kind == "folder":
        path.mkdir(0o700)
    assert approvals.read(machine(tmp_path), recorded.agent.path) is None


@pytest.mark.parametrize("key", [bytes(32), b""], ids=["another", "none"])
def test_a_record_under_another_key_is_none(tmp_path: Path, recorded: Plan, key: bytes) -> None:
    assert approvals.read(replace(machine(tmp_path), key=key), recorded.agent.path) is None


def test_a_record_of_another_version_is_none(tmp_path: Path, recorded: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    assert approvals.read(machine(tmp_path), recorded.agent.path)
    monkeypatch.setattr(approvals, "_VERSION", "approval 0")
    assert approvals.read(machine(tmp_path), recorded.agent.path) is None


def test_without_a_key_nothing_is_recorded(tmp_path: Path) -> None:
    plan = everything(tmp_path / "agents")
    approvals.write(replace(machine(tmp_path), key=b""), plan.agent.path, approvals.entries(plan))
    assert not (tmp_path / "state").exists()


def test_a_record_is_forgotten_whatever_is_in_it(tmp_path: Path, recorded: Plan) -> None:
    record(tmp_path).write_bytes(b"\xff")
    path, here = recorded.agent.path, machine(tmp_path)
    path.unlink()
    assert [approvals.forget(here, path) for _ in range(2)] == [True, False]
