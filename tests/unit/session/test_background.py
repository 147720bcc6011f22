"""What a launcher in the background keeps of a headless claude, and what comes once its record is written."""

import os
import sys
from pathlib import Path
from typing import cast

import pytest

from claude_bottle.process.background import Back
from claude_bottle.session import records
from claude_bottle.session.background import Background
from claude_bottle.session.conversation import Strike
from claude_bottle.session.records import ANSWER, Facts, Record, Records

SECRET = "planted-host-key".ljust(40, "-")
FACTS = Facts("demo-0123abcd", "demo", records.now(), name="docs", detached=True)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Records(tmp_path).create(FACTS)


@pytest.fixture
def background(record: Record) -> Background:
    made = Background(cast("Back", None))  # it has gone on
    made._record, made._strike = record, Strike((SECRET,))
    return made


def test_no_half_of_a_secret_is_left_at_the_end_of_an_answer_or_of_messages(
    background: Background, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        f"import sys; [each.write({SECRET!r} * {10 * (1 << 20) // len(SECRET)}) for each in (sys.stdout, sys.stderr)]"
    )
    assert background.run(lambda: background.claude((sys.executable, "-c", text), os.environ), lambda _: 1) == 0
    assert set((record.read(ANSWER) or b"").split(b"[struck out]")) == {b""}
    assert set(capsys.readouterr().err.strip().split("[struck out]")) == {""}
    facts = record.read_facts()
    assert facts
    assert (facts.cut, facts.code) == (True, 0)


def test_what_comes_last_finds_the_record_written(background: Background, record: Record) -> None:
    seen = list[Facts | None]()
    background.last = lambda: seen.append(record.read_facts())
    assert background.run(lambda: 7, lambda _: 1) == 7
    [facts] = seen
    assert facts
    assert (facts.code, facts.ended is None, facts.name) == (7, False, "docs")
