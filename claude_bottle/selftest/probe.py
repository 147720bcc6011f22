"""See how open a bottle is, and whose programs are in it; print that as JSON.

This runs in a container of the base image that shares the bottle's network and processes, as the user of the bottle's
first processes: nothing that the bottle's own image brings has a part in it. Sent over stdin to Python, calls of
`prepare` and `main` behind it: so it is for Python 3.9, the standard library alone, and imports nothing of
claude_bottle. It judges nothing: `receipt.py` does.
"""

from __future__ import annotations

import base64
import errno
import functools
import hashlib
import importlib
import json
import os
import re
import select
import socket
import ssl
import stat
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any, Callable  # noqa: UP035  (Python 3.9)

_LIMIT = 2.0  # seconds: what the lock refuses fails within milliseconds; an address that nobody has, after 3 s
_LISTENING = 15.0  # seconds for the sidecar, which has just been started, to listen
_BESIDE = 5  # looks, those that wait for others
_SIDECAR_LIMIT = 6.0  # seconds: it answers 403 after 5 s where its DNS server is silent
_ROOT = "/proc/1/root"  # the bottle's files, as its first process has them
_LINKS = 40  # that a path may lead over, as for the kernel
_BLOCK = memoryview(bytearray(1 << 20))  # for what is read of files, one after the other
_CACHE = "/etc/ld.so.cache"
_LOADED = re.compile(r"^\s*(?:(\S+) => )?(/\S+) \(0x", re.MULTILINE)
_SOCKETS = (
    *("/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock"),
    *("/run/user/1000/docker.sock", "/run/user/1000/podman/podman.sock", "/run/crio/crio.sock", "/docker.sock"),
)
# The files with a cgroup's limits, by its controller; "" is version 2.
_LIMIT_FILES = {
    "memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
    "pids": ("pids.max",),
    "cpu": ("cpu.cfs_quota_us", "cpu.cfs_period_us"),
    "": ("memory.max", "memory.swap.max", "pids.max", "cpu.max"),
}
_STATUS = ("PPid", "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")


# By path, state; by folder and module, neighbours; by name and kind of a library, what the loader's cache has of it.
Base = tuple[dict[str, str], dict[tuple[str, str], str], dict[tuple[str, int], list[str]]]
Search = Callable[[str, str, str], object]


def main(question: dict[str, Any], base: Base | None, authority: str, search: Search) -> None:
    """Look at everything, side by side, and print the answers; what could not be looked at has none.

    `base` is what `prepare` has returned; `authority` is the certificate of the session's authority, as PEM in base64;
    `search` is that of search.py.
    """
    sidecar, outside, refused = question["sidecar"], question["outside"], question["refused"]
    pem = base64.b64decode(authority).decode()
    looks: dict[str, Callable[[], object]] = {
        "resolved": lambda: _resolve(outside),
        "health": lambda: _ask(sidecar, "GET", "/health"),
        "refused": lambda: _ask(sidecar, "CONNECT", f"{refused}:443"),
        "allowed": lambda: _ask(sidecar, "CONNECT", f"{outside}:443"),
        "signed": lambda: _signed(sidecar, pem, question["signed"]),
        "tcp": lambda: _tcp(question["tcp"]),
        "authority": lambda: _authority(pem),
        "udp": lambda: {target: _udp(target) for target in question["udp"]},
        "dns": lambda: _dns(question["resolver"], refused),
        "ipv6": _ipv6,
        "processes": _processes,
        "sockets": _sockets,
        "tokens": lambda: search(question["shape"], question["digest_key"], _ROOT),
        "shell": lambda: _within("", "/bin/bash"),
        "userland": lambda: _userland(base),
        **_of_the_kernel(),
    }
    answers: dict[str, object] = {}
    threads = [
        threading.Thread(target=_note, args=(answers, *look), daemon=True) for look in list(looks.items())[:_BESIDE]
    ]
    for thread in threads:
        with suppress(RuntimeError):  # no more processes: the look has no answer
            thread.start()
    for name, look in list(looks.items())[_BESIDE:]:
        _note(answers, name, look)
    threads[0].join(_LIMIT)  # a resolver may hang for minutes
    for thread in threads[1:]:
        thread.join(_LISTENING + _SIDECAR_LIMIT + 1)
    print(json.dumps(dict(answers)), flush=True)
    os._exit(0)  # not waiting for a resolver that hangs


