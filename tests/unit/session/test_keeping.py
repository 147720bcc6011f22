"""What is kept of whole sessions, with a fake docker; what cannot be kept costs nothing but a message."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from claude_bottle.bottle.plan import Run
from claude_bottle.egress.log import Tally
from claude_bottle.selftest.receipt import Receipt
from claude_bottle.session import records
from claude_bottle.session.keeping import Keeper
from claude_bottle.session.records import COUNTS, FACTS, MOST, TRANSCRIPT, Facts, Record, Records
from tests.support import plans
from tests.support.repos import CONFIG, Repo
from tests.support.scene import PATCHED, SECRET, SESSION, STEPS, TRUSTING, UNDO, Scene

ID = "1111111a-2222-4333-8444-555555555555"
LINE = json.dumps({"type": "user", "sessionId": ID, "message": {"content": "with planted-host-key"}}) + "\n"
EXPORT = "-X utf8 - /home/agent"
KEPT = ("start", "demo", "--yes", "--keep", "--print", "Why?")


def exported(line: str = LINE, size: int | None = None) -> str:
    return json.dumps({"id": ID, "size": len(line) if size is None else size}) + "\n" + line


def folder(scene: Scene) -> Path:
    return scene.key.with_name("sessions") / SESSION


def part(scene: Scene, name: str) -> Any:
    return json.loads((folder(scene) / name).read_bytes())


def test_by_default_nothing_is_kept_and_nothing_is_asked_of_the_bottle(scene: Scene) -> None:
    assert scene.run("start", "demo", "--yes", "--print", "Why?", CLAUDE_BOTTLE_KEEP="0")[0] == 0
    assert not folder(scene).parent.exists()
    assert not [event for event in scene.log if event.starts(EXPORT)]


@pytest.mark.parametrize("how", [{"words": KEPT}, {"words": ("start", "demo", "--yes"), "CLAUDE_BOTTLE_KEEP": "1"}])
def test_a_session_is_kept_for_its_user_alone(scene: Scene, how: dict[str, Any]) -> None:
    bottle = scene.agents / "bottles" / "default.yaml"
    bottle.write_text('env: {KEY: "${HOST_KEY}"}\n')
    scene.rule(EXPORT, stdout=exported())
    scene.rule(STEPS["claude"], stdout="the answer has planted-host-key in it\n", code=7)
    words = how.pop("words")
    code, out, err = scene.run(*words, HOST_KEY="planted-host-key", **how)
    assert (code, out) == (7, "the answer has planted-host-key in it\n")
    assert f"claude-bottle: kept: ./cli.py history {SESSION}; to go on: ./cli.py start demo --resume {SESSION}\n" in err
    facts = part(scene, "session.json")
    assert {name: facts[name] for name in ("session", "agent", "code", "kept", "struck", "conversation", "notes")} == {
        "session": SESSION, "agent": "demo", "code": 7, "kept": True, "struck": 2, "conversation": ID, "notes": [],
    }  # fmt: skip
    assert (folder(scene) / "answer").read_text() == "the answer has [struck out] in it\n"
    assert (folder(scene) / TRANSCRIPT).read_text() == LINE.replace("planted-host-key", "[struck out]")
    assert part(scene, "receipt.json")["passed"]
    assert ["egress", "api.anthropic.com"] in [entry[:2] for entry in part(scene, "plan.json")]
    assert part(scene, "counts.json")["blocked"] == 0
    assert part(scene, "refusals.json") == {"refused": {}, "unresolved": {}, "failed": {}}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder(scene).iterdir()} == {0o600}
    whole = b"".join(path.read_bytes() for path in folder(scene).iterdir())
    assert SECRET.encode() not in whole
    assert b"planted-host-key" not in whole


def test_the_conversation_is_taken_after_the_work_and_before_the_bottle_ends(scene: Scene, tmp_path: Path) -> None:
    scene.environ["PATH"] += f":{os.environ['PATH']}"
    (tmp_path / ".gitconfig").write_text(CONFIG)
    repo = Repo(tmp_path / "repo", {**scene.environ, "HOME": str(tmp_path)})
    repo.path.mkdir()
    repo.git("init", "--quiet")
    repo.commit("one", file="1")
    start = repo.git("rev-parse", "HEAD").strip()
    scene.rule(EXPORT, stdout=exported())
    scene.rule("- keep /work", stdout=json.dumps({"kind": "head", "tip": start, "before": ""}) + "\n")
    code, _, err = scene.run(*KEPT, "--repo", str(repo.path))
    assert (code, "kept: " in err) == (0, True), err
    assert scene.at("end", "- keep /work") < scene.at("start", EXPORT)
    assert scene.at("end", EXPORT) < next(
        place for place, event in enumerate(scene.log) if event.kind == "start" and event.argv == UNDO["sidecar"]
    )
    assert part(scene, "session.json")["branch"] == ""  # nothing came back
    assert part(scene, "session.json")["repository"] == str(repo.path)


def test_a_session_that_a_signal_ends_is_kept(scene: Scene) -> None:
    scene.rule(EXPORT, stdout=exported())
    scene.rule(STEPS["claude"], fifo="claude")
    child = scene.launch(*KEPT)
    with scene.held("claude"):
        child.send_signal(signal.SIGTERM)
        code, _, err = scene.end(child)
    assert (code, "kept: " in err) == (143, True), err
    assert part(scene, "session.json")["code"] == 143
    assert (folder(scene) / TRANSCRIPT).read_text() == LINE


def test_a_session_that_is_killed_is_not_kept(scene: Scene) -> None:
    scene.rule(STEPS["claude"], fifo="claude")
    child = scene.launch(*KEPT)
    with scene.held("claude"):
        child.kill()
    child.communicate()
    assert not folder(scene).parent.exists()


def test_a_session_whose_claude_never_ran_is_not_kept(scene: Scene) -> None:
    scene.rule(STEPS["selftest"], code=1)
    assert scene.run(*KEPT)[0] == 66
    assert not folder(scene).parent.exists()


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"stdout": '{"why": "\\u001b[31mit is a link"}\n'}, r"\x1b[31mit is a link"),
        ({"stdout": exported(size=5)}, "the bottle's answer is not whole"),
        ({"stdout": "x" * 5000}, "the bottle's answer cannot be read"),
        ({"code": 1, "stderr": "Error response from daemon: no room\n"}, "no room"),
    ],
)
def test_a_conversation_that_does_not_come_costs_a_message(scene: Scene, rule: dict[str, Any], why: str) -> None:
    scene.rule(EXPORT, **rule)
    code, _, err = scene.run(*KEPT)
    assert code == 0
    assert "claude-bottle: the conversation is not kept: " in err
    assert why in err
    assert "--resume" not in err
    assert part(scene, "session.json")["notes"] != []
    assert not (folder(scene) / TRANSCRIPT).exists()


def test_a_conversation_beyond_the_limit_is_not_read(scene: Scene) -> None:
    scene.docker.write_text(
        scene.docker.read_text().replace(
            "what = rule()", f'what = rule()\n    if "{EXPORT}" in " ".join(ARGV):\n'
            '        os.system("head -c 100000000 /dev/zero")',
        )
    )  # fmt: skip
    scene.environ["PATH"] += f":{os.environ['PATH']}"
    code, _, err = scene.run(*KEPT)
    assert code == 0
    assert f"the conversation is not kept: it is larger than {MOST[TRANSCRIPT] >> 20} MiB" in err


def test_a_state_folder_that_takes_nothing_costs_a_message(scene: Scene) -> None:
    scene.rule(EXPORT, stdout=exported())
    scene.key.with_name("sessions").write_bytes(b"")
    code, _, err = scene.run(*KEPT)
    assert code == 0
    assert "claude-bottle: this session is not kept: " in err


def test_an_answer_is_cut_at_its_limit_and_whole_on_stdout(scene: Scene) -> None:
    scene.rule(EXPORT, stdout=exported())
    answer = "x" * (MOST["answer"] + 5)
    scene.rule(STEPS["claude"], stdout=answer)
    code, out, _ = scene.run(*KEPT)
    assert (code, out == answer) == (0, True)
    assert (folder(scene) / "answer").stat().st_size == MOST["answer"]
    assert part(scene, "session.json")["cut"]
    assert scene.run("answer", SESSION)[2].splitlines() == [
        "claude-bottle: the answer was longer: cut after 8 MiB",
    ]


@pytest.mark.parametrize("detached", [False, True])
def test_until_it_is_whole_a_record_is_that_of_a_session_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, detached: bool
) -> None:
    machine = replace(plans.machine(), home=tmp_path)
    plan = plans.plan(plans.manifests(tmp_path / "agents"), Run(terminal=False, question="Why?", name="docs"))
    kept, seen = Records.of(machine), list[Facts | None]()
    if detached:
        kept.create(Facts(plan.session, "demo", records.now(), owner=str(plan.owner), name="docs", detached=True))
    write = Record.write

    def looking(record: Record, part: str, data: bytes) -> None:
        if part != FACTS:
            seen.append(record.read_facts())
        write(record, part, data)

    monkeypatch.setattr(Record, "write", looking)
    with Keeper(machine, wanted=True) as keeper:
        keeper.begin(machine, plan, Receipt((), 1.0), Tally(), lambda _: None)
        keeper.ended(7)
    assert len(seen) == 5  # receipt, plan, counts, refusals, answer
    for facts in seen:
        assert facts
        assert (facts.ended, facts.code, facts.kept) == (None, None, False)
        assert (facts.name, facts.owner, facts.detached) == ("docs", str(plan.owner), detached)
    last = kept.find("docs").facts
    assert last
    assert (last.kept, last.detached) == (True, detached)
    # The end of one in the background is its launcher's last word.
    assert (last.code, last.ended is None) == ((None, True) if detached else (7, False))


def test_a_part_that_cannot_be_written_does_not_cost_the_sessions_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = replace(plans.machine(), home=tmp_path)
    plan = plans.plan(plans.manifests(tmp_path / "agents"), Run(terminal=False, question="Why?"))
    write = Record.write

    def failing(record: Record, part: str, data: bytes) -> None:
        if part == COUNTS:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(record, part, data)

    monkeypatch.setattr(Record, "write", failing)
    with Keeper(machine, wanted=True) as keeper:
        keeper.begin(machine, plan, Receipt((), 1.0), Tally(), lambda _: None)
        keeper.ended(7)
    [record] = Records.of(machine).all()
    assert record.facts
    why = "not everything is kept: No space left on device"
    assert (record.facts.code, record.facts.notes) == (7, (why,))
    assert f"claude-bottle: {why}\n" in capsys.readouterr().err


def test_a_kept_session_is_found_by_its_name(scene: Scene) -> None:
    scene.rule(EXPORT, stdout=exported())
    assert scene.run(*KEPT, "--name", "docs")[0] == 0
    code, out, _ = scene.run("history", "docs")
    assert (code, out.splitlines()[:2]) == (0, [f"session       {SESSION}", "name          docs"])
    assert scene.run("wait", "docs") == (0, "", "")


def test_a_stdout_that_takes_nothing_is_an_error_and_the_session_is_kept(scene: Scene) -> None:
    scene.rule(EXPORT, stdout=exported())
    scene.rule(STEPS["claude"], stdout="the answer\n")
    argv = (sys.executable, str(PATCHED), json.dumps(TRUSTING), *KEPT)
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            argv, env=scene.environ, cwd=scene.folder, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE,
            text=True, check=False,
        )  # fmt: skip
    assert ended.returncode == 71
    assert "claude-bottle: system error: stdout: No space left on device\n" in ended.stderr
    assert (folder(scene) / "answer").read_text() == "the answer\n"
    facts = part(scene, "session.json")
    assert (facts["code"], facts["error"]) == (71, "stdout: No space left on device")


def test_no_half_of_a_secret_is_left_at_the_end_of_an_answer(scene: Scene) -> None:
    (scene.agents / "bottles" / "default.yaml").write_text('env: {KEY: "${HOST_KEY}"}\n')
    scene.rule(EXPORT, stdout=exported())
    secret = "planted-host-key".ljust(40, "-")
    scene.rule(STEPS["claude"], stdout=secret * (10 * (1 << 20) // len(secret)))
    assert scene.run(*KEPT, HOST_KEY=secret)[0] == 0
    assert set((folder(scene) / "answer").read_bytes().split(b"[struck out]")) == {b""}
    assert part(scene, "session.json")["cut"]


@pytest.mark.parametrize(
    "rule",
    [
        {"stdout": '{"why": "for want of planted-host-key"}\n'},
        {"code": 1, "stderr": "Error response from daemon: for want of planted-host-key\n"},
    ],
)
def test_a_secret_is_struck_out_of_why_a_conversation_does_not_come(scene: Scene, rule: dict[str, Any]) -> None:
    (scene.agents / "bottles" / "default.yaml").write_text('env: {KEY: "${HOST_KEY}"}\n')
    scene.rule(EXPORT, **rule)
    code, _, err = scene.run(*KEPT, HOST_KEY="planted-host-key")
    why = "the conversation is not kept: for want of [struck out]"
    assert (code, why in err, "planted-host-key" in err) == (0, True, False)
    assert part(scene, "session.json")["notes"] == [why]
