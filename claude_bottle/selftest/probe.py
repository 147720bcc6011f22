"""See how open a bottle is, from inside: this runs in the bottle as the agent's user and prints what it saw as JSON.

Sent over stdin to `python3 -I -`, a call of `main` behind it: so it is for Python 3.9, the standard library alone,
and imports nothing of claude_bottle. It judges nothing: `selftest.py` does.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import threading
import time
from contextlib import suppress
from typing import Any, Callable  # noqa: UP035  (Python 3.9)

_LIMIT = 2.0  # seconds: what the lock refuses fails within milliseconds; an address that nobody has, after 3 s
_LISTENING = 15.0  # seconds for the sidecar, which has just been started, to listen
_SIDECAR_LIMIT = 6.0  # seconds: it answers 403 after 5 s where its DNS server is silent
_SOCKETS = (
    *("/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock"),
    *("/run/user/1000/docker.sock", "/run/user/1000/podman/podman.sock", "/run/crio/crio.sock", "/docker.sock"),
)
_STATUS = ("Uid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")


def main(question: dict[str, Any]) -> None:
    """Look at everything, side by side, and print the answers; what could not be looked at has none."""
    sidecar, outside, refused = question["sidecar"], question["outside"], question["refused"]
    looks: dict[str, Callable[[], object]] = {
        "resolved": lambda: _resolve(outside),
        "health": lambda: _ask(sidecar, "GET", "/health"),
        "refused": lambda: _ask(sidecar, "CONNECT", f"{refused}:443"),
        "allowed": lambda: _ask(sidecar, "CONNECT", f"{outside}:443"),
        "tcp": lambda: _tcp(question["tcp"]),
        "udp": lambda: {target: _udp(target) for target in question["udp"]},
        "dns": lambda: _dns(question["resolver"], refused),
        "ipv6": _ipv6,
        "processes": _processes,
        "sockets": _sockets,
        "cgroup2": lambda: os.path.exists("/sys/fs/cgroup/cgroup.controllers"),  # noqa: PTH110
    }
    answers: dict[str, object] = {}
    threads = [threading.Thread(target=_note, args=(answers, *look), daemon=True) for look in list(looks.items())[:4]]
    for thread in threads:
        with suppress(RuntimeError):  # no more processes: the look has no answer
            thread.start()
    for name, look in list(looks.items())[4:]:
        _note(answers, name, look)
    threads[0].join(_LIMIT)  # a resolver may hang for minutes
    for thread in threads[1:]:
        thread.join(_LISTENING + _SIDECAR_LIMIT + 1)
    print(json.dumps(dict(answers)), flush=True)
    os._exit(0)  # not waiting for a resolver that hangs


def _note(answers: dict[str, object], name: str, look: Callable[[], object]) -> None:
    with suppress(Exception):
        answers[name] = look()


def _sockaddr(target: str) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    """Take `address port`; a link-local IPv6 address is meant on the first interface that is not the loopback."""
    address, port = target.split()
    if ":" not in address:
        return socket.AF_INET, (address, int(port))
    scopes = [index for index, name in socket.if_nameindex() if name != "lo"]
    local = address.startswith(("fe80:", "ff02:")) and scopes
    return socket.AF_INET6, (address, int(port), 0, scopes[0] if local else 0)


def _word(code: int) -> str:
    return errno.errorcode.get(code, str(code)) if code else "connected"


def _tcp(targets: list[str]) -> dict[str, str]:
    """Connect to all at once; say for each how it ended."""
    ended, waiting = {}, {}
    poll = select.poll()
    for target in targets:
        try:
            family, address = _sockaddr(target)
            connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            code = connection.connect_ex(address)
        except OSError as error:
            code = error.errno or errno.EIO
        if code == errno.EINPROGRESS:
            waiting[connection.fileno()] = (connection, target)
            poll.register(connection, select.POLLOUT)
        else:
            ended[target] = _word(code)
    end = time.monotonic() + _LIMIT
    late = False
    while waiting and not late:
        late = time.monotonic() > end  # after a pause that is not the network's, what has ended still counts
        for descriptor, _ in poll.poll(max(0.0, end - time.monotonic()) * 1000):
            connection, target = waiting.pop(descriptor)
            poll.unregister(descriptor)
            ended[target] = _word(connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            connection.close()
    return {**ended, **{target: "no answer" for _, target in waiting.values()}}


def _udp(target: str) -> str:
    try:
        family, address = _sockaddr(target)
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sender.sendto(b"claude-bottle", address)
    except OSError as error:
        return _word(error.errno or errno.EIO)
    return "sent"


def _resolve(name: str) -> list[str]:
    try:
        return sorted({str(found[4][0]) for found in socket.getaddrinfo(name, 443)})
    except socket.gaierror:
        return []


def _dns(resolver: str, name: str) -> dict[str, str]:
    """Ask Docker's resolver itself, over UDP and TCP."""
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    query = b"\0\1\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1"
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.settimeout(_LIMIT / 2)
            asker.connect((resolver, 53))
            asker.send(query)
            asker.recv(512)
        said = "answered"
    except socket.timeout:  # noqa: UP041  (Python 3.9)
        said = "no answer"
    except OSError as error:
        said = _word(error.errno or errno.EIO)
    return {"udp": said, "tcp": _tcp([f"{resolver} 53"])[f"{resolver} 53"]}


