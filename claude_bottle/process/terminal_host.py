"""The terminal of a session in the background: the launcher holds it, and the user's terminals join it by a socket.

The socket is in a folder that only its user can enter. The program always finds a reader: what a terminal cannot take
in time is dropped, and the program draws its screen anew for it.
"""

import contextlib
import os
import select
import socket
import termios
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from claude_bottle.process import frames, terminal
from claude_bottle.process.frames import Frames
from claude_bottle.process.modes import Modes

if TYPE_CHECKING:
    from claude_bottle.process.terminal import Child

SIZE = (24, 80)  # rows and columns until a terminal joins, if none is known
_PATH = 100  # bytes of a socket's path: 104 with the NUL on BSD and macOS, 108 on Linux (unix(7))
_MOST = 16  # terminals at once
_BEHIND = 1 << 20  # bytes; of a terminal that has not taken as many, all is dropped
_SHRUNK = 0.25  # seconds for docker's client to see the other size, which makes the program draw anew
_UNDRAWN = 1.0  # seconds without output after that, until it is tried again
_TRIES = 5
_HELD = 4 * terminal.FULL  # bytes; more than a terminal, its client and the socket can hold before its GO
_PARTING = 2.0  # seconds for the terminals to take the last output
_CUT = b"\x18"  # what was cut off ends here
_CLEAR = b"\x1b[H\x1b[2J"  # an empty screen: that of the program, if it has another than the user's shell


@contextlib.contextmanager
def address(path: Path) -> Iterator[str]:
    """Yield a name for a socket's path, however long that is; raises OSError without one."""
    if len(os.fsencode(path)) <= _PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        short = Path(f"/proc/self/fd/{folder}")
        if not short.exists():
            raise OSError(0, "the path is too long for a socket; set TMPDIR to a shorter one", str(path))
        yield str(short / path.name)
    finally:
        os.close(folder)


def listen(path: Path) -> socket.socket:
    """Return a socket that listens at a path in a folder of mode 700; raises OSError."""
    listening = socket.socket(socket.AF_UNIX)
    try:
        with address(path) as name:
            listening.bind(name)
        path.chmod(0o600)
        listening.listen(_MOST)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


def size() -> tuple[int, int]:
    """Return rows and columns of the terminal of stdin, SIZE without one."""
    try:
        rows, columns = termios.tcgetwinsize(0)
    except termios.error:
        return SIZE
    return (rows, columns) if rows and columns else SIZE


def serve(argv: Sequence[str], env: Mapping[str, str], listening: socket.socket, size: tuple[int, int]) -> int:
    """Run `argv`, a program that stops, on a terminal of this size that others join; return its exit code.

    Main thread only. Signals are as in `terminal.run`. Raises EngineError where `argv` cannot be started.
    """
    with terminal.Signals() as signals, terminal.started(argv, env, size) as child:
        host = _Host(child, listening, signals, size)
        code = terminal.GONE
        try:
            code = host.run()
        finally:
            host.part(code)
        return code


