"""The interactive terminal: a child on a terminal of its own, joined to the user's byte for byte.

pexpect starts the child, and no more: its `interact()` loses the end of the output of a child that has ended, and
blocks for ever where a long paste meets a child that answers while it reads.
"""

import contextlib
import math
import os
import re
import select
import signal
import termios
import time
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Self

from claude_bottle.errors import EngineError

if TYPE_CHECKING:
    from pexpect import spawn

    Child = spawn[bytes]

FULL = 1 << 18  # bytes; a buffer that holds as many is not added to
GONE = 128 + signal.SIGHUP
# What a full-screen program switches on and would have switched off itself: mouse (1000 to 1006) and focus reports,
# bracketed paste, the keyboard's extended codes, the alternate screen; and the cursor back (xterm's ctlseqs, kitty's).
_MODES_OFF = "".join(f"\x1b[?{mode}l" for mode in (1000, 1002, 1003, 1004, 1006, 2004, 1049))
_SCREEN_BACK = f"{_MODES_OFF}\x1b[<u\x1b[?25h\x1b[0m".encode()
# The last word of a program that has stopped, a sequence (APC) of which a terminal shows nothing, and what wakes it.
STOPPED = b"\x1b_claude-bottle:stopped\x1b\\"
GO_ON = b"\x06"
# As a byte, and as the keyboard's extended codes have it: kitty's with Caps Lock and Num Lock, and xterm's.
_CTRL = rb"%c|\x1b\[(?:\d+:\d*:)?%d[\d:]*;(?:5|69|133|197)[\d:;]*u|\x1b\[27;5;%d~"
_CTRL_C, _CTRL_Z = (re.compile(_CTRL % (key & 0x1F, key, key)) for key in b"cz")
_LONGEST_KEY = 32  # bytes
# Claude Code 2.1.331's last words once it has left the alternate screen: how to go on with what is gone by then.
_HINT_BEGINS = b"\x1b[2mResume this session with:\x1b[22m\r\n"
_HINT = re.compile(
    re.escape(_HINT_BEGINS) + rb"\x1b\[2mclaude [ -~]*--resume [0-9a-f-]{36}\x1b\[22m\r\n((?:\x1b\[[0-?]*[@-~])*)"
)
_ALTERNATE, _MAIN = b"\x1b[?1049h", b"\x1b[?1049l"
_LONGEST_HINT = 1024  # bytes; as many may be between it and the end of the alternate screen
_WANTED = 5.0  # seconds after Ctrl-Z in which a stop is the user's doing
_ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)

Tap = Callable[[bytes, tuple[int, int]], None]  # called with bytes, and the terminal's rows and columns


def run(
    argv: Sequence[str],
    env: Mapping[str, str],
    shown: int = 1,
    *,
    full_screen: bool = True,
    stops: bool = False,
    ctrl_c_ends: bool = False,
    drops_hint: bool = False,
    tap: Tap | None = None,
) -> int:
    """Run `argv` on the user's terminal, descriptors 0 and `shown`; return its exit code, 128+n after a signal n.

    Main thread only. `argv` has at least two words, `env` is the child's whole environment. Where the user's terminal
    goes away the child is ended and the answer is 129. HUP, INT, QUIT and TERM end the child too; their own handlers
    are called once the terminal is put back, so what they raise comes out of here. A `full_screen` program that did
    not end by itself has its screen put back; any other only gets its line ended. A program that `stops` says STOPPED
    when it has; then this process's group stops, too, if the user has just typed Ctrl-Z, and the program gets GO_ON
    when the shell has brought that back. Any other stop is undone at once: what is typed meanwhile would be for the
    shell. If `ctrl_c_ends`, Ctrl-C ends the child, and the answer is 130. If it
    `drops_hint`, the child's last words are not shown if they are Claude's hint at its `--resume`. `tap` is called with
    all that the child writes. Raises EngineError where `argv` cannot be started.
    """
    try:
        with Signals() as signals, Raw(0) as keys, reopened(shown) as screen, started(argv, env) as child:
            join = _Join(child, keys, screen, signals, Stops(heeded=stops), tap, ctrl_c_ends=ctrl_c_ends)
            join.hint.dropped = drops_hint
            code = join.copy()
            if code > 128 and keys.raw and os.isatty(screen):  # it did not end by itself
                write(screen, bytearray(_SCREEN_BACK if full_screen else b"\r\n"))
            return code
    except termios.error:
        return GONE


