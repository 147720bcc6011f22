"""The whole path between the user and a program in a bottle, byte for byte, with a puppet for claude."""

import os
import random
import signal
from hashlib import sha256

import pytest

from tests.support.sessions import Bench, Terminal

MEGABYTES, BLOCK = 50, 1 << 20  # as puppet/claude.py has it


def flood() -> str:
    """Return the hash of what the puppet's flood is."""
    source, whole = random.Random(str(MEGABYTES)), sha256()
    for _ in range(MEGABYTES):
        whole.update(source.randbytes(BLOCK))
    return whole.hexdigest()


def test_flood_passes_a_terminal_whole(bench: Bench) -> None:
    bench.puppet(f"flood {MEGABYTES} 7")
    with bench.terminal("--yes", screen=False) as terminal:
        terminal.until_bytes(b"<flood>")
        assert terminal.code() == 7
    assert sha256(terminal.raw[: MEGABYTES * BLOCK]).hexdigest() == flood()


def test_flood_passes_a_pipe_whole(bench: Bench) -> None:
    bench.puppet()
    ended = bench.start("--yes", "--print", f"flood {MEGABYTES} 7")
    written = ended.out.removeprefix(b"<flood>")
    assert (ended.code, len(written), sha256(written).hexdigest()) == (7, MEGABYTES * BLOCK, flood())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_last_words_of_what_dies_of_a_signal_arrive(bench: Bench, number: signal.Signals) -> None:
    bench.puppet(f"die {number}")
    words = random.Random(str(int(number))).randbytes(1 << 14)
    with bench.terminal("--yes", screen=False) as terminal:
        terminal.until_bytes(b"<dying>")
        assert terminal.code() == 128 + number
        assert terminal.raw[: len(words)] == words
    ended = bench.start("--yes")
    assert (ended.code, ended.out) == (128 + number, b"<dying>" + words)


def resized(terminal: Terminal, rows: int, columns: int) -> bool:
    """Resize the terminal; tell whether the program in the bottle got to know."""
    terminal.child.setwinsize(rows, columns)
    return terminal.gets(f"<{rows}x{columns}>".encode(), seconds=10)


def test_size_and_every_key_reach_the_program(bench: Bench) -> None:
    keys = bytes(range(32)) + b"\x10\x11\x7f\xc3\xa9"
    bench.puppet(f"listen {len(keys)}")
    with bench.terminal("--yes", screen=False) as terminal:
        terminal.until_bytes(b"<33x101>")
        # docker's client hears of no change that comes right after it has told the first size.
        sizes = ((rows, 132) for rows in range(50, 60))
        assert any(resized(terminal, *size) for size in sizes)
        terminal.type(keys)
        terminal.until_bytes(f"<{keys.hex()}>".encode())
        assert terminal.code() == 0


def test_signal_on_a_terminal_puts_it_back(bench: Bench) -> None:
    bench.puppet("stay")
    with bench.terminal("--yes", screen=False) as terminal:
        terminal.until_bytes(b"<staying>")
        os.kill(terminal.launcher(), signal.SIGTERM)
        assert terminal.code() == 128 + signal.SIGTERM


@pytest.mark.parametrize(("answer", "code"), [(b"n\r", 65), (b"\r", 65), (b"\x03", 130), (b"\x04", 65)])
def test_question_that_is_not_answered_with_yes(bench: Bench, answer: bytes, code: int) -> None:
    bench.puppet("stay")
    with bench.terminal() as terminal:
        terminal.until("Start this session? [y/N]")
        terminal.type(answer)
        assert terminal.code() == code
    assert bench.sessions() == []
