"""Sessions seen through labels, and whether their launchers live; these are real children."""

from datetime import UTC, datetime

import pytest

from claude_bottle.errors import UsageError
from claude_bottle.session import registry
from claude_bottle.session.registry import Session
from tests.support.owners import ELSEWHERE

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def test_a_session_is_found_by_whatever_begins_it_alone() -> None:
    found = [Session(name, ELSEWHERE, NOW) for name in ("demo-0a", "demo-0a1b", "review-0a")]
    assert [registry.find(found, name).id for name in ("r", "demo-0a1", "demo-0a")] == [
        "review-0a",
        "demo-0a1b",
        "demo-0a",
    ]
    with pytest.raises(UsageError, match=r'^"de" could be any of demo-0a, demo-0a1b: '):
        registry.find(found, "de")
    with pytest.raises(UsageError, match=r'^no session "x\\x1b"; there are demo-0a, demo-0a1b, review-0a$'):
        registry.find(found, "x\x1b")
    with pytest.raises(UsageError, match=r'^no session "x"; there is none$'):
        registry.find([], "x")
    with pytest.raises(UsageError, match=r'^no session ""; there are demo-0a$'):
        registry.find(found[:1], "")  # of a shell's variable that was not set


@pytest.mark.parametrize(("seconds", "said"), [(59, "59 s"), (60, "1 min"), (7300, "2 h"), (200_000, "2 d")])
def test_an_age_is_told_in_one_unit(seconds: int, said: str) -> None:
    assert registry.duration(seconds) == said