class _Join:
    """The user's terminal and the child's, joined: each is copied to the other."""

    def __init__(
        self,
        child: "spawn[bytes]",
        keys: "Raw",
        screen: int,
        signals: "Signals",
        stops: "Stops",
        tap: Tap | None,
        *,
        ctrl_c_ends: bool,
    ) -> None:
        self.child, self.keys, self.screen, self.signals, self.stops = child, keys, screen, signals, stops
        self.tap, self.ctrl_c_ends = tap, ctrl_c_ends
        self.typed, self.shown = bytearray(), bytearray()
        self.hint = Hint()
        self.talking = True

    def copy(self) -> int:
        """Copy until the child has ended and all that it wrote is on the screen; the answer is that of `run`."""
        while self.talking or self.shown or self.child.isalive():
            if code := self._wake() or self._turn():
                return code
        ended = self.child.exitstatus
        return ended if ended is not None else 128 + (self.child.signalstatus or 0)

    def _wake(self) -> int:
        """Wake a child that has stopped, after a stop of this process if that is wanted; return the code if it ends."""
        if not self.stops.stopped or self.shown:
            return 0
        if self.stops.wanted() and (number := stop(self.keys, self.signals)):
            return 128 + number
        self._resize()
        wake(self.typed)
        self._pass_on()
        return 0

    def _turn(self) -> int:
        """Copy what can be copied now; return the code if that ends it, else 0."""
        fd = self.child.child_fd
        readable, writable = self._ready(fd)
        if self.signals.fd in readable:
            if number := self.signals.read():
                return 128 + number
            self._resize()
        if fd in readable:
            self._listen(fd)
        # Not after the child's end: what is typed then is for the shell.
        if self.keys.fd in readable and self.talking and (code := self._type()):
            return code
        if fd in writable and not write(fd, self.typed):
            self.typed.clear()
        if self.screen in writable and not write(self.screen, self.shown):
            return GONE
        return 0

    def _ready(self, fd: int) -> tuple[list[int], list[int]]:
        """Wait until something can be read or written; return what."""
        # The child is read whatever the state of its input: only a screen that takes nothing holds it up.
        reads = [
            self.signals.fd,
            *([fd] if self.talking and len(self.shown) < FULL and not self.stops.stopped else []),
            *([self.keys.fd] if self.talking and len(self.typed) < FULL else []),
        ]
        writes = [*([fd] if self.talking and self.typed else []), *([self.screen] if self.shown else [])]
        # A child that has closed its terminal and not ended yet can only be asked.
        wait = None if self.talking or self.shown else 0.001
        return select.select(reads, writes, [], wait)[:2]

    def _resize(self) -> None:
        self.child.setwinsize(*termios.tcgetwinsize(self.keys.fd))

    def _listen(self, fd: int) -> None:
        """Take what the child writes."""
        held = len(self.stops.said)
        self.talking = read(fd, self.stops.said)
        if self.tap:
            self.tap(bytes(self.stops.said[held:]), termios.tcgetwinsize(self.keys.fd))
        self._pass_on()

    def _pass_on(self) -> None:
        self.stops.pass_on(self.hint.said, last=not self.talking)
        self.hint.pass_on(self.shown, last=not self.talking)
        if self.stops.stopped:
            self.hint.give_up(self.shown)

    def _type(self) -> int:
        """Take what is typed; return the code if that ends it, else 0."""
        keys = bytearray()
        more = read(self.keys.fd, keys)
        self.typed += keys
        self.stops.hear(keys)
        self.hint.give_up(self.shown)  # what still listens has not said its last words
        if self.ctrl_c_ends and self.stops.interrupted:
            return 128 + signal.SIGINT
        return 0 if more else GONE


def wake(typed: bytearray) -> None:
    """Have GO_ON come before what is typed; once, however often a program that does not read says that it stops."""
    if not typed.startswith(GO_ON):
        typed[:0] = GO_ON


