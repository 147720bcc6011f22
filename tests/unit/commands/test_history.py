"""What is kept: listed, shown, printed and removed, damaged or not; nothing of it reaches a terminal as it is."""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from claude_bottle.process import liveness
from claude_bottle.session import records
from claude_bottle.session.records import Facts, Records
from tests.support.scene import Scene

STARTED = datetime(2026, 11, 30, 10, 0, tzinfo=UTC)
OLD = Facts("demo-00000001", "demo", STARTED, ended=STARTED, code=0, kept=True, branch="bottle/demo-00000001")
NEW = replace(OLD, session="demo-00000002", started=STARTED.replace(hour=11), code=7, branch="", struck=2, cut=True)
EVIL = "\x1b[31mred\x9b\u202e"


@pytest.fixture
def kept(scene: Scene) -> Records:
    found = Records(scene.key.with_name("sessions"))
    for facts in (OLD, NEW):
        record = found.create(facts)
        record.write(records.ANSWER, f"{EVIL}\tanswer\n".encode())
        record.write_json(records.COUNTS, {"allowed": 4, "blocked": 1})
    return found


def test_the_newest_is_listed_first(scene: Scene, kept: Records) -> None:
    code, out, _ = scene.run("history")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["SESSION", NEW.session, OLD.session]
    assert out.splitlines()[2].split()[-1] == OLD.branch
    found = json.loads(scene.run("history", "--json")[1])
    assert [(each["session"], each["code"], each["damaged"]) for each in found] == [
        (NEW.session, 7, False),
        (OLD.session, 0, False),
    ]
    assert found[0]["parts"] == ["session.json", "answer", "counts.json"]
    assert kept.size() == sum(each["size"] for each in found)


def test_one_is_shown_with_nothing_of_it_as_it_is(scene: Scene, kept: Records) -> None:
    kept.create(replace(NEW, error=EVIL, agent=EVIL, notes=(EVIL,), conversation="x"))
    code, out, _ = scene.run("history", NEW.session)
    assert code == 0
    assert all(character.isprintable() or character == "\n" for character in out)
    for line in (
        "exit code     7",
        "requests      4 allowed, 1 blocked",
        f"answer        ./cli.py answer {NEW.session}",
    ):
        assert line in out.splitlines()
    assert "secrets were struck out of what is kept, at 2 places" in out
    whole = json.loads(scene.run("history", NEW.session, "--json")[1])
    assert (whole["counts"], whole["receipt"], whole["agent"]) == ({"allowed": 4, "blocked": 1}, None, EVIL)


def test_the_answer_is_printed_as_it_is_and_what_became_of_it_on_stderr(scene: Scene, kept: Records) -> None:
    assert kept.all()
    assert scene.run("answer", OLD.session)[:3] == (0, f"{EVIL}\tanswer\n", "")
    code, _, err = scene.run("answer", NEW.session)
    assert code == 0
    assert err.splitlines() == [
        "claude-bottle: secrets were struck out of what is kept, at 2 places",
        "claude-bottle: the answer was longer: cut after 8 MiB",
    ]


def test_what_is_not_kept_or_damaged_is_an_error_with_its_remedy(scene: Scene, kept: Records) -> None:
    (kept.folder / OLD.session / "answer").unlink()
    (kept.folder / NEW.session / "session.json").write_bytes(b"{")
    assert "that is what `start --print` prints" in scene.run("answer", OLD.session)[2]
    assert scene.run("answer", "other")[0] == scene.run("history", "other")[0] == 2
    assert f"damaged: ./cli.py history --remove {NEW.session}" in scene.run("answer", NEW.session)[2]
    assert scene.run("history", NEW.session)[1].splitlines()[1].startswith("damaged ")
    rows = [line.split() for line in scene.run("history")[1].splitlines()]
    assert [row[1] for row in rows if row[0] == NEW.session] == ["damaged"]


def test_what_has_ended_is_removed_and_what_runs_is_left(scene: Scene, kept: Records, tmp_path: Path) -> None:
    running = kept.create(
        replace(NEW, session="demo-00000003", ended=None, code=None, owner=str(liveness.this_process()))
    )
    (kept.folder / "demo-00000004").symlink_to(tmp_path)
    code, out, _ = scene.run("history", "--remove", OLD.session)
    assert (code, out) == (0, f"removed {OLD.session}\n")
    code, _, err = scene.run("history", "--remove", running.session)
    assert (code, f"{running.session} is running: ./cli.py stop" in err) == (2, True)
    assert sorted(scene.run("history", "--remove", "--all")[1].splitlines()) == [
        f"removed {NEW.session}",
        "removed demo-00000004",
    ]
    assert os.listdir(kept.folder) == [running.session]  # noqa: PTH208
    assert tmp_path.exists()


@pytest.mark.parametrize(
    "words", [("--remove",), ("--all",), ("--remove", "x", "--all"), ("x", "--all"), ("--remove", "x", "--json")]
)
def test_options_that_do_not_combine_remove_nothing(scene: Scene, kept: Records, words: tuple[str, ...]) -> None:
    assert scene.run("history", *words)[0] == 2
    assert len(kept.all()) == 2


def test_doctor_says_how_much_is_kept(scene: Scene, kept: Records) -> None:
    def told() -> list[str]:
        return [line for line in scene.run("doctor")[1].splitlines() if "kept sessions" in line]

    [line] = told()
    assert "2 sessions, " in line
    assert "history --remove --all" in line
    for record in kept.all():
        kept.remove(record)
    assert told() == []


def test_kept_sessions_are_completed(scene: Scene, kept: Records) -> None:
    assert kept.all()
    for words in ("cli.py history demo-", "cli.py answer demo-", "cli.py start demo --resume demo-"):
        count = str(len(words.split()) - 1)
        out = scene.run("", COMP_WORDS=words, COMP_CWORD=count, _CLI_PY_COMPLETE="bash_complete")[1]
        assert out.splitlines() == [f"plain,{NEW.session}", f"plain,{OLD.session}"], words