def _of_the_kernel() -> dict[str, Callable[[], object]]:
    """Return the looks at what the kernel says of the bottle's first process."""
    return {
        "limits": _limits,
        "core": lambda: re.findall(r"^Max core file size +(\S+) +(\S+)", _read("/proc/1/limits"), re.MULTILINE)[0],
        "mounts": lambda: _read("/proc/1/mountinfo"),
        "devices": lambda: sorted(os.listdir(_within(_ROOT, "/dev"))),
        "namespaces": lambda: {name: os.readlink(f"/proc/1/ns/{name}") for name in ("ipc", "uts")},
        "addresses": _addresses,
        "cgroup2": lambda: os.path.exists("/sys/fs/cgroup/cgroup.controllers"),
    }


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


def _signed(
    sidecar: tuple[str, int], pem: str, asked: list[tuple[str, str, int, dict[str, str], list[str]]]
) -> dict[str, dict[str, tuple[int, str]]]:
    """Send foreign credentials to the self-test of the credential proxy at each host; return its answers by request.

    Asked are a host's key, name and port, headers, and requests, each a method and a target.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=pem)
    found = {}
    for key, name, port, headers, requests in asked:
        lines = "".join(f"{header}: {value}\r\n" for header, value in {"Host": key, **headers}.items())
        answers: dict[str, tuple[int, str]] = {}
        with suppress(OSError, ValueError):  # without an answer; the other hosts may have theirs
            while len(answers) < len(requests):
                with _tunnel(sidecar, name, port, context) as tunnel:
                    answers.update(_answered(tunnel, requests[len(answers) :], lines))
            found[key] = answers
    return found


def _tunnel(sidecar: tuple[str, int], name: str, port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Connect to a host through the sidecar; raises OSError, also for a certificate that is not trusted."""
    connection = _connected(sidecar)
    try:
        connection.settimeout(_SIDECAR_LIMIT)
        connection.sendall(f"CONNECT {name}:{port} HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n".encode())
        if b" 200 " not in _received(connection, b"", b"\r\n\r\n").partition(b"\r\n")[0]:
            raise OSError("no tunnel")
        return context.wrap_socket(connection, server_hostname=name)
    except BaseException:
        connection.close()
        raise


def _answered(tunnel: ssl.SSLSocket, requests: list[str], headers: str) -> dict[str, tuple[int, str]]:
    """Send requests one after the other; return the status and body of each answer up to one that is the last here.

    Raises OSError or ValueError without an answer.
    """
    found = {}
    for request in requests:
        tunnel.sendall(f"{request} HTTP/1.1\r\n{headers}\r\n".encode())
        head, _, body = _received(tunnel, b"", b"\r\n\r\n").partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *([0-9]{1,6})(?:\r|$)", head)
        if not length:
            raise ValueError("no length")
        size = 0 if request.startswith("HEAD ") else int(length[1])
        found[request] = int(head.split(b" ")[1]), _received(tunnel, body, size).decode("latin-1")
        if b"\r\nconnection: close" in head.lower():  # as behind 400
            break
    return found


def _received(connection: socket.socket, got: bytes, end: bytes | int) -> bytes:
    """Receive more than `got`, until there is `end`, or as many bytes; raises OSError if the other side ends first."""
    while len(got) < end if isinstance(end, int) else end not in got:
        chunk = connection.recv(65536)
        if not chunk or len(got) > 1 << 20:
            raise OSError("no whole answer")
        got += chunk
    return got


def _authority(pem: str) -> tuple[int, list[str]]:
    """Return how many certificates there are, and what OpenSSL prints of the first one's extensions, a line each."""
    argv = ("/usr/bin/openssl", "x509", "-noout", "-ext", "basicConstraints,nameConstraints,keyUsage")
    done = subprocess.run(argv, input=pem.encode(), stdout=subprocess.PIPE, env={}, check=True)
    return pem.count("-----BEGIN "), [line.strip() for line in done.stdout.decode().splitlines()]


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
        with open("/proc/net/if_inet6", encoding="ascii") as file:
            rows = [line.split() for line in file]
    except FileNotFoundError:  # no IPv6 in this kernel
        return []
    return [f"{row[0]} {row[5]}" for row in rows if row[5] != "lo"]