def stop(keys: "Raw", signals: "Signals") -> int | None:
    """Stop this process's group until the shell brings it back to the foreground; the signal that ends it, if any.

    Where no shell minds its jobs, the kernel lets no Ctrl-Z stop them, and this returns at once.
    """
    keys.put_back()
    os.kill(0, signal.SIGTSTP)
    while not (number := signals.read()) and not _in_foreground(keys.fd):
        os.kill(0, signal.SIGTTIN)  # woken by `bg`: as if it had read on
        time.sleep(0.05)
    if not number:
        keys.make_raw()
    return number


def _in_foreground(fd: int) -> bool:
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:  # not the terminal of this session, or gone
        return True


class Stops:
    """Sees, in what a program says, that it has stopped, and in what is typed, whether the user wanted that."""

    def __init__(self, *, heeded: bool) -> None:
        self.said = bytearray()  # and not yet passed on to what is shown
        self.stopped = self.interrupted = False
        self._heeded = heeded
        self._keys = b""
        self._asked = -math.inf

    def pass_on(self, shown: bytearray, *, last: bool = False) -> None:
        """Pass on what is said up to STOPPED; the beginning of that, only if it is the `last` that is said."""
        at = self.said.find(STOPPED) if self._heeded else -1
        self.stopped = at >= 0
        held = 0 if last or not self._heeded else _overlap(self.said)
        end = at if self.stopped else len(self.said) - held
        shown += self.said[:end]
        del self.said[: end + (len(STOPPED) if self.stopped else 0)]

    def hear(self, keys: bytes | bytearray) -> None:
        """Hear what the user types."""
        self._keys += keys
        self.interrupted = _CTRL_C.search(self._keys) is not None
        if _CTRL_Z.search(self._keys):
            self._keys, self._asked = b"", time.monotonic()
        self._keys = self._keys[-_LONGEST_KEY:]

    def wanted(self) -> bool:
        """Return whether the user has typed Ctrl-Z just now; once for each."""
        asked, self._asked = self._asked, -math.inf
        return time.monotonic() < asked + _WANTED


class Hint:
    """Holds back what may be Claude's hint, and drops it if that is the last that is said.

    Only what begins as the hint does, after the end of the alternate screen, is held, and only until anything else is
    said or typed: nothing is ever changed between the bytes of a program that goes on.
    """

    def __init__(self, *, dropped: bool = False) -> None:
        """Hold nothing yet; unless it is `dropped`, all is passed on as it is said."""
        self.said = bytearray()  # and not yet passed on to what is shown
        self.dropped = dropped
        self._recent = b""  # the last that was passed on

    def pass_on(self, shown: bytearray, *, last: bool = False) -> None:
        """Pass on what is said but for the hint, or what may become one."""
        if not self.dropped:
            self.give_up(shown)
            return
        at = self.said.find(_HINT_BEGINS)
        if at < 0:
            self._show(shown, len(self.said) - (0 if last else _overlap(self.said, _HINT_BEGINS)))
            return
        self._show(shown, at)
        if not self._left_the_screen() or len(self.said) > _LONGEST_HINT:
            self.give_up(shown)
        elif last:
            hint = _HINT.fullmatch(self.said)
            shown += hint[1] if hint else self.said
            self.said.clear()

    def give_up(self, shown: bytearray) -> None:
        """Pass on all that is held."""
        self._show(shown, len(self.said))

    def _show(self, shown: bytearray, end: int) -> None:
        part = self.said[:end]
        shown += part
        self._recent = (self._recent + part)[-_LONGEST_HINT:]
        del self.said[:end]

    def _left_the_screen(self) -> bool:
        return self._recent.rfind(_MAIN) > self._recent.rfind(_ALTERNATE)


def _overlap(said: bytearray, word: bytes = STOPPED) -> int:
    """Return the length of the longest beginning of `word` with which `said` ends."""
    return next((size for size in range(len(word) - 1, 0, -1) if said.endswith(word[:size])), 0)


def read(fd: int, buffer: bytearray) -> bool:
    """Add what can be read now; False at the end, which a terminal without another side tells by an error."""
    try:
        data = os.read(fd, 1 << 16)
    except BlockingIOError:
        return True
    except OSError:
        return False
    buffer += data
    return bool(data)


def write(fd: int, buffer: bytearray) -> bool:
    """Write, and take from the buffer, what fits now; False where nobody can read it any more."""
    try:
        # No more than can be written without blocking where `fd` blocks.
        del buffer[: os.write(fd, buffer[: select.PIPE_BUF])]
    except BlockingIOError:
        pass
    except OSError:
        return False
    return True