class _Terminal:
    """One of the user's terminals; `size` is None until it has said so, and only then it is shown anything."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.size: tuple[int, int] | None = None
        self.stops = terminal.Stops(heeded=True)  # hears what is typed here
        self.frames = Frames()
        self.paused = self.behind = False
        self.keys = bytearray()  # typed, and not yet taken
        self._queue: deque[bytes] = deque()
        self._waiting = self._sent = 0  # bytes of the queue, and those of its first that are sent

    def fileno(self) -> int:
        return self.connection.fileno()

    @property
    def is_full(self) -> bool:
        """Return whether its keys fill their buffer; of one that is stopped its GO is still to be read behind them."""
        return len(self.keys) >= (_HELD if self.paused else terminal.FULL)

    @property
    def is_gone(self) -> bool:
        """Return whether its other end is closed, even if there is more to read."""
        poll = select.poll()
        poll.register(self.connection, 0)
        return bool(poll.poll(0))

    @property
    def is_waiting(self) -> bool:
        return bool(self._queue)

    def show(self, data: bytes) -> None:
        """Show it, unless the terminal is stopped, or so far behind that it gets a new screen instead."""
        if not self.size or self.paused or self.behind:
            return
        self.send(frames.SHOWN, data)
        if self._waiting > _BEHIND:
            self.behind = True
            first = self._queue[0]  # which may be half sent; once it is, there is room for a new screen
            self._queue, self._waiting = deque([first]), len(first)

    def send(self, kind: bytes, data: bytes = b"") -> None:
        for frame in frames.frames(kind, data):
            self._queue.append(frame)
            self._waiting += len(frame)

    def flush(self) -> bool:
        """Send what can be sent now; False if the terminal is gone."""
        try:
            while self._queue:
                sent = self.connection.send(memoryview(self._queue[0])[self._sent :])
                self._sent += sent
                if self._sent == len(self._queue[0]):
                    self._waiting -= len(self._queue.popleft())
                    self._sent = 0
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True

    def read(self) -> bytes | None:
        """Return what can be read now; None at the end."""
        try:
            return self.connection.recv(1 << 16) or None
        except BlockingIOError:
            return b""
        except OSError:
            return None


class _Host:
    """The program's terminal and all that have joined it: what it writes goes to all, what is typed comes from any."""

    def __init__(
        self, child: "Child", listening: socket.socket, signals: terminal.Signals, size: tuple[int, int]
    ) -> None:
        self.child, self.listening, self.signals, self.size = child, listening, signals, size
        self.terminals: list[_Terminal] = []
        self.modes, self.stops, self.hint = Modes(), terminal.Stops(heeded=True), terminal.Hint(dropped=True)
        self.typed = bytearray()
        self.talking = True
        self.begun = False  # it has shown something
        self.sleeping = False  # stopped, until the terminal at which that was typed goes on
        self._redraw = _Redraw(child)

    def run(self) -> int:
        """Run until the program has ended, or a signal ends it; return its exit code, or 128 + n."""
        while self.talking or self.child.isalive():
            if number := self._turn():
                return 128 + number
        ended = self.child.exitstatus
        return ended if ended is not None else 128 + (self.child.signalstatus or 0)

    def part(self, code: int) -> None:
        """Give the terminals the last output and the exit code."""
        with contextlib.suppress(OSError):
            self.listening.close()
        for each in self.terminals:
            each.send(frames.ENDED, frames.code(code))
        end = time.monotonic() + _PARTING
        while self.terminals and (left := end - time.monotonic()) > 0:
            for each in select.select([], self.terminals, [], left)[1]:
                if not each.flush() or not each.is_waiting:
                    each.connection.close()
                    self.terminals.remove(each)

    def _turn(self) -> int:
        """Do what can be done now; return the signal that ends it, else 0."""
        fd = self.child.child_fd
        readable, writable = self._ready(fd)
        if self.signals.fd in readable and (number := self.signals.read()):
            return number
        if fd in readable:
            self._listen()
        for each in [each for each in self.terminals if each in readable]:
            self._hear(each)
        if self.listening in readable:
            self._accept()
        if fd in writable and not terminal.write(fd, self.typed):
            self.typed.clear()
        for each in [each for each in self.terminals if each in writable]:
            self._flush(each)
        self._take()
        self._redraw.turn(self.size)
        return 0

    def _ready(self, fd: int) -> tuple[list[Any], list[Any]]:
        reads: list[Any] = [
            *(self.signals.fd, self.listening),
            *([fd] if self.talking else []),  # even if it sleeps: its end is to be seen, and no output may hold that up
            # Who pastes more than the program takes must wait, and nobody else.
            *(each for each in self.terminals if not each.is_full),
        ]
        writes: list[Any] = [
            *([fd] if self.talking and self.typed else []),
            *(each for each in self.terminals if each.is_waiting),
        ]
        # A child that has closed its terminal and not ended yet can only be asked.
        wait = self._redraw.wait() if self.talking else 0.001
        return select.select(reads, writes, [], wait)[:2]

    def _listen(self) -> None:
        """Take what the program writes."""
        self.talking = terminal.read(self.child.child_fd, self.stops.said)
        self._redraw.drawn = True
        self._pass_on()

    def _pass_on(self) -> None:
        """Show what the program has written; while it sleeps nobody sees that, and who goes on gets a new screen."""
        while True:
            shown = bytearray()
            self.stops.pass_on(self.hint.said, last=not self.talking)
            self.hint.pass_on(shown, last=not self.talking)
            if self.stops.stopped:
                self.hint.give_up(shown)
            self._show(bytes(shown))
            if not self.stops.stopped:
                return
            self.sleeping = self.sleeping or self._is_wanted()
            if not self.sleeping:
                self._wake()

    def _show(self, shown: bytes) -> None:
        if shown:
            self.begun = True
            self.modes.feed(shown)
            for each in self.terminals:
                each.show(shown)

    def _is_wanted(self) -> bool:
        """Stop the terminals at which a stop was typed; return whether the program is to stop: if no other shows it."""
        asked = [each for each in self.terminals if each.stops.wanted()]
        for each in asked:
            each.send(frames.STOPPED)
            each.paused = True
        return bool(asked) and all(each.paused for each in self.terminals if each.size)

    def _wake(self) -> None:
        self.sleeping = False
        terminal.wake(self.typed)

    def _go_on(self) -> None:
        """Wake the program if it sleeps."""
        if self.sleeping:
            self._wake()

    def _take(self) -> None:
        """Take the keys of the terminals if there is room."""
        for each in self.terminals:
            if each.keys and len(self.typed) < terminal.FULL:
                self.typed += each.keys
                each.keys.clear()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self.listening.accept()
            connection.setblocking(False)
            if len(self.terminals) == _MOST:
                for gone in [each for each in self.terminals if each.is_gone]:
                    self._let_go(gone)
            if len(self.terminals) < _MOST:
                self.terminals.append(_Terminal(connection))
            else:
                connection.close()

    def _hear(self, each: _Terminal) -> None:
        """Take what a terminal says; one that says what none of ours does is let go."""
        data = each.read()
        try:
            if data is None:
                raise ValueError("gone")
            for kind, said in each.frames.feed(data):
                self._heard(each, kind, said)
        except ValueError:
            self._let_go(each)

    def _heard(self, each: _Terminal, kind: bytes, said: bytes) -> None:
        if kind == frames.KEYS:
            each.stops.hear(said)
            each.keys += said
            held = bytearray()
            self.hint.give_up(held)  # what still listens has not said its last words
            self._show(bytes(held))
        elif kind == frames.SIZE:
            first, each.size = each.size is None, frames.read_size(said)
            if first:
                self._join(each)
            self._fit()
        elif kind == frames.GO:
            each.paused = False
            self._join(each)

    def _join(self, each: _Terminal) -> None:
        """Give a terminal the modes, and a new screen; what is on it stays until the program shows something."""
        self._go_on()
        each.show(_CUT + self.modes.on() + (_CLEAR if self.begun else b""))
        self._redraw.start()

    def _fit(self) -> None:
        """Have the program fit the smallest terminal, so that all show the same."""
        sizes = [each.size for each in self.terminals if each.size and all(each.size)]
        if sizes:
            self.size = (min(rows for rows, _ in sizes), min(columns for _, columns in sizes))

    def _flush(self, each: _Terminal) -> None:
        if not each.flush():
            self._let_go(each)
        elif each.behind and not each.is_waiting:
            each.behind = False
            each.show(_CUT + self.modes.off() + self.modes.on() + _CLEAR)
            self._redraw.start()

    def _let_go(self, each: _Terminal) -> None:
        each.connection.close()
        self.terminals.remove(each)
        if len(self.typed) < _HELD:  # it may have typed, and left
            self.typed += each.keys
        self._fit()
        if not any(each.paused for each in self.terminals):
            self._go_on()


