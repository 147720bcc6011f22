"""The console: the only place that prints, and the only one that reads an answer.

Data goes to stdout, everything else to stderr. Only `output` raises: a terminal that has gone must never cost a
clean-up step. `occupy` and `give_up` are for the begin and the end of the program.
"""

import contextlib
import errno
import io
import os
import sys
import termios
import threading
import time
from collections.abc import Iterator, Sequence
from typing import BinaryIO, TextIO

from claude_bottle.documents.escaping import escape_control_chars

PREFIX = "claude-bottle: "
WIDTH = 80  # columns, of the help and of a progress line; a narrower terminal counts as it is
_TICK = 1.0  # seconds: what takes longer is shown
_MIB = 1 << 20
_SHOWN_TAB = "\t"
_ERASE = "\r\x1b[K"  # the terminal's line


def occupy() -> None:
    """Put nothing where stdin, stdout or stderr is closed.

    Else the next file or pipe of this process, or of a client of docker, would be one of them.
    """
    with contextlib.suppress(OSError):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # the lowest that is free
            os.set_inheritable(descriptor, True)
        os.close(descriptor)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a character that the locale lacks is no failure


def give_up() -> None:
    """Have what could not be written go nowhere: Python would try again as it exits, and fail."""
    for stream in (sys.stdout, sys.stderr):
        if stream and not _try(stream, ""):
            _discard(stream)


def output(text: str) -> None:
    """Print a command's result on stdout, with a newline at its end; raises OSError if it cannot be written."""
    try:
        _write(sys.stdout, _whole(text))
    except OSError as error:
        error.filename = error.filename or "stdout"
        raise


def draw(text: str) -> None:
    """Write a part of a terminal's screen on stdout as it is; raises OSError if it cannot be written."""
    _write(sys.stdout, text)


def output_on_terminal() -> bool:
    """Return whether stdout is a terminal."""
    return _is_terminal(sys.stdout)


def emit(data: bytes) -> None:
    """Print a file's content on stdout as it is; on a terminal as text that does nothing to it. Raises OSError."""
    if _is_terminal(sys.stdout):
        lines = data.decode(errors="backslashreplace").splitlines()
        output("".join(f"{_SHOWN_TAB.join(map(escape_control_chars, line.split(_SHOWN_TAB)))}\n" for line in lines))
    elif sys.stdout:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def binary(*, out: bool) -> BinaryIO:
    """Return stdout, or else stdin, for data that is no text; raises OSError if it is closed or a terminal."""
    stream, name = (sys.stdout, "stdout") if out else (sys.stdin, "stdin")
    if not stream or _is_terminal(stream):
        raise OSError(errno.EINVAL, "is for a file or a pipe, not for a terminal", name)
    stream.flush()
    return stream.buffer


def report(text: str) -> None:
    """Print on stdout what has been done, with a newline at its end; an output that has gone is no failure."""
    if not _try(sys.stdout, _whole(text)) and sys.stdout:
        _discard(sys.stdout)


def say(message: str) -> None:
    """Print a message on stderr, after the program's name."""
    _try(sys.stderr, f"{PREFIX}{message}\n")


def show(text: str) -> None:
    """Print a text on stderr as it is, with a newline at its end."""
    _try(sys.stderr, _whole(text))


def ask(question: str, *, afresh: bool = False) -> bool:
    """Ask on the terminal; return whether the answer is yes. No is the default, also if nobody can see the question.

    If `afresh`, what was typed before the question does not count.
    """
    if not (sys.stdin and _try(sys.stderr, f"{question} [y/N] ")):
        return False
    if afresh:
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)
    return sys.stdin.buffer.readline().strip().lower() in (b"y", b"yes")


def choose(question: str, choices: Sequence[str]) -> int | None:
    """Ask on the terminal for the number of a choice; return its index, None if the answer is something else."""
    listed = "".join(f"  {number}  {choice}\n" for number, choice in enumerate(choices, 1))
    if not (sys.stdin and _try(sys.stderr, f"{question}\n{listed}[1-{len(choices)}] ")):
        return None
    answer = sys.stdin.buffer.readline().strip()
    return next((number for number in range(len(choices)) if answer == b"%d" % (number + 1)), None)


def on_terminal() -> bool:
    """Return whether stderr is a terminal, whose line can be renewed."""
    return _is_terminal(sys.stderr)


_thread = threading.local()


@contextlib.contextmanager
def without_progress() -> Iterator[None]:
    """Show no progress of what this thread does: the terminal is another program's."""
    before = getattr(_thread, "silent", False)
    _thread.silent = True
    try:
        yield
    finally:
        _thread.silent = before


class Progress:
    """Show what takes longer than a second: on a terminal as one line, renewed each second, else once.

    Of several at once only the first has the terminal's line.
    """

    _lock, _lines = threading.Lock(), list["Progress"]()

    def __init__(self, what: str) -> None:
        """Take the time from now on; nothing is ever shown if `what` is empty."""
        self.what, self.count = what, 0  # bytes so far
        self.detail = ""  # further text for the terminal's line, in printable characters
        self._start = time.monotonic()
        self._next = self._start + _TICK
        self._shown = False

    def tick(self) -> None:
        """Renew the line if it is time to."""
        now = time.monotonic()
        if not self.what or now < self._next or getattr(_thread, "silent", False):
            return
        self._next = now + _TICK
        size = f", {self.count / _MIB:.0f} MiB" if self.count >= _MIB else ""
        if _is_terminal(sys.stderr):
            # A line that wraps could not be erased.
            more = f", {self.detail}" if self.detail else ""
            line = f"{PREFIX}{self.what}: {now - self._start:.0f} s{size}{more}"[: _width(sys.stderr) - 1]
            with self._lock:
                if self not in self._lines:
                    self._lines.append(self)
                if self._lines[0] is self:
                    _try(sys.stderr, f"\r{line}\x1b[K")
        elif not self._shown:
            say(f"{self.what} ...")
        self._shown = True

    def say(self, message: str) -> None:
        """Print a message about what goes on, in place of the line."""
        self.close()
        say(f"{self.what}: {message}")

    def close(self) -> None:
        """Erase the line."""
        with self._lock:
            if self in self._lines:
                had_it = self._lines[0] is self
                self._lines.remove(self)
                if had_it and _is_terminal(sys.stderr):
                    _try(sys.stderr, _ERASE)


def _whole(text: str) -> str:
    return text if text.endswith("\n") or not text else f"{text}\n"


def _write(stream: TextIO | None, text: str) -> None:
    if stream:  # None if the program was started with it closed
        stream.write(text)
        stream.flush()


def _try(stream: TextIO | None, text: str) -> bool:
    """Write; return whether somebody may read it. ValueError: the stream is closed."""
    try:
        _write(stream, text)
    except (OSError, ValueError):
        return False
    return stream is not None


def _discard(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _is_terminal(stream: TextIO | None) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return stream is not None and stream.isatty()
    return False


def _width(stream: TextIO) -> int:
    with contextlib.suppress(OSError, ValueError):
        return min(os.get_terminal_size(stream.fileno()).columns or WIDTH, WIDTH)
    return WIDTH
