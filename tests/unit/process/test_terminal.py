"""The interactive terminal, on real terminals with real programs (programs/tty_*.py)."""

import contextlib
import json
import os
import pty
import random
import re
import select
import shlex
import signal
import subprocess
import sys
import termios
import time
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import IO, Any

import pexpect
import pytest

from claude_bottle.process import terminal
from tests.support import systems

PROGRAMS = Path(__file__).parents[2] / "support" / "programs"
GUARD = 300  # seconds; no test comes near it
SHELL = b"$ shell $"


def line(pipe: IO[bytes]) -> bytes:
    """The next line of an unbuffered pipe."""
    assert select.select([pipe], [], [], GUARD)[0]
    return pipe.readline()


def launcher(*program: str, stops: bool, tap: Path | None = None) -> list[str]:
    """Return the command that runs a program of tty_child.py as the launcher does."""
    words = ("--stops",) if stops else ("--tap", str(tap)) if tap else ()
    return [str(PROGRAMS / "tty_launcher.py"), *words, sys.executable, str(PROGRAMS / "tty_child.py"), *program]


class Terminal:
    """The user's side of a terminal in which a shell runs the launcher, which runs a program of tty_child.py."""

    def __init__(self, *program: str, stops: bool = False, tap: Path | None = None) -> None:
        self.master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (33, 101))
        mode = termios.tcgetattr(slave)
        mode[3] &= ~termios.ECHOK  # not what a new terminal has, so that a reset one shows
        termios.tcsetattr(slave, termios.TCSANOW, mode)
        command = launcher(*program, stops=stops, tap=tap)
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


@systems.needs_linux("os.pidfd_open")
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


@pytest.mark.parametrize("stops", [False, True])
@pytest.mark.parametrize(
    ("program", "code"),
    [(("leave", "0"), 0), (("leave", "7"), 7), (("leave", "148"), 148), (("die", "9"), 137), (("die", "15"), 143)],
)
def test_the_exit_code_passes_through(program: tuple[str, ...], code: int, *, stops: bool) -> None:
    with closing(Terminal(*program, stops=stops)) as terminal:
        assert terminal.code() == code