class _Redraw:
    """Has the program draw its screen anew, by another size for a moment: no program minds a size that it has."""

    def __init__(self, child: "Child") -> None:
        self.drawn = False
        self._child = child
        self._size = child.getwinsize()  # that the program was given
        self._tries = 0
        self._next: float | None = None  # when something is to be done
        self._shrunk = False

    def start(self) -> None:
        """Have it drawn; a request that comes meanwhile is met by the same."""
        self._tries, self.drawn = _TRIES, False
        if not self._shrunk:
            self._next = time.monotonic()

    def wait(self) -> float | None:
        """Return the seconds until something is to be done; None if nothing is."""
        return None if self._next is None else max(0.0, self._next - time.monotonic())

    def turn(self, size: tuple[int, int]) -> None:
        """Do what is to be done, for a program that should have this size."""
        now = time.monotonic()
        if size != self._size and not self._shrunk:
            self._set(size)
        if self._next is None:
            return
        if now >= self._next and self._shrunk:
            self._shrunk, self.drawn, self._next = False, False, now + _UNDRAWN
            self._set(size)
        elif now >= self._next and self._tries and not self.drawn:
            self._tries, self._shrunk, self._next = self._tries - 1, True, now + _SHRUNK
            rows, columns = size
            self._set((rows - 1 if rows > 1 else rows + 1, columns))
        elif now >= self._next:
            self._next = None

    def _set(self, size: tuple[int, int]) -> None:
        self._size = size
        self._child.setwinsize(*size)