def _ask(sidecar: tuple[str, int], method: str, target: str) -> str:
    """Send one request to the sidecar; return its answer as text, or what came instead."""
    host = target if method == "CONNECT" else "{}:{}".format(*sidecar)
    answer = b""
    try:
        connection = _connected(sidecar)
    except OSError as error:
        return f"no connection: {error}"
    try:
        with connection:
            connection.settimeout(_SIDECAR_LIMIT)
            connection.sendall(f"{method} {target} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
            while len(answer) < 8192 and not (method == "CONNECT" and answer.split(b" ")[1:2] == [b"200"]):
                chunk = connection.recv(4096)
                if not chunk:
                    break
                answer += chunk
    except socket.timeout:  # noqa: UP041  (Python 3.9)
        return answer.decode("latin-1") or "no answer"
    except OSError as error:
        return answer.decode("latin-1") or f"cut: {error}"
    return answer.decode("latin-1")


def _connected(sidecar: tuple[str, int]) -> socket.socket:
    end = time.monotonic() + _LISTENING
    while True:
        try:
            return socket.create_connection(sidecar, _LIMIT)
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
        time.sleep(0.005)


def _ipv6() -> list[str]:
    """Return every IPv6 address that is not the loopback interface's, with its interface."""
    try:
        with open("/proc/net/if_inet6", encoding="ascii") as file:  # noqa: PTH123
            rows = [line.split() for line in file]
    except FileNotFoundError:  # no IPv6 in this kernel
        return []
    return [f"{row[0]} {row[5]}" for row in rows if row[5] != "lo"]


def _processes() -> dict[str, object]:
    """Return what the kernel says of every process, and the names of its variables where they can be read."""
    found: dict[str, object] = {"self": str(os.getpid())}
    for pid in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            lines = [line.partition(":") for line in _read(f"/proc/{pid}/status").splitlines()]
            status: dict[str, object] = {key: value.split() for key, _, value in lines if key in _STATUS}
            with suppress(PermissionError):
                pairs = _read(f"/proc/{pid}/environ").split("\0")
                status["names"] = [pair.partition("=")[0] for pair in pairs if pair]
            found[pid] = status
    return found


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
        return file.read()


def _sockets() -> list[str]:
    """Return the sockets of container engines, at their usual places or mounted anywhere."""
    mounted = [line.split()[4] for line in _read("/proc/self/mountinfo").splitlines()]
    there = [path for path in _SOCKETS if os.path.lexists(path)]
    return sorted({*there, *(path for path in mounted if path.endswith(".sock"))})
