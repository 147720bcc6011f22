"""Claude's hint at its --resume is dropped as its last words, and nothing else ever is."""

import pytest

from claude_bottle.process.terminal import Hint

ID = b"08336fae-5c9c-4732-9f59-d16bd68a1ed0"
SCREEN = b"\x1b[?1049hfull screen\x1b[?1049l\x1b[>4m\x1b[?25h\x1b7\x1b[r\x1b8\x1b]0;\x07\x1b[2m\x1b[22m\r\n"
FIRST = b"\x1b[2mResume this session with:\x1b[22m\r\n"
HINT = FIRST + b"\x1b[2mclaude --dangerously-skip-permissions --resume " + ID + b"\x1b[22m\r\n"
AFTER = b"\x1b[2m\x1b[22m\x1b[?25h"


def shown(*parts: bytes, dropped: bool = True) -> bytes:
    """Return what is shown of a program's words, in parts as they come, and of its end."""
    hint, out = Hint(dropped=dropped), bytearray()
    for part in (*parts, b""):
        hint.said += part
        hint.pass_on(out, last=not part)
    return bytes(out)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 1000])
def test_the_hint_is_dropped_however_it_comes(size: int) -> None:
    """As Claude Code 2.1.331 says it, with what it says before and after."""
    said = SCREEN + HINT + AFTER
    parts = [said[at : at + size] for at in range(0, len(said), size)]
    assert shown(*parts) == SCREEN + AFTER
    assert shown(*parts, dropped=False) == said


@pytest.mark.parametrize(
    "said",
    [
        *(HINT, b"x" * 2000 + HINT, b"\x1b[?1049h" + HINT + AFTER),  # not, or no longer, after the alternate screen
        *(SCREEN + HINT + b"more", SCREEN + HINT + AFTER + b"\r\n", SCREEN + HINT + HINT),
        *(SCREEN + FIRST, SCREEN + FIRST[:-1], SCREEN + HINT[:-1], SCREEN + HINT.replace(b"claude", b"codex")),
        *(SCREEN + HINT.replace(ID, b"x"), SCREEN + FIRST + b"y" * 5000, SCREEN + b"x" * 2000 + HINT),
        SCREEN + HINT + b"\x1b]0;title\x07",
    ],
)
@pytest.mark.parametrize("size", [1, 13, 10_000])
def test_nothing_else_is(said: bytes, size: int) -> None:
    assert shown(*(said[at : at + size] for at in range(0, len(said), size))) == said


def test_what_is_held_comes_once_something_is_typed() -> None:
    hint, out = Hint(dropped=True), bytearray()
    hint.said += SCREEN + HINT
    hint.pass_on(out)
    assert out == SCREEN
    hint.give_up(out)
    assert out == SCREEN + HINT
    hint.said += AFTER
    hint.pass_on(out, last=True)
    assert out == SCREEN + HINT + AFTER


def test_no_more_than_a_hints_length_is_held() -> None:
    hint, out = Hint(dropped=True), bytearray()
    hint.said += SCREEN + FIRST + b"y" * 2000
    hint.pass_on(out)
    assert out == SCREEN + FIRST + b"y" * 2000