@pytest.mark.parametrize(
    ("number", "program"),
    [
        (signal.SIGTERM, "stay"),
        (signal.SIGTERM, "stay_and_flood"),  # the screen is stuck: nobody reads it
        (signal.SIGTERM, "cling"),
        (signal.SIGHUP, "stay"),
        (signal.SIGINT, "stay"),
        (signal.SIGUSR1, "stay"),  # not one that terminal.py looks after: its handler raises within the loop
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


class JobShell:
    """A terminal in which a shell with job control runs the launcher, which runs tty_child.py's `work`."""

    PROMPT = "ready> "

    def __init__(self, number: signal.Signals) -> None:
        self.pty: pexpect.spawn[bytes] = pexpect.spawn(
            "bash",
            ["--norc", "--noprofile", "-i"],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "PS1": self.PROMPT, "TERM": "dumb"},
            dimensions=(33, 101),
            timeout=GUARD,
        )
        self.before = self.asked("stty -g")
        self.pty.sendline(shlex.join([sys.executable, *launcher("work", str(int(number)), stops=True)]))
        self.shows("<33x101>")

    def shows(self, text: str) -> bytes:
        """Wait until the terminal shows `text`; return what came before."""
        self.pty.expect_exact(text)
        return bytes(self.pty.before or b"")

    def asked(self, command: str) -> str:
        """Return what a command prints; the shell must have the terminal."""
        self.pty.sendline(f"printf '(%s)\\n' \"$({command})\"")
        self.pty.expect(rb"\r\n\(([^)]*)\)\r\n")
        assert isinstance(self.pty.match, re.Match)
        return bytes(self.pty.match[1]).decode()

    def stopped(self, key: bytes = b"\x1a") -> None:
        """Type Ctrl-Z; the shell must have its terminal as it was before."""
        self.pty.send(key)
        self.shows("<stops>")
        self.shows("Stopped")
        self.shows(self.PROMPT)
        assert self.asked("stty -g") == self.before

    def close(self) -> None:
        self.pty.close(force=True)


@pytest.mark.parametrize("number", [signal.SIGTSTP, signal.SIGSTOP])
@pytest.mark.parametrize("key", [b"\x1a", b"\x1b[122;5u", b"\x1b[122;133u", b"\x1b[27;5;122~"])
def test_ctrl_z_gives_the_terminal_to_the_shell_and_fg_takes_it_back(number: signal.Signals, key: bytes) -> None:
    with closing(JobShell(number)) as shell:
        for rows in (40, 50, 60):
            shell.stopped(key)
            shell.pty.setwinsize(rows, 132)
            shell.pty.sendline("fg")
            shell.shows(f"<{rows}x132>")
            shell.pty.send(b"\x03")
            shell.shows("<03>")
        shell.pty.send(b"q")
        shell.shows(shell.PROMPT)
        assert shell.asked("echo $?") == "7"
        assert shell.asked("stty -g") == shell.before


def test_a_stop_that_the_user_has_not_asked_for_is_undone() -> None:
    with closing(JobShell(signal.SIGSTOP)) as shell:
        for _ in range(3):
            shell.pty.send(b"s")
            shell.shows("<stops>")
            assert b"Stopped" not in shell.shows("<33x101>")
        shell.pty.send(b"x")
        shell.shows("<78>")


def test_bg_leaves_it_stopped() -> None:
    with closing(JobShell(signal.SIGSTOP)) as shell:
        shell.stopped()
        shell.pty.sendline("bg")
        while "Stopped" not in shell.asked("jobs"):
            time.sleep(0.01)
        assert shell.asked("stty -g") == shell.before
        shell.pty.sendline("fg")
        shell.shows("<33x101>")


def test_a_stopped_launcher_that_is_asked_to_end_leaves_the_terminal_alone() -> None:
    with closing(JobShell(signal.SIGSTOP)) as shell:
        shell.stopped()
        shell.pty.sendline("kill -TERM %1; kill -CONT %1; wait %1; echo code $?.")
        before = shell.shows(f"code {64 + signal.SIGTERM}.")
        assert b"\x1b[?1049l" not in before
        assert shell.asked("stty -g") == shell.before


@systems.needs_linux("os.pidfd_open")
def test_the_end_of_the_terminal_ends_a_stopped_launcher() -> None:
    with closing(JobShell(signal.SIGSTOP)) as shell:
        shell.stopped()
        ended = os.pidfd_open(int(shell.asked("jobs -p")))
        try:
            shell.close()
            assert select.select([ended], [], [], GUARD)[0]
        finally:
            os.close(ended)


def test_without_job_control_ctrl_z_stops_nothing() -> None:
    with closing(Terminal("work", str(int(signal.SIGSTOP)), stops=True)) as terminal:
        for _ in range(3):
            assert terminal.said() == "33x101"
            os.write(terminal.master, b"\x1a")
            assert terminal.said() == "stops"
        assert terminal.said() == "33x101"
        os.write(terminal.master, b"q")
        assert terminal.code() == 7


@pytest.mark.parametrize("size", [1, 2, 10, 24])
def test_the_beginning_of_the_word_for_a_stop_passes(size: int) -> None:
    with closing(Terminal("beginning", str(size), stops=True)) as terminal:
        assert terminal.until(SHELL) == b"x" + b"\x1b_claude-bottle:stopped\x1b\\"[:size]


def test_the_word_for_a_stop_is_nothing_to_a_program_that_has_no_parent_for_it() -> None:
    with closing(Terminal("beginning", "25")) as terminal:
        assert terminal.until(SHELL) == b"x\x1b_claude-bottle:stopped\x1b\\"


@pytest.mark.parametrize("place", range(1, 11))
@pytest.mark.parametrize("raises", [False, True])
def test_no_signal_is_lost_while_handlers_change(monkeypatch: pytest.MonkeyPatch, place: int, *, raises: bool) -> None:
    """It comes before one of the ten calls that put a handler in place."""
    kinds = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
    heard, count, handle, wakeup = list[int](), 0, signal.signal, signal.set_wakeup_fd(-1)

    def hear(number: int, _: FrameType | None) -> None:
        heard.append(number)
        if raises:
            raise SystemExit(128 + number)

    def handling(number: signal.Signals, handler: Any) -> None:
        nonlocal count
        count += 1
        if count == place:
            signal.raise_signal(signal.SIGTERM)
        handle(number, handler)

    former = {kind: handle(kind, hear) for kind in kinds}
    winch = signal.getsignal(signal.SIGWINCH)
    monkeypatch.setattr(signal, "signal", handling)
    try:
        with contextlib.suppress(SystemExit), terminal.Signals():
            pass
        assert heard == [signal.SIGTERM]
        assert [signal.getsignal(kind) for kind in (*kinds, signal.SIGWINCH)] == [*[hear] * 4, winch]
        assert signal.set_wakeup_fd(wakeup) == -1
        assert count >= place
    finally:
        for kind, handler in former.items():
            handle(kind, handler)


def test_a_tap_gets_all_that_a_program_writes(tmp_path: Path) -> None:
    with closing(Terminal("flood", "5", tap=tmp_path / "tapped")) as terminal:
        shown = terminal.until(SHELL)
    assert len(shown) == 5 << 20
    assert (tmp_path / "tapped").read_bytes() == shown


@pytest.mark.parametrize("key", [b"\x03", b"abc\x03", b"\x1b[99;5u", b"\x1b[99;133u", b"\x1b[27;5;99~"])
def test_ctrl_c_ends_what_does_not_heed_it(tmp_path: Path, key: bytes) -> None:
    with closing(Terminal("cling", tap=tmp_path / "tapped")) as terminal:
        terminal.said()
        os.write(terminal.master, key)
        assert terminal.code() == 128 + signal.SIGINT


@pytest.mark.parametrize("key", [b"c", b"\x1a", b"\x1b[99;2u", b"\x1b[199;5u", b"\x1b[122;5u", b"\x1b[3~"])
def test_other_keys_end_nothing(tmp_path: Path, key: bytes) -> None:
    with closing(Terminal("show", str(len(key)), tap=tmp_path / "tapped")) as terminal:
        assert terminal.said() == "ready"
        os.write(terminal.master, key)
        assert terminal.said() == key.hex()
        assert terminal.code() == 0


@pytest.mark.parametrize(
    ("typed", "woken"), [(b"", b"\x06"), (b"keys", b"\x06keys"), (b"\x06", b"\x06"), (b"\x06keys", b"\x06keys")]
)
def test_what_wakes_a_program_is_typed_once(typed: bytes, woken: bytes) -> None:
    buffer = bytearray(typed)
    terminal.wake(buffer)
    assert buffer == woken
