"""Find the server name in the first bytes of a TLS client."""

import struct

handshake, client_hello, server_name, host_name = 22, 1, 0, 0


class Malformed(ValueError):
    """Say that bytes which begin like TLS are not a client's hello in one record."""


def record_size(data: bytes | bytearray) -> int:
    """Return how many bytes the first record has with its header; its header alone while that is incomplete."""
    return 5 + int.from_bytes(data[3:5], "big") if len(data) >= 5 else 5


class Reader:
    """Take fields off the front of some bytes. Raises Malformed where too few are left."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, count: int) -> bytes:
        if len(self.data) < count:
            raise Malformed
        taken, self.data = self.data[:count], self.data[count:]
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def block(self, size: int) -> "Reader":
        """Take a block that is preceded by its length in `size` bytes."""
        return Reader(self.take(self.number(size)))


def name_in(record: bytes) -> str | None:
    """Return the name that a hello asks for, None when it asks for none. Raises Malformed."""
    kind, major, _, _ = struct.unpack(">BBBH", record[:5])
    body = Reader(record[5:])
    if kind != handshake or major != 3 or body.number(1) != client_hello:
        raise Malformed
    hello = body.block(3)
    hello.take(2 + 32)
    for size in (1, 2, 1):  # session, ciphers, compressions
        hello.block(size)
    extensions = hello.block(2) if hello.data else hello
    while extensions.data:
        number, extension = extensions.number(2), extensions.block(2)
        if number == server_name:
            return first_name(extension.block(2))
    return None


def first_name(names: Reader) -> str | None:
    while names.data:
        kind, name = names.number(1), names.block(2)
        if kind == host_name:
            return name.data.decode("latin-1")
    return None
