"""Malformed answers of a bottle change nothing."""

import json
from collections.abc import Callable

import pytest

from claude_bottle.errors import RepositoryError
from claude_bottle.repository import fetch
from tests.support.fetching import partly
from tests.support.repos import BRANCH, Ground


def answer(ground: Ground, data: bytes, *, code: int = 0) -> None:
    """Have the bottle answer these bytes in place of what it has."""
    (ground.folder / "answer").write_bytes(data)
    docker = ground.folder / "bin" / "docker"
    instead = f'[[ "$*" = *" - keep "* ]] && {{ cat {ground.folder}/answer; exit {code}; }}\n'
    docker.write_text(docker.read_text().replace("shift 5", f"{instead}shift 5"))


def said(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


ANSWERS: dict[str, Callable[[str], bytes]] = {
    "nothing": lambda _: b"",
    "zeros": lambda _: bytes(1 << 20),
    "endless": lambda _: b"[" * (1 << 25),
    "another ref": lambda _: said(kind="head", tip="refs/heads/main", before=""),
    "an option": lambda tip: said(kind="head", tip="--output=/tmp/x", before=tip),
    "control characters": lambda _: said(kind="head", tip="\x1b[2J", before=""),
    "a commit that is none": lambda tip: (
        said(kind="commit", oid="$(id)", below="", what="x") + said(kind="head", tip=tip, before=tip)
    ),
    "two heads": lambda tip: said(kind="head", tip=tip, before=tip) * 2,
    "more than fields": lambda tip: said(kind="head", tip=tip, before=tip, branch="main"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_an_answer_that_makes_no_sense_changes_nothing(ground: Ground, case: str) -> None:
    bottle, before = ground.uncork(), ground.user.snapshot()
    answer(ground, ANSWERS[case](ground.genie.commit("something")))
    with pytest.raises(RepositoryError, match=r"is malformed|says too much") as caught:
        fetch.fetch(bottle)
    assert str(caught.value).isprintable()
    assert ground.user.snapshot() == before


def test_an_answer_made_by_hand_is_taken(ground: Ground) -> None:
    """Else the tests above would prove nothing."""
    bottle = ground.uncork()
    tip = ground.genie.commit("something")
    answer(ground, said(kind="head", tip=tip, before=tip))
    ground.fetch(bottle)
    assert ground.user.git("rev-parse", BRANCH) == tip


def test_a_commit_that_the_bottle_does_not_have_is_a_failure(ground: Ground) -> None:
    bottle, before = ground.uncork(), ground.user.snapshot()
    tip = ground.genie.git("rev-parse", "HEAD")
    answer(ground, said(kind="head", tip=tip, before=tip) + said(kind="commit", oid="1" * 40, below="", what="x"))
    with pytest.raises(RepositoryError, match="the agent's x stays in the bottle: the bottle did not send its work"):
        fetch.fetch(bottle)
    assert ground.user.snapshot() == before


def test_an_answer_that_breaks_off_is_a_failure_and_what_was_said_comes(ground: Ground) -> None:
    bottle = ground.uncork()
    tip = ground.genie.commit("something")
    answer(ground, said(kind="head", tip=tip, before=tip) + b"{", code=137)
    told, error = partly(bottle)
    assert "the rest stays in the bottle: the bottle did not finish (exit status 137)\n" in told
    assert error == "not all that was left uncommitted came back"
    assert ground.user.git("rev-parse", BRANCH) == tip
