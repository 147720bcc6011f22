"""A kept conversation that goes on: what the new bottle gets of it, and what needs another yes."""

import io
import json
import re
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from claude_bottle.bottle.plan import Conversation, Run
from claude_bottle.repository.clone import Wanted
from claude_bottle.session import approvals, records
from claude_bottle.session.records import Facts, Records
from claude_bottle.session.resuming import Resumed
from tests.support import plans
from tests.support.labels import KEY
from tests.support.scene import SESSION, STEPS, Scene

ID = "1111111a-2222-4333-8444-555555555555"
LINE = json.dumps({"type": "user", "sessionId": ID, "message": {"content": "hi"}}).encode() + b"\n"
OLD = "demo-99999999"
FACTS = Facts(OLD, "demo", records.now(), ended=records.now(), code=0, conversation=ID, kept=True)
RESUME = ("start", "demo", "--resume", OLD, "--print", "Go on")


def kept(scene: Scene, plan: Any = None, data: bytes = LINE, facts: Facts = FACTS) -> Records:
    found = Records(scene.key.with_name("sessions"))
    record = found.create(facts)
    record.write(records.TRANSCRIPT, data)
    record.write_json(records.PLAN, plan)
    return found


def approved(scene: Scene) -> list[Any]:
    """Return the plan that the scene's agent has, as a session of it would keep it."""
    scene.run("start", "demo", "--yes", "--keep", "--print", "Why?")
    plan: list[Any] = json.loads((scene.key.with_name("sessions") / SESSION / "plan.json").read_bytes())
    return plan


def test_the_home_gets_the_one_file_and_claude_its_id(tmp_path: Path) -> None:
    folder = plans.everything(tmp_path)
    run = Run(terminal=True, arguments=("--model", "opus"), resumed=Conversation(OLD, ID, LINE))
    plan = plans.plan(folder, run, HOST_KEY="x")
    before = plans.plan(folder, replace(run, resumed=None), HOST_KEY="x")
    with tarfile.open(fileobj=io.BytesIO(plan.home)) as new, tarfile.open(fileobj=io.BytesIO(before.home)) as old:
        added = set(new.getnames()) - set(old.getnames())
        assert set(old.getnames()) - set(new.getnames()) == {".claude-bottle/prompt"}  # it has had the agent's
        file = new.extractfile(f".claude/projects/-work/{ID}.jsonl")
        assert file
        assert file.read() == LINE
    project = ".claude/projects/-work"
    assert added == {".claude/projects", project, f"{project}/{ID}.jsonl"}


def test_claude_goes_on_without_another_yes_if_nothing_more_is_reached(scene: Scene) -> None:
    kept(scene, approved(scene))
    code, _, err = scene.run(*RESUME, "--yes")
    assert code == 0, err
    assert f"  resume  session {OLD}, 0.1 KiB: an old conversation can carry an old injection\n" in err
    assert "beware" not in err
    [claude] = [event.argv for event in scene.log if event.starts(STEPS["claude"]) and "--resume" in event.argv]
    assert claude[claude.index("--resume") + 1] == ID
    assert claude.index("--print") < claude.index("--resume")


@pytest.mark.parametrize("answer", ["--yes", "--yes-if-unchanged"])
def test_more_reach_than_the_old_session_had_needs_an_answer(scene: Scene, answer: str) -> None:
    kept(scene, approved(scene))
    count = len(scene.log)
    (scene.agents / "bottles" / "default.yaml").write_text("egress: {allow: [new.example.com]}\nlimits: {pids: 99}\n")
    code, out, err = scene.run(*RESUME, answer)
    assert (code, out) == (65, "")
    assert "beware  reached by this session, and not by the one whose conversation goes on:\n+ egress  new." in err
    assert "limits  pids" not in err
    assert not [event for event in scene.log[count:] if event.starts("run ")]
    assert scene.run(*RESUME, "--dry-run")[2].count("+ egress  new.example.com\n") == 1


