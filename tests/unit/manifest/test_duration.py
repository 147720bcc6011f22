"""Spans of time in manifests and on the command line."""

import pytest

from claude_bottle.manifest import duration


@pytest.mark.parametrize(
    ("text", "seconds", "written"),
    [
        ("90s", 90, "1m30s"),
        ("30m", 1800, "30m"),
        ("2h", 7200, "2h"),
        ("1h30m", 5400, "1h30m"),
        ("1h0m5s", 3605, "1h5s"),
        ("1s", 1, "1s"),
        ("720h", 2592000, "720h"),
        ("0h05m", 300, "5m"),
    ],
)
def test_a_span_of_time_has_hours_minutes_and_seconds(text: str, seconds: int, written: str) -> None:
    assert (duration.parse(text), duration.written(seconds)) == (seconds, written)
    assert duration.parse(written) == seconds


@pytest.mark.parametrize("text", ["", "2", "2 h", "2H", "h", "30m2h", "1.5h", "-1h", "2h\n", "٢h", "1d", "99999999s"])
def test_anything_else_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="expected a time such as 90s, 30m, 2h or 1h30m"):
        duration.parse(text)


@pytest.mark.parametrize("text", ["0s", "0h0m0s", "721h", "720h1s", "9999999h"])
def test_bounds_are_told(text: str) -> None:
    with pytest.raises(ValueError, match="must be from 1s to 720h"):
        duration.parse(text)
