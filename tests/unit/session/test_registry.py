"""Finding a session by its id, and printing its age."""

from datetime import UTC, datetime

import pytest

from claude_bottle.errors import UsageError
from claude_bottle.session import registry
from claude_bottle.session.registry import Session
from tests.support.owners import ELSEWHERE

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def test_a_session_is_found_by_its_id_or_an_unambiguous_prefix() -> None:
    found = [Session(name, ELSEWHERE, NOW) for name in ("demo-0a", "demo-0a1b", "review-0a")]
    assert [registry.find(found, name).id for name in ("r", "demo-0a1", "demo-0a")] == [
        "review-0a",
        "demo-0a1b",
        "demo-0a",
    ]
    with pytest.raises(UsageError, match=r'^"de" is ambiguous: demo-0a, demo-0a1b; '):
        registry.find(found, "de")
    with pytest.raises(UsageError, match=r'^no session "x\\x1b"; sessions: demo-0a, demo-0a1b, review-0a$'):
        registry.find(found, "x\x1b")
    with pytest.raises(UsageError, match=r'^no session "x"; none is running$'):
        registry.find([], "x")
    with pytest.raises(UsageError, match=r'^no session ""; sessions: demo-0a$'):
        registry.find(found[:1], "")  # from an unset shell variable


def test_a_session_is_found_by_its_name_before_the_beginning_of_another_ones_id() -> None:
    found = [Session("demo-0a", ELSEWHERE, NOW), Session("x-0b", ELSEWHERE, NOW, called="demo")]
    assert [registry.find(found, name).id for name in ("demo", "demo-", "x")] == ["x-0b", "demo-0a", "x-0b"]
    twice = [Session(name, ELSEWHERE, NOW, called="same") for name in ("demo-0a", "x-0b")]
    with pytest.raises(UsageError, match=r'^"same" is ambiguous: demo-0a, x-0b; '):
        registry.find(twice, "same")
    with pytest.raises(UsageError, match=r'^no session "-"'):
        registry.find(found, "-")  # what stands for no name


@pytest.mark.parametrize(("seconds", "text"), [(59, "59 s"), (60, "1 min"), (7300, "2 h"), (200_000, "2 d")])
def test_an_age_is_printed_in_one_unit(seconds: int, text: str) -> None:
    assert registry.duration(seconds) == text
