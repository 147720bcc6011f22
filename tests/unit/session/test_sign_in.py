"""The token on the screen of `claude setup-token`: through codes, wrapped lines and redraws, at any width."""

import random
import string

import pytest

from claude_bottle.process.screen import Screen
from claude_bottle.session.sign_in import token_on

TOKEN = "sk-ant-oat01-" + "".join(random.Random(7).choices(string.ascii_letters + string.digits + "_-", k=93)) + "AA"
AFTER = "Store this token securely. You won't be able to see it again."
YELLOW, DIM, PLAIN = "\x1b[33m", "\x1b[2m", "\x1b[39m\x1b[22m"


def read(text: str, columns: int, rows: int = 33, step: int = 5) -> str | None:
    """Return the token of a screen that got `text`, a few bytes at a time."""
    screen, data = Screen(), text.encode()
    for at in range(0, len(data), step):
        screen.feed(data[at : at + step], (rows, columns))
    return token_on(screen.lines, screen.columns)


def wrapped(columns: int, left: int = 0, right: int = 0, frame: str = "") -> list[str]:
    """Return the lines of the token in a box within so many columns."""
    width = columns - left - right
    lines = [TOKEN[at : at + width] for at in range(0, len(TOKEN), width)]
    return [
        f"{frame}{' ' * (left - len(frame))}{line.ljust(width)}{' ' * (right - len(frame))}{frame}".rstrip()
        for line in lines
    ]


def words(line: str) -> str:
    """Return a line as Claude Code writes it: each word put at its column, without a space."""
    out, column = "", 0
    for word in line.split(" "):
        out += f"\x1b[{column + 1}G{word}" if word else ""
        column += len(word) + 1
    return out


def page(columns: int, left: int = 0) -> str:
    """Return the last page of a sign-in, in the codes of the real one."""
    token = [f"{YELLOW}{words(line)}{PLAIN}" for line in wrapped(columns, left)]
    after = f"{DIM}{words(' ' * left + AFTER[: columns - left])}{PLAIN}"
    return "\r\r\n".join(["\x1b[1C\x1b[32m✓\x1b[4GToken\x1b[39m", "", *token, "", after, ""])


@pytest.mark.parametrize("columns", [14, 20, 40, 53, 54, 55, 79, 80, 101, 107, 108, 109, 110, 111, 112, 200])
@pytest.mark.parametrize("left", [0, 1])
def test_a_token_in_a_box_of_any_width(columns: int, left: int) -> None:
    assert read(page(columns, left), columns) == TOKEN


@pytest.mark.parametrize("columns", [10, 53, 80, 107, 108, 109, 200])
def test_a_token_that_the_terminal_itself_wraps(columns: int) -> None:
    assert read(f"Your token: {TOKEN}\r\n\r\n{AFTER}\r\n", columns) == TOKEN


def test_a_token_in_a_frame() -> None:
    assert read("\r\n".join(wrapped(80, 2, 2, "│")), 80) == TOKEN


def test_a_redraw_over_another_page_that_skips_what_is_there_already() -> None:
    """Claude Code writes only the cells that change, and moves over the others."""
    lines = wrapped(80)
    before = ["".join(c if place % 3 else "─" for place, c in enumerate(line)) for line in lines]
    redraw = "\x1b[2A\r" + "\r\n".join(
        "".join(f"\x1b[{place + 1}G{c}" for place, c in enumerate(line) if place % 3 == 0) for line in lines
    )
    text = f"{'-' * 80}\r\n" + "\r\n".join(before) + "\r\n" + redraw + f"\r\n\r\n{AFTER}"
    assert read(text, 80) == TOKEN


def test_a_page_that_is_erased_and_drawn_again_at_another_width() -> None:
    screen = Screen()
    screen.feed(page(80).encode(), (33, 80))
    screen.feed(b"\x1b[2K" + b"\x1b[1A\x1b[2K" * 8 + b"\x1b[G" + page(50).encode(), (33, 50))
    assert token_on(screen.lines, screen.columns) == TOKEN


def test_a_token_that_has_left_the_screen_at_the_top() -> None:
    assert read(page(80) + "\r\n" * 40, 80, rows=10) == TOKEN


def test_a_code_in_the_middle_of_a_token() -> None:
    assert read(f"{TOKEN[:30]}\x1b[1m{TOKEN[30:50]}\x1b]8;;https://x\x07{TOKEN[50:]}\x1b]8;;\x07", 200) == TOKEN


def test_of_two_tokens_the_last_one_counts() -> None:
    other = TOKEN.replace("A", "B")
    assert read(f"{other}\r\n\r\n{TOKEN}\r\n", 80) == TOKEN


@pytest.mark.parametrize("after", ["Done", "Store-it_well", " Done"])
def test_a_word_below_a_token_that_does_not_fill_its_line_is_no_part_of_it(after: str) -> None:
    assert read(f"{TOKEN}\r\n{after}\r\n", 120) == TOKEN


@pytest.mark.parametrize("after", ["Two words", f"│{'':78}│", "", "- no", "é"])
def test_what_is_no_word_below_a_full_line_is_no_part_of_a_token(after: str) -> None:
    assert read(f"{TOKEN}\r\n{after}\r\n", len(TOKEN)) == TOKEN


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sk-ant-oat01-",
        "sk-ant-oat01-abc...xyz",
        f"sk-ant-api03-{'x' * 95}",
        f"x{TOKEN}",
        "export CLAUDE_CODE_OAUTH_TOKEN=<token>",
        TOKEN[:20] + "\r\n\r\n" + TOKEN[20:],
    ],
)
def test_what_is_no_token(text: str) -> None:
    assert read(text, 120) is None
