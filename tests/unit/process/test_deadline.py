"""One budget for many commands: what is left of it, and when nothing is."""

import math
from types import SimpleNamespace

import pytest

from claude_bottle.errors import RepositoryError
from claude_bottle.process import deadline, stream
from claude_bottle.process.deadline import Deadline


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still: `now` is its time."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def test_a_command_may_take_what_is_left_and_no_more_than_its_own_most(clock: SimpleNamespace) -> None:
    limit = Deadline(600.0)
    clock.now += 400
    assert (limit.left(), limit.left(50.0), limit.left(500.0)) == (200.0, 50.0, 200.0)
    clock.now += 1e9
    assert (Deadline().left(), Deadline().left(5.0)) == (math.inf, 5.0)


def test_nothing_starts_once_time_is_up(clock: SimpleNamespace) -> None:
    limit = Deadline(600.0)
    assert limit.over == ""
    clock.now += 600
    with pytest.raises(RepositoryError, match=r"^out of time: the 10 minutes are over$"):
        limit.left(5.0)
    assert limit.over


@pytest.mark.parametrize(
    ("asked", "told", "over"),
    [(0, 0, ""), (3, 0, ""), (1, 1, ""), (2, 1, "given up")],
    ids=["never", "often, and heard of nothing", "once", "again"],
)
def test_nothing_starts_once_the_user_has_asked_again(
    monkeypatch: pytest.MonkeyPatch, asked: int, told: int, over: str
) -> None:
    monkeypatch.setattr(stream._Patience, "asked", asked)
    monkeypatch.setattr(stream._Patience, "told", told)
    assert Deadline().over == Deadline(600.0).over == over


@pytest.mark.parametrize(("seconds", "said"), [(600.0, "10 minutes"), (90.0, "90 seconds"), (0.0, "0 seconds")])
def test_a_budget_is_spoken_of_in_minutes(seconds: float, said: str) -> None:
    assert deadline.spoken(seconds) == said
