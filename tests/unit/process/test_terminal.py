"""The interactive terminal, on real terminals with real programs (programs/tty_*.py)."""

import json
import os
import pty
import random
import select
import signal
import subprocess
import sys
import termios
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import IO

import pytest

PROGRAMS = Path(__file__).parents[2] / "support" / "programs"
GUARD = 300  # seconds; no test comes near it
SHELL = b"$ shell $"


def line(pipe: IO[bytes]) -> bytes:
    """The next line of an unbuffered pipe."""
    assert select.select([pipe], [], [], GUARD)[0]
    return pipe.readline()


class Terminal:
    """The user's side of a terminal in which a shell runs the launcher, which runs a program of tty_child.py."""

    def __init__(self, *program: str) -> None:
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (33, 101))
        mode = termios.tcgetattr(slave)
        mode[3] &= ~termios.ECHOK  # not what a new terminal has, so that a reset one shows
        termios.tcsetattr(slave, termios.TCSANOW, mode)
        command = [str(PROGRAMS / "tty_launcher.py"), sys.executable, str(PROGRAMS / "tty_child.py"), *program]
        self.shell = subprocess.Popen(
            [sys.executable, str(PROGRAMS / "tty_shell.py"), sys.executable, *command],
            stdin=slave, stdout=slave, stderr=subprocess.PIPE, bufsize=0, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        )  # fmt: skip
        os.close(slave)
        os.set_blocking(self.master, False)
        assert self.shell.stderr
        self.report = self.shell.stderr
        self.shown = bytearray()
        self.launcher = int(line(self.report))

    def until(self, end: bytes, typing: bytes = b"") -> bytes:
        """What is shown before `end`, while typing."""
        searched = 0
        while (at := self.shown.find(end, searched)) < 0:
            searched = max(0, len(self.shown) - len(end))
            readable, writable, _ = select.select([self.master], [self.master] if typing else [], [], GUARD)
            assert readable or writable, "the terminal is stuck"
            if writable:
                typing = typing[os.write(self.master, typing[:4096]) :]
            if readable:
                self.shown += os.read(self.master, 1 << 16)
        before = bytes(self.shown[:at])
        del self.shown[: at + len(end)]
        return before

    def said(self) -> str:
        """The next <word> of the program."""
        self.until(b"<")
        return self.until(b">").decode()

    def code(self) -> int:
        """The launcher's exit code; the terminal must be as it was before the launcher."""
        end = json.loads(line(self.report))
        assert end["after"] in (end["before"], "gone")
        return int(end["code"])

    def hang_up(self) -> None:
        os.close(self.master)
        self.master = -1

    def close(self) -> None:
        self.shell.kill()
        if self.master >= 0:
            self.hang_up()
        self.shell.wait()
        self.report.close()


def test_the_last_output_of_a_program_that_exits_at_once_arrives() -> None:
    for _ in range(8):
        with closing(Terminal("last_words", "16384")) as terminal:
            assert terminal.until(SHELL) == b"x" * 16384


def test_the_last_output_arrives_after_the_end_of_the_program() -> None:
    with closing(Terminal("last_words_on_signal", "4096")) as terminal:
        child = int(terminal.said())
        ended = os.pidfd_open(child)
        os.kill(terminal.launcher, signal.SIGSTOP)
        os.kill(child, signal.SIGUSR1)
        try:
            assert select.select([ended], [], [], GUARD)[0]
        finally:
            os.close(ended)
            os.kill(terminal.launcher, signal.SIGCONT)
        assert terminal.until(SHELL) == b"x" * 4096


def test_keys_reach_a_program_whose_output_nobody_reads(tmp_path: Path) -> None:
    fifo = tmp_path / "report"
    os.mkfifo(fifo)
    with closing(Terminal("write_and_listen", str(fifo))) as terminal, fifo.open("rb+", buffering=0) as report:
        assert line(report) == b"written\n"
        os.write(terminal.master, b"q")
        assert line(report) == b"q\n"
        assert terminal.until(SHELL) == b"x" * 256000


def test_a_long_paste_into_a_program_that_writes_more_than_it_reads() -> None:
    paste = random.Random(1).randbytes(1 << 20)
    with closing(Terminal("fourfold", str(len(paste)))) as terminal:
        assert terminal.said() == "ready"
        shown = terminal.until(SHELL, paste)
    assert shown == b"".join(bytes([byte]) * 4 for byte in paste)


def test_fifty_megabytes_pass_byte_for_byte() -> None:
    with closing(Terminal("flood", "50")) as terminal:
        shown = terminal.until(SHELL)
    assert sha256(shown).digest() == sha256(bytes(range(256)) * 4096 * 50).digest()


def test_keys_reach_the_program_as_bytes_before_it_has_set_up_its_terminal() -> None:
    keys = b"\x10\x11\x03\x04\x1a\x1c\x13\r\n\x00\xff"
    with closing(Terminal("show", str(len(keys)))) as terminal:
        assert terminal.said() == "ready"
        shown = terminal.until(SHELL, keys)
    assert shown == f"<{keys.hex()}>".encode()


def test_the_window_size_reaches_the_program_at_the_start_and_at_each_change() -> None:
    with closing(Terminal("size")) as terminal:
        assert terminal.said() == "33x101"
        for rows, columns in ((50, 132), (24, 80)):
            termios.tcsetwinsize(terminal.master, (rows, columns))
            assert terminal.said() == f"{rows}x{columns}"


@pytest.mark.parametrize(
    ("program", "code"), [(("leave", "0"), 0), (("leave", "7"), 7), (("die", "9"), 137), (("die", "15"), 143)]
)
def test_the_exit_code_passes_through(program: tuple[str, ...], code: int) -> None:
    with closing(Terminal(*program)) as terminal:
        assert terminal.code() == code


@pytest.mark.parametrize(
    ("number", "program"),
    [
        (signal.SIGTERM, "stay"),
        (signal.SIGTERM, "stay_and_flood"),  # the screen is stuck: nobody reads it
        (signal.SIGTERM, "cling"),
        (signal.SIGHUP, "stay"),
        (signal.SIGINT, "stay"),
        (signal.SIGUSR1, "stay"),  # not one that tty.py looks after: its handler raises within the loop
    ],
)
def test_a_signal_ends_the_child_and_puts_the_terminal_back(number: signal.Signals, program: str) -> None:
    with closing(Terminal(program)) as terminal:
        child = int(terminal.said())
        os.kill(terminal.launcher, number)
        assert terminal.code() == 64 + number
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)


@pytest.mark.parametrize("program", ["stay", "stay_and_flood"])
def test_the_end_of_the_terminal_ends_the_child_and_the_launcher(program: str) -> None:
    with closing(Terminal(program)) as terminal:
        child = int(terminal.said())
        terminal.hang_up()
        assert terminal.code() == 128 + signal.SIGHUP
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)
