"""The other end of a port's relay as a naive one would be: it connects to its own loopback if it is told to."""

import socket
import struct
import sys

HEAD = struct.Struct(">BIH")
OPEN, DATA = 2, 3


def main() -> None:
    """Take frames from stdin until it ends."""
    server = None
    while head := sys.stdin.buffer.read(HEAD.size):
        kind, _, size = HEAD.unpack(head)
        data = sys.stdin.buffer.read(size)
        if kind == OPEN:
            server = socket.create_connection(("127.0.0.1", 9000))
        if kind == DATA and server:
            server.sendall(data)


main()
