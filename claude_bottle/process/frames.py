"""What a terminal and the launcher that it has joined say to each other: frames of a kind, a length and data. Pure."""

import struct
from collections.abc import Iterator

# From the terminal: keys; its rows and columns, first of all; that it goes on after a stop.
KEYS, SIZE, GO = b"k", b"s", b"g"
# From the launcher: what is shown; that the program has stopped, as the user of this terminal wanted; its exit code.
SHOWN, STOPPED, ENDED = b"o", b"z", b"x"
LONGEST = 1 << 16  # bytes of data in a frame
_HEAD, _SIZE, _CODE = struct.Struct("!cI"), struct.Struct("!HH"), struct.Struct("!B")


def frames(kind: bytes, data: bytes = b"") -> Iterator[bytes]:
    """Yield data as frames of a kind, one even if there is none."""
    for start in range(0, max(len(data), 1), LONGEST):
        part = data[start : start + LONGEST]
        yield _HEAD.pack(kind, len(part)) + part


def size(rows: int, columns: int) -> bytes:
    """Return the data of a SIZE."""
    return _SIZE.pack(rows, columns)


def read_size(data: bytes) -> tuple[int, int]:
    """Return rows and columns; raises ValueError."""
    if len(data) != _SIZE.size:
        raise ValueError("no size")
    rows, columns = _SIZE.unpack(data)
    return rows, columns


def code(number: int) -> bytes:
    """Return the data of an ENDED."""
    return _CODE.pack(number & 0xFF)


def read_code(data: bytes) -> int:
    """Return an exit code; raises ValueError."""
    if len(data) != _CODE.size:
        raise ValueError("no code")
    return int(data[0])


class Frames:
    """Frames out of a stream of bytes."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the kind and the data of each whole frame; raises ValueError at one that is too long."""
        self._rest += data
        while len(self._rest) >= _HEAD.size:
            kind, length = _HEAD.unpack_from(self._rest)
            if length > LONGEST:
                raise ValueError("a frame is too long")
            end = _HEAD.size + length
            if len(self._rest) < end:
                return
            frame = bytes(self._rest[_HEAD.size : end])
            del self._rest[:end]
            yield kind, frame
