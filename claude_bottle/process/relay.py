"""Relay TCP connections to a server in a bottle, all over one pipe in each direction.

Both ends are here. The one in the launcher listens; the one in the bottle runs as the agent's user, gets this file on
stdin, and connects to the server. So this needs only Python 3.9 and the standard library, and imports nothing of
claude_bottle.

A frame is a head, which has the kind, the connection's number and the size, and at most _BLOCK bytes. Each end may send
as many bytes of a connection as the other has granted, WINDOW at first: a reader that is slow or stops holds up its own
connection alone, and neither end holds more than MOST times WINDOW bytes for each direction. Only the launcher's end
opens connections. What the other end sends may be the work of an attacker: whatever is no relay's is Malformed.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Callable  # noqa: UP035  (Python 3.9)

MOST = 50  # connections at once
WINDOW = 1 << 18  # bytes of one connection, in one direction, that are under way at most
_BLOCK = 1 << 14  # bytes of a frame
_FULL = 1 << 18  # bytes for the pipe; while there are more, nothing is added
_HEAD = struct.Struct(">BIH")
_COUNT = struct.Struct(">I")
_HELLO = b"claude-bottle relay 1"
# END: the sender has no more bytes. RESET: the connection is over, in both directions. REFUSED: the same, for want of a
# server. MORE grants bytes. After END come only MORE and RESET, after RESET nothing.
READY, OPEN, DATA, MORE, END, RESET, REFUSED = range(1, 8)
_SIZES = {
    READY: (len(_HELLO), len(_HELLO)),
    DATA: (1, _BLOCK),
    MORE: (_COUNT.size, _COUNT.size),
    **dict.fromkeys((OPEN, END, RESET, REFUSED), (0, 0)),
}
_ABORT = struct.pack("ii", 1, 0)  # for SO_LINGER: close() resets the connection
_UNDER_WAY = (0, errno.EINPROGRESS)


class Malformed(Exception):
    """The other end has sent what no relay sends."""


def frame(kind: int, number: int, data: bytes = b"") -> bytes:
    """Return a frame of one connection, or of none, which is number 0."""
    return _HEAD.pack(kind, number, len(data)) + data


class _Stream:
    """A connection: its socket, and what is under way between it and the other end."""

    def __init__(self, connection: socket.socket | None, addresses: Sequence[tuple[str, int]] = ()) -> None:
        self.connection = connection  # None once it is over, or if there is none yet
        self.addresses = list(addresses)  # still to be tried
        self.connecting = False
        self.pending = bytearray()  # from the other end
        self.credit = WINDOW  # bytes that may be sent to the other end
        self.allowed = WINDOW  # bytes that the other end may send
        self.owed = 0  # bytes written since the last MORE
        self.sent_last = self.got_last = False  # END, RESET or REFUSED
        self.sent_reset = self.shut = False

    def waits_to_write(self) -> bool:
        return self.connection is not None and (self.connecting or bool(self.pending))

    def may_read(self) -> bool:
        return self.connection is not None and not self.connecting and not self.sent_last and self.credit > 0

    def drop(self) -> None:
        """Reset the connection."""
        if self.connection:
            abort(self.connection)
        self.connection, self.connecting = None, False
        self.addresses.clear()
        self.pending.clear()


class Relay:
    """One end: reads frames from the descriptor `source` and writes to `sink`, neither of them blocking."""

    def __init__(self, source: int, sink: int, *, greeted: bool) -> None:
        """Expect the other end's greeting first, unless it is `greeted`."""
        self.source, self.sink, self.greeted = source, sink, greeted
        for each in (source, sink):
            os.set_blocking(each, False)
        self.out = bytearray()  # for the sink
        self.streams: dict[int, _Stream] = {}
        self.last = 0  # the highest number so far
        self._in = bytearray()

    def turn(self, others: Sequence[int] = ()) -> list[int]:
        """Wait, and copy what can be copied; return those of `others` that can be read.

        Raises EOFError if the other end has ended, Malformed.
        """
        readers, writers = dict[int, int](), dict[int, int]()  # numbers by descriptors
        for number, stream in self.streams.items():
            if stream.connection and stream.may_read() and len(self.out) < _FULL:
                readers[stream.connection.fileno()] = number
            if stream.connection and stream.waits_to_write():
                writers[stream.connection.fileno()] = number
        sink = [self.sink] if self.out else []
        reads, writes, _ = select.select([self.source, *others, *readers], [*sink, *writers], [])
        for number in _numbers(writers, writes):
            self._each(number, self._write)
        for number in _numbers(readers, reads):
            self._each(number, self._read)
        if self.sink in writes:
            self._flush()
        if self.source in reads:
            self._receive()
        return [each for each in others if each in reads]

    def close(self) -> None:
        """Reset every connection."""
        for stream in self.streams.values():
            stream.drop()
        self.streams.clear()

    def send(self, kind: int, number: int, data: bytes = b"") -> None:
        """Add a frame to what is written to the other end."""
        self.out += frame(kind, number, data)

    def opened(self, number: int) -> None:
        """Take a connection that the other end opens; raises Malformed."""
        raise Malformed(number)

    def refused(self) -> None:
        """Hear that a connection found no server."""

    def finish(self, number: int, stream: _Stream) -> None:
        """Send the last frame of a connection that is over."""
        stream.drop()
        if not stream.sent_reset:
            self.send(RESET, number)
        stream.sent_last = stream.sent_reset = True
        self._settle(number, stream)

    def _each(self, number: int, act: Callable[[int, _Stream, socket.socket], None]) -> None:
        """Read or write a connection; what fails is over."""
        stream = self.streams.get(number)
        if stream is None or stream.connection is None:  # has just ended
            return
        try:
            act(number, stream, stream.connection)
        except BlockingIOError:
            pass
        except OSError:
            self.finish(number, stream)

    def _read(self, number: int, stream: _Stream, connection: socket.socket) -> None:
        if not stream.may_read():
            return
        data = connection.recv(min(_BLOCK, stream.credit))
        stream.credit -= len(data)
        stream.sent_last = not data
        self.send(DATA if data else END, number, data)
        self._settle(number, stream)

    def _write(self, number: int, stream: _Stream, connection: socket.socket) -> None:
        if stream.connecting:
            self.connected(number, stream, connection)
            return
        sent = connection.send(stream.pending)
        del stream.pending[:sent]
        stream.owed += sent
        if stream.owed >= WINDOW // 2 and not stream.got_last:
            self.send(MORE, number, _COUNT.pack(stream.owed))
            stream.allowed += stream.owed
            stream.owed = 0
        self._settle(number, stream)

    def connected(self, number: int, stream: _Stream, connection: socket.socket) -> None:
        """Hear that an attempt to connect is over."""

    def _settle(self, number: int, stream: _Stream) -> None:
        """Pass the end of the other end's bytes on, and forget a connection of which nothing more can come."""
        if not stream.got_last or stream.pending or stream.connecting:
            return
        if stream.connection and not stream.shut:
            stream.shut = True
            with suppress(OSError):  # reading will tell
                stream.connection.shutdown(socket.SHUT_WR)
        if stream.sent_last:
            if stream.connection:
                stream.connection.close()
            del self.streams[number]

    def _flush(self) -> None:
        try:
            del self.out[: os.write(self.sink, self.out[:_FULL])]
        except BlockingIOError:
            pass
        except OSError:
            raise EOFError from None

    def _receive(self) -> None:
        try:
            data = os.read(self.source, _FULL)
        except BlockingIOError:
            return
        if not data:
            raise EOFError
        self._in += data
        for kind, number, part in self._frames():
            self._take(kind, number, part)

    def _frames(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield the frames that are whole, and keep the rest, which is less than one."""
        at = 0
        while len(self._in) - at >= _HEAD.size:
            kind, number, size = _HEAD.unpack_from(self._in, at)
            least, most = _SIZES.get(kind, (1, 0))
            if not least <= size <= most:
                raise Malformed(kind)
            end = at + _HEAD.size + size
            if len(self._in) < end:
                break
            yield kind, number, bytes(self._in[at + _HEAD.size : end])
            at = end
        del self._in[:at]

    def _take(self, kind: int, number: int, data: bytes) -> None:
        if not self.greeted:
            if (kind, number, data) != (READY, 0, _HELLO):
                raise Malformed(kind)
            self.greeted = True
            return
        stream = self.streams.get(number)
        if kind == OPEN:
            self.opened(number)
        elif stream:
            self._take_of(stream, kind, number, data)
        # These may cross the last frame of this end.
        elif kind not in (MORE, RESET) or not 0 < number <= self.last:
            raise Malformed(kind)

    def _take_of(self, stream: _Stream, kind: int, number: int, data: bytes) -> None:
        if kind == MORE:
            [more] = _COUNT.unpack(data)
            if not 0 < more <= WINDOW - stream.credit:
                raise Malformed(kind)
            stream.credit += more
            return
        if kind == READY or (stream.got_last and kind != RESET) or len(data) > stream.allowed:
            raise Malformed(kind)
        if kind == DATA:
            stream.allowed -= len(data)
            stream.pending += data if stream.connection else b""
            return
        stream.got_last = True
        if kind == END:
            self._settle(number, stream)
            return
        if kind == REFUSED:
            self.refused()
        stream.sent_reset |= stream.sent_last  # an answer is for an end that still waits
        self.finish(number, stream)


class Listening(Relay):
    """The launcher's end: accepts what connects to `listener`; `notify` is called with what the user may want to know.

    The other end is not to be trusted.
    """

    def __init__(self, source: int, sink: int, listener: socket.socket, notify: Callable[[str], None]) -> None:
        """Accept nothing before the other end is there."""
        super().__init__(source, sink, greeted=False)
        self._listener, self._notify = listener, notify
        self._told = set[str]()
        listener.setblocking(False)

    def turn(self, others: Sequence[int] = ()) -> list[int]:
        """Do the same, and accept a connection."""
        listener = [self._listener.fileno()] if self.greeted else []
        ready = super().turn((*listener, *others))
        if listener and listener[0] in ready:
            with suppress(OSError):  # it has gone again
                self._accept(self._listener.accept()[0])
        return [each for each in ready if each not in listener]

    def refused(self) -> None:
        """Tell it once."""
        self._tell("nothing listens on that port in the bottle, so far")

    def _accept(self, connection: socket.socket) -> None:
        if len(self.streams) >= MOST or len(self.out) >= _FULL:
            abort(connection)
            why = f"{MOST} at once are the most" if len(self.streams) >= MOST else "the bottle takes nothing"
            self._tell(f"a connection was refused: {why}")
            return
        _prepare(connection)
        self.last += 1
        self.streams[self.last] = _Stream(connection)
        self.send(OPEN, self.last)

    def _tell(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            self._notify(message)


class Connecting(Relay):
    """The bottle's end: connects to a port of its own loopback, of IPv4 or else of IPv6."""

    def __init__(self, source: int, sink: int, port: int) -> None:
        """Greet the other end."""
        super().__init__(source, sink, greeted=True)
        self._addresses = [("127.0.0.1", port), ("::1", port)]
        self.send(READY, 0, _HELLO)

    def opened(self, number: int) -> None:
        """Connect to the server."""
        if number <= self.last:
            raise Malformed(number)
        self.last = number
        stream = self.streams[number] = _Stream(None, self._addresses)
        self._connect(number, stream)

    def connected(self, number: int, stream: _Stream, connection: socket.socket) -> None:
        """Go on with the connection, or with the next address."""
        stream.connecting = False
        if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            connection.close()
            self._connect(number, stream)
        else:
            stream.addresses.clear()
            self._settle(number, stream)

    def _connect(self, number: int, stream: _Stream) -> None:
        stream.connection = None
        while stream.addresses:
            address = stream.addresses.pop(0)
            with suppress(OSError):  # there is no IPv6
                connection = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
                _prepare(connection)
                if connection.connect_ex(address) in _UNDER_WAY:
                    stream.connection, stream.connecting = connection, True
                    return
                connection.close()
        self.send(REFUSED, number)
        stream.sent_last = stream.sent_reset = True
        self.finish(number, stream)


def _prepare(connection: socket.socket) -> None:
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def abort(connection: socket.socket) -> None:
    """Close a connection so that its other side sees it reset."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    connection.close()


def _numbers(known: dict[int, int], ready: Sequence[int]) -> list[int]:
    return [known[each] for each in ready if each in known]


def main(port: int) -> None:
    """Be the bottle's end, over stdin and stdout, until the launcher's has ended."""
    relay = Connecting(0, 1, port)
    with suppress(EOFError):
        while True:
            relay.turn()
