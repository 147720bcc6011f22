"""The whole path between the user and a program in a bottle, byte for byte, with a puppet for claude."""

import os
import random
import signal
from hashlib import sha256

import pytest

from tests.support.sessions import CLI, Bench, Terminal

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


def state(bench: Bench, terminal: Terminal, name: str) -> str:
    """Return the modes of the terminal, which the shell must have."""
    terminal.type(f"stty -g > {bench.folder / name}; echo $((6 * 7))-{name}\r".encode())
    terminal.until(f"42-{name}")
    return (bench.folder / name).read_text()


def test_ctrl_z_gives_the_terminal_to_the_shell_and_fg_takes_it_back(bench: Bench) -> None:
    """With the real Claude Code: twice, and with another size each time."""
    bench.write(prompt=f"RUN: echo $((6 * 7))-{bench.name}")
    with bench.job_shell() as terminal:
        before = state(bench, terminal, "before")
        terminal.type(f"{CLI} start {bench.name} --yes\r".encode())
        terminal.until(f"42-{bench.name}")
        for rows, columns in ((40, 120), (28, 90)):
            terminal.type(b"\x1a")
            terminal.until_bytes(b"Stopped")
            assert state(bench, terminal, f"after-{columns}") == before
            terminal.resize(rows, columns)
            terminal.type(b"fg\r")
            terminal.until("─" * columns)
            terminal.type(f"RUN: echo $((10 * {rows}))-{bench.name}".encode())
            terminal.until(f"$((10 * {rows}))")
            terminal.type(b"\r")
            terminal.until(f"{10 * rows}-{bench.name}")
        terminal.type(b"/exit")  # unlike Ctrl-C it waits until claude is done
        terminal.until("/exit")
        terminal.type(b"\r")
        terminal.until("requests allowed")
        terminal.type(b"echo code $?.\r")
        terminal.until("code 0.")


def test_ctrl_z_in_a_shell_of_a_bottle(bench: Bench) -> None:
    """Of a program that took the shell's place; a stop that nobody has typed is undone."""
    with bench.running("--yes", "--print", f"HOLD: {bench.name}\nSAY: done") as run:
        bench.held()
        with bench.job_shell() as terminal:
            before = state(bench, terminal, "before")
            terminal.type(f"{CLI} shell {bench.name}\r".encode())
            terminal.until("agent@")
            terminal.type(b"kill -STOP $$; echo $((6 * 7))-awake\r")
            terminal.until("42-awake")
            # What is typed before the shell has given the terminal up would end in a CR.
            terminal.type(b"exec sh -c 'echo $((6 * 7))-cat; exec cat'\r")
            terminal.until("42-cat")
            terminal.type(b"one\r")
            terminal.until_bytes(b"one\r\none\r\n")
            terminal.type(b"\x1a")
            terminal.until_bytes(b"Stopped")
            assert state(bench, terminal, "after") == before
            terminal.type(b"fg\r")
            terminal.until_bytes(b"cli.py shell")
            terminal.type(b"two\r")
            terminal.until_bytes(b"two\r\n")
            terminal.type(b"\x04")
            terminal.until_bytes(b"ready> ")  # what is typed before is for whoever has the terminal then
            terminal.type(b"echo code $?.\r")
            terminal.until("code 0.")
        bench.world.release(bench.name)
        assert run.end().out == b"done\n"
