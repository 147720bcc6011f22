"""Speak to a proxy over plain sockets, byte by byte where a row asks for it."""

import contextlib
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

SECONDS = 60.0


@dataclass(frozen=True)
class Answer:
    status: int
    head: str
    body: str

    def __str__(self) -> str:
        return f"{self.head}\n\n{self.body}"


def client_hello(name: str | None) -> bytes:
    """Return the first bytes of a TLS client that asks for a name, or for none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    written = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), written, server_hostname=name).do_handshake()
    return written.read()


def read_answer(sock: socket.socket) -> Answer:
    """Read one HTTP answer, and nothing that comes after it."""
    with sock.makefile("rb", buffering=0) as stream:
        head = b""
        while not head.endswith(b"\r\n\r\n") and (byte := stream.read(1)):
            head += byte
        length = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
        body, left = b"", int(length[1]) if length else 0
        while left > len(body) and (data := stream.read(left - len(body))):
            body += data
    status = re.match(rb"HTTP/1\.[01] ([0-9]{3}) ", head)
    assert status, f"no HTTP answer: {head!r}"
    return Answer(int(status[1]), head.decode("latin-1").strip(), body.decode(errors="replace").strip())


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """Read that many bytes, fewer where the peer ends or goes silent."""
    data = b""
    with contextlib.suppress(OSError):
        while len(data) < size and (more := sock.recv(min(size - len(data), 1 << 18))):
            data += more
    return data


def reachable(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class Proxy:
    """Where a proxy listens."""

    address: str
    port: int

    @contextlib.contextmanager
    def open(self) -> Iterator[socket.socket]:
        with socket.create_connection((self.address, self.port), timeout=SECONDS) as sock:
            yield sock

    def ask(self, *lines: str, host: str = "a.test") -> Answer:
        """Send one request, its Host header made up, and read the answer."""
        with self.open() as sock:
            sock.sendall("\r\n".join((lines[0], f"Host: {host}", *lines[1:], "", "")).encode())
            return read_answer(sock)

    @contextlib.contextmanager
    def tunnel(self, target: str) -> Iterator[socket.socket]:
        """Open a tunnel to a target that must be let through."""
        with self.open() as sock:
            sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
            answer = read_answer(sock)
            assert answer.status == 200, answer
            yield sock

    def exchange(self, target: str, *pieces: bytes) -> bytes:
        """Send pieces through a tunnel to an echo, end, and return what comes back until the far end ends."""
        with self.tunnel(target) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in pieces:
                sock.sendall(piece)
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
            return read_exactly(sock, 1 << 20)
