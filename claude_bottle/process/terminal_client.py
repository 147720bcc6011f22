"""The user's terminal, joined to that of a session in the background, which `terminal_host` holds."""

import os
import re
import select
import socket
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from claude_bottle.process import frames, terminal
from claude_bottle.process.frames import Frames
from claude_bottle.process.modes import Modes
from claude_bottle.process.terminal_host import address

DETACH = "Ctrl-\\ d"  # for people
# As bytes, and as the keyboard's extended codes have them: kitty's with Caps Lock and Num Lock, and xterm's; then what
# kitty says of a key that is held down or let go.
_FIRST = rb"(?:\x1c|\x1b\[92(?::\d*)*;(?:5|69|133|197)(?::1)?(?:;\d*)?u|\x1b\[27;5;92~)"
_LET_GO = rb"(?:\x1b\[[\d:]+;\d+:[23]u)*"
_SECOND = rb"(?:d|\x1b\[100(?::\d*)*(?:;(?:1|65|129|193)?(?::1)?(?:;\d*)?)?u)"
_AT_THE_END = re.compile(_FIRST + _LET_GO + rb"(?P<second>" + _SECOND + rb")?\Z")
_AGAIN = re.compile(_FIRST + _LET_GO)
_LATER = re.compile(_LET_GO + rb"(?P<second>" + _SECOND + rb")?")
_LONGEST = 64  # bytes that are typed at once, and not pasted


class Lost(Exception):
    """The launcher went away and has not said how its program ended."""


class Keys:
    """What is typed, without the keys that detach: the first of them is held back until the next one is known."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return what is for the program, and whether the terminal is to be detached."""
        if self._held:
            match = _LATER.match(data)
            if match and match["second"]:
                return b"", True
            if match and match.end() == len(data):
                self._held += data
                return b"", False
            held, self._held = self._held, b""
            if _AGAIN.fullmatch(data):  # of two, one is for the program
                return held, False
            data = held + data
        match = _AT_THE_END.search(data) if len(data) <= _LONGEST else None
        if not match:
            return data, False
        self._held = b"" if match["second"] else match[0]
        return data[: match.start()], bool(match["second"])


@contextmanager
def connected(path: Path) -> Iterator[socket.socket]:
    """Yield a connection to the launcher that listens at a path; raises OSError."""
    with socket.socket(socket.AF_UNIX) as connection:
        with address(path) as name:
            connection.connect(name)
        connection.setblocking(False)
        yield connection


def join(connection: socket.socket) -> int | None:
    """Join the user's terminal, descriptors 0 and 1; return the program's exit code, None if the user has detached.

    Main thread only. Raises SystemExit(129) where the user's terminal goes away. HUP, INT, QUIT and TERM detach, too:
    their own handlers are called once the terminal is put back. Raises Lost.
    """
    try:
        with terminal.Signals() as signals, terminal.Raw(0) as keys, terminal.reopened(1) as screen:
            joined = _Joined(connection, keys, screen, signals)
            try:
                return joined.copy()
            finally:
                joined.put_back()
    except termios.error:
        raise SystemExit(terminal.GONE) from None


class _Joined:
    """The terminal and the connection: each is copied to the other."""

    def __init__(self, connection: socket.socket, keys: terminal.Raw, screen: int, signals: terminal.Signals) -> None:
        self.connection, self.keys, self.screen, self.signals = connection, keys, screen, signals
        self.said, self.shown = bytearray(), bytearray()
        self.typed, self.frames, self.modes = Keys(), Frames(), Modes()
        self.code: int | None = None  # the program's
        self.stopped = self.detached = False

    def copy(self) -> int | None:
        """Copy until the program has ended, and all that it wrote is on the screen, or the terminal is detached."""
        self._say_size()
        while not self.detached:
            if self.stopped and not self.shown:
                self.stopped = False
                if number := terminal.stop(self.keys, self.signals):
                    raise SystemExit(128 + number)
                self._say_size()
                self._say(frames.GO)
            if self.code is not None and not self.shown:
                return self.code
            if code := self._turn():
                raise SystemExit(code)
        return None

    def put_back(self) -> None:
        """Switch off what the program has switched on: it goes on, or could not do it itself."""
        if self.keys.raw and os.isatty(self.screen):
            cut = b"\x18" if self.shown else b""  # what is not shown any more may have left half a code
            below = b"" if self.code is not None or self.modes.has_own_screen else b"\x1b[999H\r\n"
            terminal.write(self.screen, bytearray(cut + self.modes.off() + below))

    def _turn(self) -> int:
        """Copy what can be copied now; return the code if that ends it, else 0."""
        reads = [
            self.signals.fd,
            *([self.connection.fileno()] if self._is_listening() and len(self.shown) < terminal.FULL else []),
            *([self.keys.fd] if len(self.said) < terminal.FULL else []),
        ]
        writes = [*([self.connection.fileno()] if self.said else []), *([self.screen] if self.shown else [])]
        readable, writable, _ = select.select(reads, writes, [])
        if self.signals.fd in readable:
            if number := self.signals.read():
                return 128 + number
            self._say_size()
        if self.connection.fileno() in readable:
            self._listen()
        if self.keys.fd in readable and not self._type():
            return terminal.GONE
        if self.connection.fileno() in writable:
            self._send()
        if self.screen in writable and not terminal.write(self.screen, self.shown):
            return terminal.GONE
        return 0

    def _is_listening(self) -> bool:
        """Return whether more is to come: a stop comes into force after what was shown before it."""
        return self.code is None and not self.stopped

    def _listen(self) -> None:
        try:
            data = self.connection.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            raise Lost
        try:
            for kind, shown in self.frames.feed(data):
                self._obey(kind, shown)
        except ValueError:
            raise Lost from None

    def _obey(self, kind: bytes, data: bytes) -> None:
        if kind == frames.SHOWN:
            self.modes.feed(data)
            self.shown += data
        elif kind == frames.STOPPED:
            self.stopped = True
        elif kind == frames.ENDED:
            self.code = frames.read_code(data)

    def _type(self) -> bool:
        """Take what is typed; False if the terminal is gone."""
        typed = bytearray()
        if not terminal.read(self.keys.fd, typed):
            return False
        keys, self.detached = self.typed.feed(bytes(typed))
        if keys:
            self._say(frames.KEYS, keys)
        return True

    def _say_size(self) -> None:
        rows, columns = termios.tcgetwinsize(self.keys.fd)
        self._say(frames.SIZE, frames.size(rows, columns))

    def _say(self, kind: bytes, data: bytes = b"") -> None:
        for frame in frames.frames(kind, data):
            self.said += frame

    def _send(self) -> None:
        try:
            del self.said[: self.connection.send(self.said)]
        except BlockingIOError:
            pass
        except OSError:
            self.said.clear()  # the end is read, with what came before it
