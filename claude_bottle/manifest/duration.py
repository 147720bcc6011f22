"""A span of time as people write it, such as 90s, 30m, 2h or 1h30m."""

import re

LEAST, MOST = 1, 30 * 24 * 3600  # seconds
_FORM = re.compile(r"(?:([0-9]{1,7})h)?(?:([0-9]{1,7})m)?(?:([0-9]{1,7})s)?")
EXPECTED = "a time such as 90s, 30m, 2h or 1h30m"
BOUNDS = "must be from 1s to 720h"


def parse(text: str) -> int:
    """Return the seconds of a text; raises ValueError, with the reason, if it is none or out of bounds."""
    match = _FORM.fullmatch(text)
    if not text or not match:
        raise ValueError(f"expected {EXPECTED}")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    total = hours * 3600 + minutes * 60 + seconds
    if not LEAST <= total <= MOST:
        raise ValueError(BOUNDS)
    return total


def written(seconds: int) -> str:
    """Return seconds in that form, in the largest units."""
    parts = ((seconds // 3600, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s"))
    return "".join(f"{number}{unit}" for number, unit in parts if number) or "0s"