def _addresses() -> list[str]:
    """Return every IPv4 address that is not the loopback interface's."""
    own = re.findall(r"\|-- (\S+)\n +/32 host LOCAL", _read("/proc/net/fib_trie"))
    return sorted({address for address in own if not address.startswith("127.")})


def _processes() -> dict[str, object]:
    """Return what the kernel says of every process, and where they can be read its program and its variables' names."""
    found: dict[str, object] = {"self": str(os.getpid())}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            lines = [line.partition(":") for line in _read(f"/proc/{pid}/status").splitlines()]
            status: dict[str, object] = {key: value.split() for key, _, value in lines if key in _STATUS}
            with suppress(PermissionError):
                pairs = _read(f"/proc/{pid}/environ").split("\0")
                status["names"] = [pair.partition("=")[0] for pair in pairs if pair]
                status["exe"] = os.readlink(f"/proc/{pid}/exe")
            found[pid] = status
    return found


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _sockets() -> list[str]:
    """Return the sockets of container engines in the bottle, at their usual places or mounted anywhere."""
    mounted = [line.split()[4] for line in _read("/proc/1/mountinfo").splitlines()]
    os.stat(f"{_ROOT}/")
    there = [path for path in _SOCKETS if os.path.lexists(_placed(path))]
    return sorted({*there, *(path for path in mounted if path.endswith(".sock"))})