@contextlib.contextmanager
def started(
    argv: Sequence[str], env: Mapping[str, str], size: tuple[int, int] | None = None
) -> Iterator["spawn[bytes]"]:
    """Start the child on a terminal of this size, else that of the user's; see that it has ended at the end."""
    import pexpect

    try:
        size = size or termios.tcgetwinsize(0)
        child: spawn[bytes] = pexpect.spawn(argv[0], list(argv[1:]), env=env, dimensions=size, preexec_fn=_raw_input)
    except (pexpect.ExceptionPexpect, OSError) as error:
        raise EngineError(f"cannot run {argv[0]}: {error}") from error
    try:
        os.set_blocking(child.child_fd, False)
        yield child
    finally:
        _end(child)


def _raw_input() -> None:
    """Let what is typed before the child sets up its terminal reach it as it is: unechoed, and Ctrl-C as a byte.

    Output keeps its line ends until the child says otherwise.
    """
    output = termios.tcgetattr(0)[tty.OFLAG]
    tty.setraw(0, termios.TCSANOW)
    mode = termios.tcgetattr(0)
    mode[tty.OFLAG] = output
    termios.tcsetattr(0, termios.TCSANOW, mode)


def _end(child: "spawn[bytes]") -> None:
    """End the child if it has not ended, and reap it."""
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGKILL):
        child.kill(number)
        deadline = time.monotonic() + 1
        while child.isalive() and time.monotonic() < deadline:
            time.sleep(0.005)
    child.ptyproc.delayafterclose = 0  # type: ignore[attr-defined]  # else close() sleeps
    child.close(force=False)


class Raw:
    """Puts a terminal in raw mode, and back.

    TCSANOW both times: the other two wait for a screen that may be stuck, or lose what was typed ahead.
    """

    def __init__(self, fd: int) -> None:
        self.fd, self.raw = fd, False

    def __enter__(self) -> Self:
        self.make_raw()
        return self

    def __exit__(self, *_: object) -> None:
        self.put_back()

    def make_raw(self) -> None:
        self._before = termios.tcgetattr(self.fd)
        tty.setraw(self.fd, termios.TCSANOW)
        self.raw = True

    def put_back(self) -> None:
        """Do nothing if it is back already: it is the shell's then."""
        if self.raw:
            self.raw = False
            with contextlib.suppress(termios.error):  # gone
                termios.tcsetattr(self.fd, termios.TCSANOW, self._before)


@contextlib.contextmanager
def reopened(fd: int) -> Iterator[int]:
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


class Signals:
    """Signals as a descriptor to select on, so that none cuts a fork or a clean-up in half."""

    def __enter__(self) -> Self:
        self.fd, self._writer = os.pipe()
        self._caught: list[int] = []
        for end in (self.fd, self._writer):
            os.set_blocking(end, False)
        # One that is ignored, or that Python did not set, stays as it is.
        old = {number: signal.getsignal(number) for number in (*_ENDING, signal.SIGWINCH)}
        self._old = {number: handler for number, handler in old.items() if handler not in (signal.SIG_IGN, None)}
        self._ending = self._old.keys() - {signal.SIGWINCH}
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        try:
            for number in self._old:
                signal.signal(number, self._catch)
        except BaseException:  # raised by a handler that is still the old one
            self.__exit__()
            raise
        return self

    def read(self) -> int | None:
        """Empty the descriptor; return the first signal that ends a session, if there was one."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 1 << 16)
        return self._caught[0] if self._caught else None

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        os.close(self.fd)
        os.close(self._writer)
        self._put_back()
        for caught in self._caught:
            signal.raise_signal(caught)

    def _put_back(self) -> None:
        """Put all handlers back, even if one that is back already raises."""
        left = list(self._old.items())
        try:
            while left:
                signal.signal(*left[-1])
                left.pop()
        finally:
            for number, handler in left:
                signal.signal(number, handler)

    def _catch(self, number: int, _frame: FrameType | None) -> None:
        """Note a signal: none is lost while handlers change. The byte in the descriptor only wakes the loop."""
        if number in self._ending:
            self._caught.append(number)
