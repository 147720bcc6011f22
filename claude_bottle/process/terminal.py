"""The interactive terminal: a child on a terminal of its own, joined to the user's byte for byte.

pexpect starts the child, and no more: its `interact()` loses the end of the output of a child that has ended, and
blocks for ever where a long paste meets a child that answers while it reads.
"""

import contextlib
import os
import select
import signal
import termios
import time
import tty
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Self

from claude_bottle.errors import EngineError

if TYPE_CHECKING:
    from pexpect import spawn

_FULL = 1 << 18  # bytes in a buffer, at which reading into it pauses
_GONE = 128 + signal.SIGHUP
# What a full-screen program switches on and would have switched off itself: mouse (1000 to 1006) and focus reports,
# bracketed paste, the keyboard's extended codes, the alternate screen; and the cursor back (xterm's ctlseqs, kitty's).
_MODES_OFF = "".join(f"\x1b[?{mode}l" for mode in (1000, 1002, 1003, 1004, 1006, 2004, 1049))
_SCREEN_BACK = f"{_MODES_OFF}\x1b[<u\x1b[?25h\x1b[0m".encode()
_ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


def run(argv: Sequence[str], env: Mapping[str, str], shown: int = 1, *, full_screen: bool = True) -> int:
    """Run `argv` on the user's terminal, descriptors 0 and `shown`; return its exit code, 128+n after a signal n.

    Main thread only. `argv` has at least two words, `env` is the child's whole environment. If the user's terminal goes
    away, the child is terminated and the result is 129. HUP, INT, QUIT and TERM terminate the child, too; their own
    handlers are called once the terminal is restored, so what they raise is raised here. After a `full_screen` program
    that did not end by itself the screen is restored; after any other only the line is ended. Raises EngineError if
    `argv` cannot be started.
    """
    try:
        with _Signals() as signals, _raw(0), _reopened(shown) as screen, _started(argv, env) as child:
            code = _copy(child, 0, screen, signals)
            if code > 128 and os.isatty(screen):  # it did not end by itself
                _write(screen, bytearray(_SCREEN_BACK if full_screen else b"\r\n"))
            return code
    except termios.error:
        return _GONE


def _copy(child: "spawn[bytes]", keys: int, screen: int, signals: "_Signals") -> int:
    """Copy both ways until the child has ended and all its output is on the screen; return as `run` does."""
    typed, shown = bytearray(), bytearray()
    fd = child.child_fd
    talking = True
    while talking or shown or child.isalive():
        # The child is read whatever the state of its input: only a screen that takes nothing holds it up.
        reads = [
            signals.fd,
            *([fd] if talking and len(shown) < _FULL else []),
            *([keys] if talking and len(typed) < _FULL else []),
        ]
        writes = [*([fd] if talking and typed else []), *([screen] if shown else [])]
        # A child that has closed its terminal but not ended yet can only be polled.
        readable, writable, _ = select.select(reads, writes, [], None if talking or shown else 0.001)
        if signals.fd in readable:
            if number := signals.read():
                return 128 + number
            child.setwinsize(*termios.tcgetwinsize(keys))
        if fd in readable:
            talking = _read(fd, shown)
        # Not after the child's end: what is typed then is for the shell.
        if keys in readable and talking and not _read(keys, typed):
            return _GONE
        if fd in writable and not _write(fd, typed):
            typed.clear()
        if screen in writable and not _write(screen, shown):
            return _GONE
    return child.exitstatus if child.exitstatus is not None else 128 + (child.signalstatus or 0)


def _read(fd: int, buffer: bytearray) -> bool:
    """Append what can be read now; False at the end, which a terminal closed on the other side reports as an error."""
    try:
        data = os.read(fd, 1 << 16)
    except BlockingIOError:
        return True
    except OSError:
        return False
    buffer += data
    return bool(data)


def _write(fd: int, buffer: bytearray) -> bool:
    """Write, and remove from the buffer, what fits now; False if nobody can read it any more."""
    try:
        # No more than can be written without blocking if `fd` is a blocking one.
        del buffer[: os.write(fd, buffer[: select.PIPE_BUF])]
    except BlockingIOError:
        pass
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _started(argv: Sequence[str], env: Mapping[str, str]) -> Iterator["spawn[bytes]"]:
    """Start the child; terminate it at the end if it still runs."""
    import pexpect

    try:
        size = termios.tcgetwinsize(0)
        child: spawn[bytes] = pexpect.spawn(argv[0], list(argv[1:]), env=env, dimensions=size, preexec_fn=_raw_input)
    except (pexpect.ExceptionPexpect, OSError) as error:
        raise EngineError(f"cannot run {argv[0]}: {error}") from error
    try:
        os.set_blocking(child.child_fd, False)
        yield child
    finally:
        _end(child)


def _raw_input() -> None:
    """Pass on unchanged what is typed before the child sets up its terminal: unechoed, and Ctrl-C as a byte.

    Output keeps its line ends until the child changes that.
    """
    output = termios.tcgetattr(0)[tty.OFLAG]
    tty.setraw(0, termios.TCSANOW)
    mode = termios.tcgetattr(0)
    mode[tty.OFLAG] = output
    termios.tcsetattr(0, termios.TCSANOW, mode)


def _end(child: "spawn[bytes]") -> None:
    """Terminate the child if it still runs, and reap it."""
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGKILL):
        child.kill(number)
        deadline = time.monotonic() + 1
        while child.isalive() and time.monotonic() < deadline:
            time.sleep(0.005)
    child.ptyproc.delayafterclose = 0  # type: ignore[attr-defined]  # else close() sleeps
    child.close(force=False)


@contextlib.contextmanager
def _raw(fd: int) -> Iterator[None]:
    """Put a terminal in raw mode, and back.

    TCSANOW both times: the other two wait for a screen that may be stuck, or lose what was typed ahead.
    """
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSANOW)
        yield
    finally:
        with contextlib.suppress(termios.error):  # gone
            termios.tcsetattr(fd, termios.TCSANOW, before)


@contextlib.contextmanager
def _reopened(fd: int) -> Iterator[int]:
    """Open the terminal of `fd` again, not blocking: O_NONBLOCK on `fd` itself would be the user's shell's too."""
    try:
        os.tcgetpgrp(fd)  # an error if /dev/tty is another terminal
        own = os.open("/dev/tty", os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        own = os.dup(fd)
    try:
        yield own
    finally:
        os.close(own)


class _Signals:
    """Signals as a descriptor to select on, so that none interrupts a fork or a clean-up."""

    def __enter__(self) -> Self:
        self.fd, self._writer = os.pipe()
        self._caught: list[int] = []
        for end in (self.fd, self._writer):
            os.set_blocking(end, False)
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        # A signal that is ignored, or whose handler Python did not set, is left alone.
        old = {number: signal.getsignal(number) for number in (*_ENDING, signal.SIGWINCH)}
        self._old = {number: handler for number, handler in old.items() if handler not in (signal.SIG_IGN, None)}
        self._ending = self._old.keys() - {signal.SIGWINCH}
        for number in self._old:
            signal.signal(number, _nothing)
        return self

    def read(self) -> int | None:
        """Read the signals that have arrived; return the first that ends a session, if any."""
        with contextlib.suppress(BlockingIOError):
            self._caught += (number for number in os.read(self.fd, 1 << 16) if number in self._ending)
        return self._caught[0] if self._caught else None

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self.read()
        os.close(self.fd)
        os.close(self._writer)
        for caught in self._caught:
            signal.raise_signal(caught)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the byte in the wakeup pipe is notice enough."""