def _limits() -> dict[str, str]:
    """Return the files with the limits of the bottle's first process, of its own cgroup alone, where it is mounted."""
    rows = [line.split(":", 2) for line in _read("/proc/1/cgroup").splitlines()]
    cgroups = {name: path for _, names, path in rows for name in names.split(",")}
    found: dict[str, str] = {}
    for line in _read("/proc/1/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        root, place = left.split()[3:5]
        kind, _, options = right.split(" ", 2)
        for name in {"cgroup": options.split(","), "cgroup2": [""]}.get(kind, ()):
            for file in _LIMIT_FILES.get(name, ()) if cgroups.get(name) == root else ():
                with suppress(OSError):
                    found[file] = _read(_within(_ROOT, f"{place}/{file}"))
    return found


def _placed(path: str) -> str:
    """Return where a path of the bottle is seen from here, its last part as it is, even if that is a link."""
    folder, _, name = path.rpartition("/")
    return f"{_within(_ROOT, folder)}/{name}"


def prepare(programs: list[str], files: list[str], modules: list[str]) -> Base | None:
    """Look at programs and all that they load, as it is in the base image, which is here and does not change.

    Before the question, since it takes as long as all other looks. None if that is not possible: then the bottle's are
    not looked at either.
    """
    with suppress(Exception):
        sources, extensions, neighbours = _python(modules)
        libraries: dict[str, str] = {}
        for text in _traced(programs, extensions):
            libraries.update((path, name) for name, path in _LOADED.findall(text))
        states = {path: _state("", path) for path in (*programs, *files, *sources, *libraries)}
        loaded = set(filter(None, libraries.values()))
        return states, neighbours, {key: paths for key, paths in _cached("").items() if key[0] in loaded}
    return None


def _userland(base: Base | None) -> dict[str, list[str]]:
    """Return what `prepare` has found, each as it is in the base image and in the bottle."""
    if base is None:
        raise ValueError("nothing to compare with")
    states, neighbours, cached = base
    found = {path: [state, _state(_ROOT, path)] for path, state in states.items()}
    for (folder, stem), names in neighbours.items():
        found[f"{folder}/{stem}*"] = [names, _alike(_ROOT, folder).get(stem, "")]
    there = _cached(_ROOT)
    for (name, kind), paths in cached.items():
        found[f"{_CACHE}: {name}, {kind}"] = [" ".join(paths), " ".join(there.get((name, kind), ()))]
    return found


def _traced(programs: list[str], extensions: list[str]) -> list[str]:
    """Return what the loader says that each program loads, Python with its extensions; they are asked side by side."""
    started = []
    for program in programs:
        env = {"LD_TRACE_LOADED_OBJECTS": "1", "LD_PRELOAD": ":".join(extensions) if "python" in program else ""}
        started.append(subprocess.Popen((program,), env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE))
    said = [each.communicate()[0].decode() for each in started]
    for each in started:
        if each.returncode:
            raise subprocess.CalledProcessError(each.returncode, each.args)
    return said


def _python(modules: list[str]) -> tuple[list[str], list[str], dict[tuple[str, str], str]]:
    """Return the files of all that Python has loaded with `modules`, which of these are libraries, and neighbours.

    A neighbour, by its folder and the module's name, is a file or folder that Python could take for the same module:
    `json.so` beside `json`.
    """
    for name in modules:
        importlib.import_module(name)
    files = [path for path in sys.path if not os.path.isdir(path)]  # a zip file would come first
    places = [path for path in sys.path if os.path.isdir(path)]
    extensions: list[str] = []
    found: dict[tuple[str, str], str] = {}
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        if spec is None or not spec.has_location:
            continue
        files += filter(None, (spec.origin, spec.cached))
        extensions += [spec.origin] if spec.origin.endswith(".so") else []
        parent, _, stem = name.rpartition(".")
        for folder in list(sys.modules[parent].__path__) if parent else places:
            found[folder, stem] = _alike("", folder).get(stem, "")
    return files, extensions, found


@functools.lru_cache(maxsize=None)  # noqa: UP033  (Python 3.9)
def _alike(root: str, folder: str) -> dict[str, str]:
    """Return the names in a folder, by what they are up to their first dot."""
    found: dict[str, list[str]] = {}
    for name in sorted(os.listdir(_within(root, folder))):
        found.setdefault(name.partition(".")[0], []).append(name)
    return {stem: " ".join(names) for stem, names in found.items()}


def _state(root: str, path: str) -> str:
    """Return where a path leads and the digest of what is there."""
    at = _within(root, path)
    try:
        mode = os.lstat(at).st_mode
        if not stat.S_ISREG(mode):
            return f"{at[len(root) :]} is no file"
        total = hashlib.sha256()
        with open(at, "rb", buffering=0, opener=_without_following) as file:
            for size in iter(lambda: file.readinto(_BLOCK), 0):
                total.update(_BLOCK[:size])
    except (FileNotFoundError, NotADirectoryError):
        return "absent"
    return f"{at[len(root) :]} {total.hexdigest()}"


def _without_following(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _within(root: str, path: str) -> str:
    """Return where a path leads for a process with that root: the kernel would follow an absolute link to our own."""
    folder, _, name = path.rpartition("/")
    return root + _led(root, _folder(root, folder), name)


@functools.lru_cache(maxsize=None)  # noqa: UP033  (Python 3.9)
def _folder(root: str, path: str) -> str:
    return _led(root, "", path)


def _led(root: str, at: str, path: str) -> str:
    """Return where a path leads that begins in the folder `at`, which no link leads to."""
    links = 0
    parts = path.split("/")[::-1]
    while parts:
        part = parts.pop()
        if part == "..":
            at = at.rpartition("/")[0]
        elif part not in ("", "."):
            try:
                link = os.readlink(f"{root}{at}/{part}")
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
                    raise
                at += f"/{part}"
            else:
                links += 1
                if links > _LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                at = "" if link.startswith("/") else at
                parts += link.split("/")[::-1]
    return at


def _cached(root: str) -> dict[tuple[str, int], list[str]]:
    """Return the loader's cache: by name and kind of a library the paths that it may be loaded from, in order.

    The format is that of glibc 2.32 and newer, or the newer half of what older ones write.
    """
    with open(_within(root, _CACHE), "rb") as file:
        data = file.read()
    data = data[data.index(b"glibc-ld.so.cache1.1") :]

    def text(offset: int) -> str:
        return data[offset : data.index(b"\0", offset)].decode(errors="replace")

    found: dict[tuple[str, int], list[str]] = {}
    for index in range(struct.unpack_from("=I", data, 20)[0]):
        kind, key, value = struct.unpack_from("=iII", data, 48 + 24 * index)
        found.setdefault((text(key), kind), []).append(text(value))
    return found
