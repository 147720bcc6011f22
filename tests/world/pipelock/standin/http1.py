"""Read HTTP/1 requests from a socket, and write answers: as much of the protocol as a proxy's front door needs.

What is refused here (and with which status) follows what pipelock was seen to refuse.
"""

import asyncio
import re
import socket
import time
from dataclasses import dataclass

head_limit = 1 << 20
drain_limit = 1 << 18
linger_seconds = 0.5

reasons = {
    200: "OK",
    307: "Temporary Redirect",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
}
request_line = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([^\x00-\x20\x7f]+) HTTP/1\.([01])")
header_line = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
host_text = re.compile(r"[A-Za-z0-9!$%&'()*+,\-.:;=\[\]_~]*")


class BadRequest(Exception):
    """Answer with this status and end the connection."""

    def __init__(self, status: int = 400, detail: str = "") -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    version: str
    headers: dict[str, list[str]]

    def header(self, name: str) -> str:
        """Return the first header of that (lower-case) name, or nothing."""
        return self.headers.get(name, [""])[0]

    @property
    def keep_alive(self) -> bool:
        words = self.header("connection").lower()
        return "close" not in words if self.version == "1.1" else "keep-alive" in words

    def answer(self, status: int, text: str, kind: str = "text/plain; charset=utf-8", **more: str) -> bytes:
        """Make a whole answer; `more` are further header lines, with `_` for `-`."""
        plain = kind.startswith("text/plain")
        body = (text + "\n" if plain else text).encode(errors="surrogateescape")
        lines = [f"HTTP/{self.version} {status} {reasons[status]}", f"Content-Type: {kind}"]
        lines += ["X-Content-Type-Options: nosniff"] if plain else []
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in more.items()]
        lines += [time.strftime("Date: %a, %d %b %Y %H:%M:%S GMT", time.gmtime()), f"Content-Length: {len(body)}"]
        lines += [] if self.keep_alive else ["Connection: close"]
        return "\r\n".join([*lines, "", ""]).encode() + (b"" if self.method == "HEAD" else body)


def parse(head: bytes) -> Request:
    """Read a request's head without its empty line. Raises BadRequest."""
    first, *lines = [line.removesuffix(b"\r") for line in head.split(b"\n")]
    match = request_line.fullmatch(first)
    if not match:
        raise BadRequest
    headers: dict[str, list[str]] = {}
    for name, value in map(header, lines):
        headers.setdefault(name, []).append(value)
    method, target, minor = match.groups()
    request = Request(method.decode(), target.decode(errors="surrogateescape"), f"1.{minor.decode()}", headers)
    check_host(request)
    check_length(request)
    return request


def header(line: bytes) -> tuple[str, str]:
    match = header_line.fullmatch(line)
    if not match:
        raise BadRequest
    name, value = match.groups()
    return name.decode().lower(), value.decode("latin-1").strip()


def check_host(request: Request) -> None:
    hosts = request.headers.get("host", [])
    if len(hosts) > 1:
        raise BadRequest
    if not hosts and request.version == "1.1" and request.method != "CONNECT":
        raise BadRequest(detail="missing required Host header")
    if hosts and not host_text.fullmatch(hosts[0]):
        raise BadRequest(detail="malformed Host header")


def check_length(request: Request) -> None:
    """Refuse a body whose end two readers could see in two places."""
    lengths = set(request.headers.get("content-length", []))
    if len(lengths) > 1 or not all(re.fullmatch("[0-9]{1,15}", text) for text in lengths):
        raise BadRequest
    codings = request.headers.get("transfer-encoding", [])
    if codings and [text.lower() for text in codings] != ["chunked"]:
        raise BadRequest(501, "Unsupported transfer encoding")


def farewell(error: BadRequest) -> bytes:
    """Make the answer to a request that could not be read."""
    status = f"{error.status} {reasons[error.status]}" + (f": {error.detail}" if error.detail else "")
    return f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n{status}".encode()


class Stream:
    """A client's connection: a non-blocking socket and what was read from it ahead of its use."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.ahead = sock, bytearray()
        self.loop = asyncio.get_running_loop()

    async def more(self) -> bool:
        """Read some bytes ahead; False at the end."""
        data = await self.loop.sock_recv(self.sock, 1 << 16)
        self.ahead += data
        return bool(data)

    async def request(self) -> Request | None:
        """Read the next request's head; None when the client has ended instead. Raises BadRequest."""
        seen = 0
        while not (end := re.compile(rb"\n\r?\n").search(self.ahead, max(0, seen - 3))):
            seen = len(self.ahead)
            if seen > head_limit:
                raise BadRequest(431)
            if not await self.more():
                return None
        head = bytes(self.ahead[: end.start()])
        del self.ahead[: end.end()]
        return parse(head)

    async def drain(self, request: Request) -> bool:
        """Throw a request's body away; False when the connection is over."""
        if "transfer-encoding" in request.headers:
            return False  # pipelock reads on; ending the connection is as safe and needs no decoder
        left = int(request.header("content-length") or 0)
        if left > drain_limit or request.header("expect") or not request.keep_alive:
            return False
        while len(self.ahead) < left:
            if not await self.more():
                return False
        del self.ahead[:left]
        return True

    async def send(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.sock, data)

    async def end(self) -> None:
        """Close in two steps: a close with unread bytes resets the connection, which can cost the client the answer."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(linger_seconds):
                while await self.more():
                    self.ahead.clear()
        except OSError:
            pass
