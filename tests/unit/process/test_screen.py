"""The screen rebuilt from bytes: what pyte, a whole terminal, makes of the same bytes."""

import random
from typing import Any

import pyte
import pytest

from claude_bottle.process.screen import Screen

ROWS, COLUMNS = 6, 20
COUNTS = ("", "0", "1", "2", "7", "30")
# From a full line pyte does not move up or down as terminals do, nor does it blank its end: not from there.
MOVES = [
    f"{start}\x1b[{count}{letter}"
    for count in COUNTS
    for start, letters in (("", "CDEFG"), ("\r", "ABd"))
    for letter in letters
]
PLACES = [f"\x1b[{place}{letter}" for place in ("", "3", "2;5", "6;20", "9;99", ";4") for letter in "Hf"]
ERASURES = [*(f"\x1b[{how}{letter}" for how in ("", "0", "1", "2") for letter in "JK"), "\b\x1b[3X", "\r\x1b[X"]
LOOKS = ["\x1b[31m", "\x1b[1;38;5;9m", "\x1b[0m", "\x1b[?25l", "\x1b[?2004h", "\x1b]0;a title\x07", "\x1b(B"]
CONTROLS = ["\r", "\n", "\r\n", "\r\r\n", "\b", "\x1bD", "\x1b7\x1b[3;9Hsaved\x1b8"]
TEXTS = ["a", "word ", "x" * 19, "y" * 20, "z" * 45, "│ ", "é"]
PARTS = (*MOVES, *PLACES, *ERASURES, *LOOKS, *CONTROLS, *TEXTS, *TEXTS, *TEXTS)


def shown(*chunks: bytes, rows: int = ROWS, columns: int = COLUMNS) -> list[str]:
    """Return all lines of a screen."""
    screen = Screen()
    for chunk in chunks:
        screen.feed(chunk, (rows, columns))
    return screen.lines


def visible(lines: list[str], rows: int = ROWS) -> list[str]:
    """Return the lines that can be seen, the empty ones at the end included."""
    return [*lines[-rows:], *[""] * (rows - len(lines))]


@pytest.mark.parametrize("seed", range(300))
def test_it_shows_what_a_whole_terminal_shows(seed: int) -> None:
    """Without scrolling, as pyte keeps nothing of what has left the screen."""
    chosen = random.Random(seed)
    parts = "".join(chosen.choice(PARTS) for _ in range(chosen.randrange(1, 40))).encode()
    rows = 200
    other: Any = pyte.Screen(COLUMNS, rows)
    pyte.ByteStream(other).feed(parts)
    lines = shown(parts, rows=rows)
    assert visible(lines, rows) == [line.rstrip() for line in other.display]


@pytest.mark.parametrize("seed", range(100))
def test_the_parts_in_which_bytes_come_do_not_matter(seed: int) -> None:
    chosen = random.Random(seed)
    parts = "".join(chosen.choice(PARTS) for _ in range(40)).encode()
    cut = sorted(chosen.randrange(len(parts)) for _ in range(10))
    chunks = [parts[first:last] for first, last in zip([0, *cut], [*cut, len(parts)], strict=True)]
    assert shown(*chunks) == shown(parts)


def test_lines_that_have_left_the_screen_are_kept() -> None:
    lines = [f"line {number}" for number in range(20)]
    assert shown("\r\n".join(lines).encode()) == lines
    assert shown("\r\n".join(lines).encode(), b"\x1b[H\x1b[Jtop") == [*lines[:14], "top", *[""] * 5]


def test_the_alternate_screen_stays_after_a_program_has_left_it() -> None:
    assert shown(b"\x1b[?1049h\x1b[Hsecret\x1b[?1049l") == ["secret"]


def test_a_full_line_goes_on_only_with_the_next_character() -> None:
    assert shown(b"x" * 20 + b"\r\nnext") == ["x" * 20, "next"]
    assert shown(b"x" * 21) == ["x" * 20, "x"]


def test_strings_are_skipped_and_one_without_an_end_is_not_kept_for_ever() -> None:
    assert shown(b"\x1b]8;;https://x/y\x07link\x1b]8;;\x1b\\ \x1b_claude-bottle:stopped\x1b\\\x1bP1;2q#0\x1b\\end") == [
        "link end"
    ]
    assert "after" in "".join(shown(b"\x1b]8;;" + b"x" * (1 << 16), b"after")).replace("\n", "")


def test_other_codes_that_move() -> None:
    assert shown(b"one\x1bEtwo\x1b[s\x1b[Hx\x1b[uy\x1bMz\tt") == ["xne z   t", "twoy"]
    assert shown("世界ab".encode(), columns=5) == ["世界a", "b"]
    assert shown("a世界".encode(), columns=4) == ["a世", "界"]


def test_the_size_may_change() -> None:
    screen = Screen()
    screen.feed(b"x" * 15, (6, 10))
    screen.feed(b"\r\n" + b"y" * 15, (6, 20))
    assert (screen.lines, screen.columns) == (["x" * 10, "x" * 5, "y" * 15], 20)
