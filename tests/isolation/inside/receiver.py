"""Write down whatever arrives: TCP, UDP, pings, names asked for, or every frame on every wire that carries a token.

Runs with the standard library alone, in namespaces and containers of the battery's. Each arrival is one line of text on
stdout: how it came, from where, to where, and what it said.
"""

import argparse
import contextlib
import itertools
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

TOKEN = re.compile(rb"cb[0-9a-f]{12}")
PROXY_PORT = 8888
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
A, AAAA = 1, 28
writing = threading.Lock()


def note(*words: object) -> None:
    """Write one line; what came in is escaped, so that it stays one."""
    with writing, contextlib.suppress(BrokenPipeError):
        print(*words, flush=True)


def main() -> None:
    """Open what the arguments name, and receive for ever."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tcp", type=_numbers, default=[])
    parser.add_argument("--udp", type=_numbers, default=[])
    parser.add_argument("--at", default="", help="addresses at which TCP 443 is taken as well")
    parser.add_argument("--abstract")
    parser.add_argument("--dns")
    parser.add_argument("--zone", type=Path)
    parser.add_argument("--icmp", action="store_true")
    parser.add_argument("--sniff", action="store_true")
    given = parser.parse_args()
    jobs: list[tuple[Callable[..., None], tuple[object, ...]]] = []
    jobs += [(tcp, (_bound("", port),)) for port in given.tcp]
    jobs += [(tcp, (_bound(address, 443),)) for address in given.at.split()]
    jobs += [(udp, (_bound("", port, socket.SOCK_DGRAM),)) for port in given.udp]
    jobs += [(tcp, (_abstract(given.abstract),))] if given.abstract else []
    jobs += [(icmp, (_raw(*kind),)) for kind in ICMP] if given.icmp else []
    jobs += [(sniff, (_wire(),))] if given.sniff else []
    jobs += [(dns, (given.dns, json.loads(given.zone.read_text())))] if given.dns else []
    for job, arguments in jobs:
        threading.Thread(target=job, args=arguments, daemon=True).start()
    note("ready")
    threading.Event().wait()


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _bound(address: str, port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """Bind to one IPv4 address, or to every address of both families where there are two."""
    family = socket.AF_INET if address or not _has_ipv6() else socket.AF_INET6
    sock = socket.socket(family, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind((address, port))
    return sock


def _has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as sock:
        sock.bind(("::", 0))
        return True
    return False


def _abstract(name: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(f"\0{name}")
    return sock


def tcp(listener: socket.socket) -> None:
    """Take connections; each is read in a thread of its own."""
    listener.listen(256)
    while True:
        connection, peer = listener.accept()
        threading.Thread(target=_conversation, args=(connection, peer), daemon=True).start()


def _conversation(connection: socket.socket, peer: object) -> None:
    """Note what is said, answer the first words like a web server, and close."""
    with connection, contextlib.suppress(OSError):
        connection.settimeout(5)
        note("connection", peer, connection.getsockname())
        data = connection.recv(65536)
        note("tcp", peer, connection.getsockname(), data)
        connection.sendall(ANSWER)
        connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(65536):
            note("tcp", peer, connection.getsockname(), data)


def udp(sock: socket.socket) -> None:
    """Take datagrams."""
    while True:
        data, peer = sock.recvfrom(65536)
        note("udp", peer, sock.getsockname(), data)


ICMP = ((socket.AF_INET, socket.IPPROTO_ICMP), (socket.AF_INET, 136), (socket.AF_INET6, socket.IPPROTO_ICMPV6))


def _raw(family: int, protocol: int) -> socket.socket:
    return socket.socket(family, socket.SOCK_RAW, protocol)


def icmp(sock: socket.socket) -> None:
    """Take pings and UDP-Lite, which have no listeners of their own."""
    while True:
        data, peer = sock.recvfrom(65536)
        note("raw", sock.proto, peer, data)


def _wire() -> socket.socket:
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))


def sniff(sock: socket.socket) -> None:
    """Note every frame with a token that is not part of a conversation with a proxy, and each new kind of frame."""
    known: set[tuple[object, ...]] = set()
    while True:
        frame, (interface, *_) = sock.recvfrom(2048)
        kind, ports = read_frame(frame)
        if PROXY_PORT not in ports and (found := TOKEN.search(frame)):
            note("frame", interface, *kind, found[0].decode())
        if (interface, *kind) not in known:
            known.add((interface, *kind))
            note("kind", interface, *kind)


def read_frame(frame: bytes) -> tuple[tuple[object, ...], tuple[int, ...]]:
    """Return what kind of frame it is (ether type, protocol, source, destination, port), and its ports."""
    ether = int.from_bytes(frame[12:14], "big")
    if ether != 0x0800 or len(frame) < 34:
        return (f"{ether:04x}", "-", frame[6:12].hex(":"), frame[:6].hex(":"), 0), ()
    protocol, start = frame[23], 14 + (frame[14] & 15) * 4
    ports = struct.unpack("!HH", frame[start : start + 4]) if protocol in (6, 17, 136) else ()
    shown = min(ports, default=0)  # the server's, most likely
    return (
        "0800", protocol, socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34]), shown,
    ), ports  # fmt: skip


def dns(address: str, zone: dict[str, list[str]]) -> None:
    """Answer names from the zone, and note them; `rota` names alternate between two answers."""
    turns: dict[str, Iterator[str]] = {}
    for kind, serve in ((socket.SOCK_DGRAM, _datagrams), (socket.SOCK_STREAM, _streams)):
        sock = _bound(address, 53, kind)
        threading.Thread(target=serve, args=(sock, zone, turns), daemon=True).start()


def _datagrams(sock: socket.socket, zone: dict[str, list[str]], turns: dict[str, Iterator[str]]) -> None:
    while True:
        packet, peer = sock.recvfrom(4096)
        with contextlib.suppress(IndexError, OSError):
            sock.sendto(_answer(packet, zone, turns), peer)


def _streams(sock: socket.socket, zone: dict[str, list[str]], turns: dict[str, Iterator[str]]) -> None:
    sock.listen(16)
    while True:
        connection, _ = sock.accept()
        with connection, contextlib.suppress(IndexError, OSError):
            connection.settimeout(2)
            data = _answer(connection.recv(4096)[2:], zone, turns)
            connection.sendall(len(data).to_bytes(2, "big") + data)


def _answer(packet: bytes, zone: dict[str, list[str]], turns: dict[str, Iterator[str]]) -> bytes:
    labels, at = [], 12
    while size := packet[at]:
        labels.append(packet[at + 1 : at + 1 + size].decode("latin-1").lower())
        at += 1 + size
    name, kind = ".".join(labels), int.from_bytes(packet[at + 1 : at + 3], "big")
    note("name", kind, name)
    found = zone.get(name) or zone.get("*." + ".".join(labels[1:])) or zone["*"]
    if len(found) > 1 and kind == A:
        found = [next(turns.setdefault(name, itertools.cycle(found)))]
    family = {A: socket.AF_INET, AAAA: socket.AF_INET6}.get(kind)
    raw = [socket.inet_pton(family, one) for one in found if (":" in one) == (kind == AAAA)] if family else []
    head = packet[:2] + b"\x81\x80\0\1" + len(raw).to_bytes(2, "big") + b"\0\0\0\0" + packet[12 : at + 5]
    return head + b"".join(struct.pack("!HHHIH", 0xC00C, kind, 1, 0, len(one)) + one for one in raw)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        time.sleep(0)
