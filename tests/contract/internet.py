"""Be the internet that a sidecar under test sees: a name server and echo servers, in one process.

Runs inside a container, with the standard library alone: `python3 internet.py ZONE ECHO_PORT...`, where ZONE is
a JSON object of name to addresses. What it sees goes to stdout, one word and one value a line:
`ready`, `name <queried name>`, `tcp <port>`. A queried name that is not in the zone does not exist. A list of lists
is a rota: each query for the name's A record gets the next of them (rebinding).
"""

import itertools
import json
import socket
import struct
import sys
import threading
from collections.abc import Iterator

type_a, type_aaaa = 1, 28


def say(*words: object) -> None:
    print(*words, flush=True)


def question(packet: bytes) -> tuple[str, int, int]:
    """Read a query's name and type, and where its question ends."""
    labels, at = [], 12
    while size := packet[at]:
        labels.append(packet[at + 1 : at + 1 + size].decode("latin-1").lower())
        at += 1 + size
    return ".".join(labels), int.from_bytes(packet[at + 1 : at + 3], "big"), at + 5


def records(kind: int, addresses: list[str]) -> list[bytes]:
    """Encode the addresses of one family as resource records that point back at the question's name."""
    family = socket.AF_INET if kind == type_a else socket.AF_INET6
    raw = [socket.inet_pton(family, text) for text in addresses if (":" in text) == (kind == type_aaaa)]
    return [struct.pack(">HHHIH", 0xC00C, kind, 1, 0, len(data)) + data for data in raw]


def answer(packet: bytes, zone: dict[str, Iterator[list[str]] | list[str]]) -> bytes:
    name, kind, end = question(packet)
    say("name", name)
    found = zone.get(name)
    addresses = found if isinstance(found, list) or found is None else next(found) if kind == type_a else []
    lines = records(kind, addresses or []) if kind in (type_a, type_aaaa) else []
    flags = 0x8180 if found is not None else 0x8183
    return packet[:2] + struct.pack(">HHHHH", flags, 1, len(lines), 0, 0) + packet[12:end] + b"".join(lines)


def serve_names(zone: dict[str, Iterator[list[str]] | list[str]]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", 53))
        say("ready")
        while True:
            packet, peer = server.recvfrom(4096)
            server.sendto(answer(packet, zone), peer)


def echo(peer: socket.socket) -> None:
    """Send back what comes, and the count of it when the peer has ended."""
    total = 0
    with peer:
        while data := peer.recv(1 << 18):
            total += len(data)
            peer.sendall(data)
        peer.sendall(b"<%d>" % total)


def shielded_echo(peer: socket.socket) -> None:
    try:
        echo(peer)
    except OSError:
        say("reset", peer.fileno())


def serve_echo(server: socket.socket, port: int) -> None:
    while True:
        peer, _ = server.accept()
        say("tcp", port)
        threading.Thread(target=shielded_echo, args=(peer,), daemon=True).start()


def main(zone_text: str, *ports: str) -> None:
    given: dict[str, list[str] | list[list[str]]] = json.loads(zone_text)
    zone: dict[str, Iterator[list[str]] | list[str]] = {}
    for name, value in given.items():
        rota = [item for item in value if isinstance(item, list)]
        zone[name] = itertools.cycle(rota) if rota else [str(item) for item in value]
    for port in map(int, ports):
        server = socket.create_server(("0.0.0.0", port), backlog=512)
        threading.Thread(target=serve_echo, args=(server, port), daemon=True).start()
    serve_names(zone)


if __name__ == "__main__":
    main(*sys.argv[1:])
