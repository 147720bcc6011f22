"""Read from a pack how large its objects are, before git unpacks any of them (gitformat-pack(5))."""

import os
import zlib
from collections.abc import Iterator

from claude_bottle.errors import RepositoryError

HEAD = 12  # bytes before the first object
_BLOCK = 1 << 16  # bytes that are read, and unpacked, at once
_SMALL = 512  # bytes that a small object fits into
_DIGITS = 9  # bytes of a size: 60 bits of it or more
_LONGEST = 2 * _DIGITS  # bytes at the start of a delta with the sizes of its base and of its result
_PLAIN, _BY_OFFSET, _BY_NAME = range(1, 5), 6, 7  # kinds of objects: whole, and deltas to another


def sizes(pack: int, start: int, name: int) -> Iterator[int]:
    """Yield the bytes of all that the pack at `start` of a file asks git to unpack, each before it is unpacked here.

    That is each object's size; of a delta, its own and that of its result. `pack` is a file descriptor, whose position
    stays, and `name` the bytes of an object's name. Only a block is in memory at a time. RepositoryError if it is no
    pack.
    """
    if os.pread(pack, 4, start) != b"PACK":
        raise RepositoryError("the bundle has no pack")
    reader = _Reader(pack, start + HEAD)
    for _ in range(count(pack, start)):
        kind, size = reader.head()
        yield size
        if kind == _BY_OFFSET:
            reader.number(0)
        elif kind == _BY_NAME:
            reader.skip(name)
        elif kind not in _PLAIN:
            raise _malformed()
        begun = reader.unpacked(size)
        if kind not in _PLAIN:
            yield _result(begun)


def count(pack: int, start: int) -> int:
    """Return the number of objects that a pack says it has."""
    return int.from_bytes(os.pread(pack, 4, start + 8))


class _Reader:
    """A pack that is read from its first object on."""

    def __init__(self, pack: int, start: int) -> None:
        self._pack, self._next = pack, start
        self._data, self._at = b"", 0

    def head(self) -> tuple[int, int]:
        """Read an object's kind and size."""
        first = self._byte()
        return first >> 4 & 7, first & 15 | (self.number(4) if first & 128 else 0)

    def number(self, shift: int) -> int:
        """Read a number whose least digits come first, of 7 bits each, the first one shifted."""
        found = 0
        for digit in range(_DIGITS):
            byte = self._byte()
            found |= (byte & 127) << 7 * digit + shift
            if byte < 128:
                return found
        raise _malformed()

    def skip(self, length: int) -> None:
        """Read past some bytes."""
        for _ in range(length):
            self._byte()

    def unpacked(self, size: int) -> bytes:
        """Read past a compressed object that must have `size` bytes; return the first _LONGEST of them."""
        stream, left, begun, data, step = zlib.decompressobj(), size, b"", b"", _SMALL
        try:
            while not stream.eof:
                if not data:
                    data, step = self._some(step), _BLOCK
                out = stream.decompress(data, _BLOCK)
                data, left, begun = stream.unconsumed_tail, left - len(out), (begun + out)[:_LONGEST]
                if left < 0:
                    raise _malformed()
        except zlib.error:
            raise _malformed() from None
        self._at -= len(stream.unused_data)
        if left:
            raise _malformed()
        return begun

    def _byte(self) -> int:
        return self._some(1)[0]

    def _some(self, most: int) -> bytes:
        """Read some bytes, at least one and at most `most`."""
        if self._at == len(self._data):
            self._data, self._at = os.pread(self._pack, _BLOCK, self._next), 0
            self._next += len(self._data)
        if not self._data:
            raise _malformed()
        found = self._data[self._at : self._at + most]
        self._at += len(found)
        return found


def _result(delta: bytes) -> int:
    """Return the size of a delta's result, the second number in it."""
    found = [0, 0]
    place = shift = 0
    for byte in delta:
        found[place] |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            place, shift = place + 1, 0
        if place == 2:
            return found[1]
    raise _malformed()


def _malformed() -> RepositoryError:
    return RepositoryError("the bundle's pack is damaged")