@pytest.mark.parametrize("plan", [None, {}, "x", [["egress", "x"]], [["egress", 1, "", ""]]])
def test_without_a_plan_everything_counts_as_new(scene: Scene, plan: Any) -> None:
    kept(scene, plan)
    code, _, err = scene.run(*RESUME, "--yes")
    assert code == 65
    assert "+ egress  api.anthropic.com\n" in err


@pytest.mark.parametrize(
    ("data", "facts", "why"),
    [
        (b"{", FACTS, "line 1 is no JSON object; start without --resume"),
        (LINE, replace(FACTS, conversation=""), "no conversation is kept of demo-99999999: start it with --keep"),
        (LINE, replace(FACTS, conversation="", notes=("too large",)), "no conversation is kept of .*: too large"),
        (LINE, replace(FACTS, conversation="../../x"), "its id is not known"),
    ],
)
def test_what_claude_cannot_read_is_an_error_before_the_start(
    scene: Scene, data: bytes, facts: Facts, why: str
) -> None:
    kept(scene, [], data, facts)
    code, _, err = scene.run(*RESUME, "--yes")
    assert code == 2
    assert re.search(why, err)
    assert scene.log == []


def test_what_is_damaged_or_not_there_is_an_error(scene: Scene) -> None:
    found = kept(scene, [])
    assert "nothing is kept of a session" in scene.run("start", "demo", "--resume", "other")[2]
    (found.folder / OLD / "session.json").write_bytes(b"")
    code, _, err = scene.run(*RESUME, "--yes")
    assert (code, f"damaged: ./cli.py history --remove {OLD}" in err) == (2, True)


def test_the_branch_that_came_back_is_checked_out_in_its_own_repository(tmp_path: Path) -> None:
    facts = replace(FACTS, repository=str(tmp_path / "repo"), branch=f"bottle/{OLD}")
    resumed = Resumed(facts, Conversation(OLD, ID, LINE), ())
    (tmp_path / "repo" / "inner").mkdir(parents=True)
    for path, ref in (("repo", facts.branch), ("repo/inner", facts.branch), ("other", "HEAD")):
        assert resumed.wanted(Wanted(tmp_path / path), named=False) == Wanted(tmp_path / path, ref)
    here = Wanted(tmp_path / "repo")
    assert resumed.wanted(here, named=True) == here
    assert resumed.wanted(replace(here, with_changes=True), named=False) == replace(here, with_changes=True)
    assert resumed.wanted(None, named=False) is None
    assert replace(resumed, facts=FACTS).wanted(here, named=False) == here


def test_another_repository_and_other_content_are_more_reach(tmp_path: Path) -> None:
    folder = plans.everything(tmp_path)
    made = plans.with_repository(replace(plans.plan(folder, Run(terminal=True), HOST_KEY="x"), key=KEY))
    assert made.repository
    same = replace(FACTS, repository=str(made.repository.work.repository))
    resumed = Resumed(same, Conversation(OLD, ID, LINE), approvals.entries(made))
    assert resumed.widened(made) == []
    assert replace(resumed, facts=FACTS).widened(made) == [f"+ repo    {made.repository.work.repository}"]
    literal, *rest = made.agent.bottle.env
    bottle = replace(made.agent.bottle, env=(replace(literal, literal="2"), *rest))
    other = replace(made, agent=replace(made.agent, bottle=bottle))
    assert resumed.widened(other) == ["+ env     LITERAL: literal"]


def test_uncommitted_changes_that_the_old_session_had_none_of_are_more_reach(tmp_path: Path) -> None:
    folder = plans.everything(tmp_path)
    made = plans.with_repository(replace(plans.plan(folder, Run(terminal=True), HOST_KEY="x"), key=KEY))
    assert made.repository
    clean = replace(made, repository=replace(made.repository, with_changes=False, asked="other"))
    facts = replace(FACTS, repository=str(made.repository.work.repository))
    resumed = Resumed(facts, Conversation(OLD, ID, LINE), approvals.entries(clean))
    assert resumed.widened(clean) == []
    assert resumed.widened(made) == [f"+ repo    {facts.repository}, with uncommitted changes"]
    assert replace(resumed, before=approvals.entries(made)).widened(clean) == []
