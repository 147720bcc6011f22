"""What a program has switched on in its terminal."""

import pytest

from claude_bottle.process.modes import Modes

PLAIN = b"\x1b(B\x0f\x1b[0m"


def fed(*parts: bytes) -> Modes:
    modes = Modes()
    for part in parts:
        modes.feed(part)
    return modes


@pytest.mark.parametrize(
    ("said", "on", "off"),
    [
        (b"", b"", b""),
        (b"\x1b[?2004h", b"\x1b[?2004h", b"\x1b[?2004l"),
        (b"\x1b[?1000;1006h", b"\x1b[?1000h\x1b[?1006h", b"\x1b[?1006l\x1b[?1000l"),
        (b"\x1b[?25l", b"\x1b[?25l", b"\x1b[?25h"),
        (b"\x1b[?25l\x1b[?25h", b"", b""),
        (b"\x1b[?2026h", b"", b"\x1b[?2026l"),
        (b"\x1b[>1u\x1b[>5u", b"\x1b[>1u\x1b[>5u", b"\x1b[<2u"),
        (b"\x1b[>1u\x1b[<u", b"", b""),
        (b"\x1b[>1u\x1b[=4;2u", b"\x1b[>5u", b"\x1b[<1u"),
        (b"\x1b[=3u", b"\x1b[=3;1u", b"\x1b[=0;1u"),
        (b"\x1b[=3u\x1b[=1;3u", b"\x1b[=2;1u", b"\x1b[=0;1u"),
        (b"\x1b[<9u", b"", b""),
        (b"\x1b[>4;2m", b"\x1b[>4;2m", b"\x1b[>4m"),
        (b"\x1b[>4;2m\x1b[>4m", b"", b""),
        (b"\x1b=", b"\x1b=", b"\x1b>"),
        (b"\x1b=\x1b>", b"", b""),
        (b"\x1b[5 q", b"\x1b[5 q", b"\x1b[0 q"),
        (b"\x1b]0;title\x07", b"\x1b]0;title\x07", b""),
        (b"\x1b]2;title\x1b\\", b"\x1b]2;title\x07", b""),
        (b"\x1b[?2004h\x1b[>1u\x1bc", b"", b""),
        (b"\x1b]52;c;\x07\x1bP\x1b\\\x1b_x\x1b\\\x1b[1;31m\x1b[3u\x1b[2 @", b"", b""),
        (b"\x1bP$q\x1b\\\x1b[?1h", b"\x1b[?1h", b"\x1b[?1l"),
    ],
)
def test_modes(said: bytes, on: bytes, off: bytes) -> None:
    for parts in ((said,), [said[place : place + 1] for place in range(len(said))]):
        assert fed(*parts).on() == on
        assert fed(*parts).off() == off + PLAIN
    assert fed(fed(said).on()).on() == on
    assert fed(said, fed(said).off()).on().replace(b"\x1b[0 q", b"").replace(b"\x1b]0;title\x07", b"") in (
        b"",
        b"\x1b]2;title\x07",
    )


def test_what_a_hostile_program_says_takes_no_more_memory_than_that_of_others() -> None:
    modes = fed(*(b"\x1b[?%dh\x1b[>%du\x1b]0;%d\x07" % (number, number, number) for number in range(100_000)))
    modes.feed(b"\x1b[?" + b"1" * 100_000 + b"h\x1b]0;" + b"x" * 100_000)
    modes.feed(b"\x1b[" + b"1;" * 100_000)
    assert len(modes.on()) < 2000
    assert len(modes._rest) <= 4096
    modes.feed(b"\x07\x1b[?2004h")


def test_a_clipboard_that_is_longer_than_a_code_hides_nothing() -> None:
    assert fed(b"\x1b]52;c;", b"QUJD" * 5000, b"\x1b\\\x1b[?2004h").on() == b"\x1b[?2004h"
