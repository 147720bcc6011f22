"""A credential proxy in a container, the internet behind it in this process, and clients that speak raw HTTP to it."""

import base64
import contextlib
import ipaddress
import json
import queue
import random
import secrets
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from claude_bottle.bottle import credential_proxy as container
from claude_bottle.egress import allowlist, credential_proxy
from claude_bottle.egress.allowlist import Host
from claude_bottle.egress.credential_proxy import Signed

API = allowlist.API
TOKEN = f"sk-ant-oat01-{secrets.token_hex(16)}"
DIGEST_KEY = secrets.token_bytes(16)
SECONDS = 60.0
RULES = b"table inet proof {\n}\n"
RELAY = Path(__file__).with_name("programs") / "relay.py"
FIRST_RELAY = 20001

Answer = Callable[["Request", ssl.SSLSocket], None]


@dataclass(frozen=True)
class Request:
    """What arrived at a host: the raw head, the raw body, and which connection brought it."""

    connection: int
    head: bytes
    body: bytes

    @property
    def line(self) -> str:
        return self.head.split(b"\r\n", 1)[0].decode("latin-1")

    @property
    def headers(self) -> list[tuple[str, str]]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]

    def header(self, name: str) -> list[str]:
        return [value for each, value in self.headers if each == name]


class Stream:
    """Reads HTTP from a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.kept = sock, b""

    def more(self) -> bytes:
        data = self.sock.recv(1 << 16)
        if not data:
            raise EOFError
        return data

    def until(self, mark: bytes) -> bytes:
        while mark not in self.kept:
            self.kept += self.more()
        found, _, self.kept = self.kept.partition(mark)
        return found

    def exactly(self, count: int) -> bytes:
        parts, size = [self.kept], len(self.kept)
        while size < count:
            parts.append(self.more())
            size += len(parts[-1])
        whole = b"".join(parts)
        self.kept = whole[count:]
        return whole[:count]

    def chunk(self) -> bytes:
        """Return the next chunk of a chunked body, empty at its end."""
        data = self.exactly(int(self.until(b"\r\n").partition(b";")[0], 16))
        self.until(b"\r\n")
        return data

    def body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            return b"".join(iter(self.chunk, b""))
        return self.exactly(int(headers.get("content-length", "0")))


@dataclass(frozen=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def plain(sock: socket.socket, body: bytes = b"{}") -> None:
    """Answer 200."""
    sock.sendall(b"HTTP/1.1 200 OK\r\nServer: behind\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


class Internet:
    """Every host in one TLS server of this process; `answers` are by the query of the request's target."""

    def __init__(self, address: str, folder: Path) -> None:
        self.requests: queue.Queue[Request] = queue.Queue()
        self.answers: dict[str, Answer] = {}
        self.readers: dict[str, Callable[[Stream, ssl.SSLSocket], None]] = {}  # of bodies, in place of the server
        self.folder = folder
        self.connections = 0
        self._good = context(folder, "good")
        self._good.sni_callback = self._choose
        self._bad = {name: context(folder, name) for name in ("stranger", "misnamed")}
        self._server = socket.create_server((address, 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        port: int = self._server.getsockname()[1]
        return port

    def close(self) -> None:
        self._server.close()

    def _choose(self, sock: ssl.SSLObject, name: str, _: ssl.SSLContext) -> None:
        sock.context = self._bad.get(str(name).partition(".")[0], self._good)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._server.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(sock, self.connections), daemon=True).start()

    def _serve(self, raw: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError, EOFError), raw, self._good.wrap_socket(raw, server_side=True) as sock:
            stream = Stream(sock)
            while True:
                head = stream.until(b"\r\n\r\n")
                headers = dict(Request(number, head, b"").headers)
                last = headers.get("connection") == "close"
                query = head.split(b" ", 2)[1].decode("latin-1").partition("?")[2]
                if query in self.readers:
                    self.readers[query](stream, sock)
                else:
                    request = Request(number, head, stream.body(headers))
                    self.requests.put(request)
                    answer = self.answers.get(query)
                    answer(request, sock) if answer else plain(sock)
                if last:
                    return


def context(folder: Path, name: str) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return made


def certificates(folder: Path, names: list[str]) -> bytes:
    """Make the internet's authority and its certificates in `folder`; return the authority, PEM."""

    def make(name: str, *words: str) -> None:
        new = ("req", "-x509", "-days", "2", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
        out = ("-subj", f"/CN={name}", "-out", f"{name}.pem", "-keyout", f"{name}.key")
        subprocess.run(("openssl", *new, *out, *words), cwd=folder, check=True, capture_output=True)

    def named(*names: str) -> tuple[str, ...]:
        san = ",".join(f"DNS:{name}" for name in names)
        return ("-addext", f"subjectAltName={san}", "-addext", "basicConstraints=critical,CA:FALSE")

    make("internet", "-addext", "keyUsage=critical,keyCertSign,cRLSign")  # which Python demands from 3.13 on
    signed = ("-CA", "internet.pem", "-CAkey", "internet.key")
    make("good", *signed, *named(*names))
    make("misnamed", *signed, *named("elsewhere.test"))
    make("stranger", *named(*names))
    return (folder / "internet.pem").read_bytes()


@dataclass
class Client:
    """One TLS connection to an ended host, as from the sidecar."""

    sock: ssl.SSLSocket
    name: str
    stream: Stream = field(init=False)

    def __post_init__(self) -> None:
        self.stream = Stream(self.sock)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def head(self) -> tuple[int, dict[str, str]]:
        lines = self.stream.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        return int(lines[0].split()[1]), headers

    def answer(self, method: str = "GET") -> Response:
        status, headers = self.head()
        return Response(status, headers, b"" if method == "HEAD" else self.stream.body(headers))

    def ask(self, method: str, target: str, *headers: str, body: bytes | None = None, host: str = "") -> Response:
        """Send a request, and return the answer."""
        self.send(request(method, target, *headers, body=body, host=host or self.name))
        return self.answer(method)


def request(method: str, target: str, *headers: str, body: bytes | None = None, host: str = API) -> bytes:
    """Return a request as bytes."""
    length = [] if body is None else [f"Content-Length: {len(body)}"]
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *headers, *length, "", ""]
    return "\r\n".join(lines).encode("latin-1") + (body or b"")


def docker(*words: str) -> str:
    return subprocess.run(("docker", *words), check=True, capture_output=True, text=True).stdout


@dataclass
class Proxy:
    """The proxy's container, and how to reach it."""

    name: str
    hosts: tuple[credential_proxy.Ended, ...]
    process: subprocess.Popen[bytes]
    address: str
    internet: Internet
    ca: str
    lines: "queue.Queue[dict[str, Any]]" = field(default_factory=queue.Queue)
    reader: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def forget(self) -> None:
        """Forget what arrived outside, and what was logged, so far."""
        for each in (self.internet.requests, self.lines):
            with contextlib.suppress(queue.Empty):
                while True:
                    each.get_nowait()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.put(json.loads(line))

    @contextlib.contextmanager
    def client(self, key: str = API, *, sni: str | None = "", alpn: tuple[str, ...] = ()) -> Iterator[Client]:
        """Connect to an ended host; `sni` is the host's name unless given, None for none."""
        number = [str(host) for host in self.hosts].index(key)
        tls = ssl.create_default_context(cadata=self.ca)
        name = self.hosts[number].name
        if sni != "":
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        if alpn:
            tls.set_alpn_protocols(list(alpn))
        raw = socket.create_connection((self.address, FIRST_RELAY + number), SECONDS)
        with tls.wrap_socket(raw, server_hostname=name if sni == "" else sni) as sock:
            yield Client(sock, key)

    def ask(self, method: str, target: str, *headers: str, body: bytes | None = None, key: str = API) -> Response:
        """Make one request on a connection of its own."""
        with self.client(key) as client:
            return client.ask(method, target, *headers, body=body)

    def sh(self, script: str) -> str:
        """Run a script in the container, as root of the engine would."""
        return docker("exec", "--user", "65533:65533", self.name, "/bin/bash", "-c", script)

    def logged(self, target: str) -> dict[str, Any]:
        """Return the next line of the log whose path is `target`."""
        while True:
            line = self.lines.get(timeout=SECONDS)
            if line["path"] == target:
                return line

    def arrived(self, mark: str) -> Request:
        """Return the next request that arrives outside with `mark` in its first line."""
        while True:
            found = self.internet.requests.get(timeout=SECONDS)
            if mark in found.line:
                return found

    def nothing_arrived(self) -> None:
        """Check that nothing came of all that was asked before: a request that passes arrives first."""
        mark, found = secrets.token_hex(8), []
        assert self.ask("GET", f"/api/hello?{mark}").status == 200
        while mark not in (line := self.internet.requests.get(timeout=SECONDS).line):
            found.append(line)
        assert found == []


SIGNED = (
    Signed(Host("api.example.com"), {"Authorization": "Bearer $x{\"'\\} \u00e9", "X-Other_Key": "two"}),
    Signed(Host("git.example.com", 8443), {"Authorization": "Basic abc"}, ("GET", "POST"), ("/acme/site.git/", "/one")),
    Signed(Host("stranger.example.com"), {"Authorization": "x"}),
    Signed(Host("misnamed.example.com"), {"Authorization": "x"}),
    Signed(Host("missing.example.com"), {"Authorization": "x"}),
)
FORWARDED = 22


@contextlib.contextmanager
def network(name: str) -> Iterator[tuple[str, str]]:
    """Make an inner network; yield the addresses of this machine and of a container on it."""
    for _ in range(100):
        subnet = ipaddress.IPv4Network((int(ipaddress.IPv4Address("10.215.0.0")) + random.randrange(8192) * 8, 29))
        words = ("docker", "network", "create", "--internal", "--subnet", str(subnet), name)
        made = subprocess.run(words, check=False, capture_output=True, text=True)
        if made.returncode == 0:
            break
        assert "overlap" in made.stderr, made.stderr
    try:
        yield str(subnet[1]), str(subnet[2])
    finally:
        docker("network", "rm", name)


@contextlib.contextmanager
def proxied(
    folder: Path, image: str, signed: tuple[Signed, ...] = SIGNED, *, given: bool = True, **settings: Any
) -> Iterator[Proxy]:
    """Start a proxy, with the internet that it reaches and a relay that stands for the sidecar.

    The internet's authority is `given` to it, or is in the store of its image, which is then made for it.
    """
    hosts = credential_proxy.ended([each.host for each in signed], [FORWARDED, 443, 8443])
    names = [host.name for host in hosts]
    authority = certificates(folder, names)
    name = f"claude-bottle-proxied-{secrets.token_hex(4)}"
    with network(name) as (here, address), contextlib.ExitStack() as undo:
        internet = Internet(here, folder)
        undo.callback(internet.close)
        # Towards the internet under its names, and from this machine to where the proxy listens.
        ports = {443, *(host.port for host in hosts), FORWARDED}
        relays = [f"{address}:{port}={here}:{internet.port}" for port in ports]
        listens = [(host.address, host.port) for host in hosts]
        listens += [(host.address, FORWARDED) for host in hosts if FORWARDED in host.forwards]
        relays += [f"{address}:{FIRST_RELAY + place}={to}:{port}" for place, (to, port) in enumerate(listens)]
        aliases = [word for each in names if not each.startswith("missing") for word in ("--network-alias", each)]
        # No name but these is anybody's, and none is asked for outside.
        words = (
            "--network",
            name,
            "--ip",
            address,
            *aliases,
            "--dns",
            "0.0.0.0",
            "--dns-opt",
            "timeout:1",
            "--dns-opt",
            "attempts:1",
        )
        undo.callback(docker, "rm", "--force", f"{name}-relay")
        program = ("--entrypoint", "python3", image, "-c", RELAY.read_text(), *relays)
        docker("run", "--detach", "--user", "0", "--name", f"{name}-relay", *words, *program)
        until_ready(f"{name}-relay")
        secret = credential_proxy.settings(TOKEN, signed, digest_key=DIGEST_KEY, **settings)
        tar = container.files(hosts, secret, authority if given else b"")
        own = image if given else undo.enter_context(trusting(image, folder, f"{name}:local"))
        argv = container.run(f"{name}-gate", f"container:{name}-relay", own, (), RULES, tar, remote=False)
        undo.callback(docker, "rm", "--force", f"{name}-gate")
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        undo.callback(process.wait)
        assert process.stdin
        assert process.stdout
        undo.callback(process.stdin.close)
        process.stdin.write(RULES + tar)
        process.stdin.flush()
        word, _, encoded = process.stdout.readline().decode().partition(" ")
        assert word == "up", encoded
        ca = base64.b64decode(encoded).decode()
        proxy = Proxy(f"{name}-gate", hosts, process, address, internet, ca)
        try:
            yield proxy
        finally:
            process.stdin.close()
            proxy.reader.join()
            process.stdout.close()


@contextlib.contextmanager
def trusting(image: str, folder: Path, tag: str) -> Iterator[str]:
    """Build an image that trusts the internet's authority by itself."""
    place = "/usr/local/share/ca-certificates/internet.crt"
    lines = f"FROM {image}\nUSER root\nCOPY internet.pem {place}\nRUN update-ca-certificates\n"
    (folder / "Dockerfile").write_text(lines)
    (folder / ".dockerignore").write_text("*\n!internet.pem\n")
    docker("build", "--quiet", "--network", "none", "--tag", tag, str(folder))
    try:
        yield tag
    finally:
        docker("rmi", tag)


def until_ready(name: str) -> None:
    """Wait for a container's first line."""
    with subprocess.Popen(("docker", "logs", "--follow", name), stdout=subprocess.PIPE) as logs:
        assert logs.stdout
        assert logs.stdout.readline().startswith(b"tcp://")
        logs.terminate()
