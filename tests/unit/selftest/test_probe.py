"""The probe tells what is there, on whatever Python an image has."""

import ast
import base64
import hashlib
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from claude_bottle.bottle.plan import Plan
from claude_bottle.selftest import probe, receipt
from tests.support import systems
from tests.support.receipts import KNOWN

LENGTH = b"HTTP/1.1 207 Odd\r\nA: b\r\ncontent-length: %d\r\n\r\n"


@contextmanager
def sidecar(answer: bytes, tls: ssl.SSLContext | None = None, *, last: bool = False) -> Iterator[int]:
    """Listen on loopback and give everybody one answer.

    With `tls` it says that a tunnel is open, in which each request gets the answer, its own length filled in, and
    itself; or, if that is the `last`, the first one gets the answer as it is.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
                    if tls and connection.recv(1024).startswith(b"CONNECT localhost:"):
                        connection.sendall(b"HTTP/1.1 200 Connection Established\r\n\r\n")
                        with tls.wrap_socket(connection, server_side=True) as tunnel:
                            while got := tunnel.recv(4096):
                                if last:
                                    tunnel.sendall(answer)
                                    break
                                tunnel.sendall(answer % len(got))
                                tunnel.sendall(b"" if got.startswith(b"HEAD ") else got)
                    else:
                        connection.recv(1024)
                        connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def signed(port: int, pem: str, *asked: tuple[str, str, int, dict[str, str], list[str]]) -> dict[str, Any]:
    """Ask through the sidecar what the self-test asks of a credential proxy."""
    return dict(probe._signed(("127.0.0.1", port), base64.b64decode(pem).decode(), list(asked)))


def authority(folder: Path, name: str) -> tuple[ssl.SSLContext, str]:
    """Make a certificate that is its own authority; return a server that has it, and its PEM in base64."""
    pem, key = folder / f"{name}.pem", folder / f"{name}.key"
    new = ("openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    limits = ("-addext", f"subjectAltName=DNS:{name}", "-addext", "nameConstraints=critical,permitted;DNS:" + name)
    out = ("-subj", "/CN=x", "-out", str(pem), "-keyout", str(key))
    subprocess.run((*new, *out, *limits), check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem, key)
    return server, base64.b64encode(pem.read_bytes()).decode()


def probed(plan: Plan, asked: dict[str, Any], pem: str) -> dict[str, Any]:
    """Run the probe as a bottle's container does, and return its answers."""
    program, _ = receipt.probe_input(plan, KNOWN)
    call = pem.join(receipt.probe_call(repr(asked))).encode()
    argv, env = (sys.executable, "-I", *receipt.probe_argv(plan, len(program))[-2:]), {"PLANTED": "x"}
    ran = subprocess.run(argv, input=program + call, capture_output=True, check=True, env=env)
    answers: dict[str, Any] = json.loads(ran.stdout)
    return answers


@systems.needs_linux("/proc")
def test_the_probe_tells_what_is_there(plan: Plan, tmp_path: Path) -> None:
    _, pem = authority(tmp_path, "localhost")
    with sidecar(b"HTTP/1.0 200 OK\r\n\r\nhello") as port, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        refusing = f"127.0.0.1 {closed.getsockname()[1]}"
        asked: dict[str, Any] = {
            "sidecar": ("127.0.0.1", port), "outside": "localhost", "refused": "a.invalid", "resolver": "127.0.0.1",
            "tcp": [f"127.0.0.1 {port}", refusing], "udp": ["no target"], "shape": "x", "digest_key": "00",
            "signed": [("a key", "localhost", 443, {}, ["GET /"])],
        }  # fmt: skip
        said = probed(plan, asked, pem)
    assert said["tcp"] == {f"127.0.0.1 {port}": "connected", refusing: "ECONNREFUSED"}
    assert "127.0.0.1" in said["resolved"]
    assert said["health"] == "HTTP/1.0 200 OK\r\n\r\nhello"
    assert said["allowed"].startswith("HTTP/1.0 200")
    own = said["processes"][said["processes"]["self"]]
    assert "PLANTED" in own["names"]
    assert len(own["Uid"]) == 4
    assert "udp" not in said  # the look tripped: no answer, rather than half of one
    assert said["signed"] == {}  # as there is no TLS behind
    count, lines = said["authority"]
    assert count == 1
    at = lines.index("X509v3 Name Constraints: critical")
    assert lines[at + 1 : at + 3] == ["Permitted:", "DNS:localhost"]


def test_the_probe_sends_foreign_credentials_through_the_sidecar(tmp_path: Path) -> None:
    """All requests to a host on one connection, and a host that cannot be reached is as if it had not been asked."""
    server, pem = authority(tmp_path, "localhost")
    foreign = {"X-Api-Key": "a", "Cookie": "b=c"}
    with sidecar(LENGTH, server) as port:
        said = signed(
            port,
            pem,
            ("elsewhere.test", "elsewhere.test", 443, foreign, ["GET /right"]),
            ("localhost:8443", "localhost", 8443, foreign, ["GET /right", "HEAD /x", "GET /wrong"]),
        )
    lines = "HTTP/1.1\r\nHost: localhost:8443\r\nX-Api-Key: a\r\nCookie: b=c\r\n\r\n"
    expected = {
        "GET /right": (207, f"GET /right {lines}"),
        "HEAD /x": (207, ""),
        "GET /wrong": (207, f"GET /wrong {lines}"),
    }
    assert said == {"localhost:8443": expected}


def test_the_probe_goes_on_after_an_answer_that_ends_its_connection(tmp_path: Path) -> None:
    server, pem = authority(tmp_path, "localhost")
    requests = ["GET /1", "GET /2", "GET /3"]
    with sidecar(b"HTTP/1.1 400 Bad\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx", server, last=True) as port:
        said = signed(port, pem, ("a key", "localhost", 443, {}, requests))
    assert said == {"a key": dict.fromkeys(requests, (400, "x"))}


@pytest.mark.parametrize("name", ["", "localhost", "elsewhere.test"])
def test_the_probe_believes_the_sessions_authority_alone(tmp_path: Path, name: str) -> None:
    """Whatever answers must be what the authority has signed: another's certificate, or name, is no answer."""
    (tmp_path / "other").mkdir()
    own, pem = authority(tmp_path, "localhost")
    server = authority(tmp_path / "other", name)[0] if name else own
    with sidecar(LENGTH, server) as port:
        said = signed(port, pem, ("a key", "localhost", 443, {}, ["GET /right"]))
    assert bool(said) is not bool(name)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n",
        b"HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_half_an_answer_is_none(tmp_path: Path, answer: bytes) -> None:
    server, pem = authority(tmp_path, "localhost")
    with sidecar(answer, server, last=True) as port:
        assert signed(port, pem, ("a key", "localhost", 443, {}, ["GET /right"])) == {}


def test_a_sidecar_that_refuses_leaves_no_answer(tmp_path: Path) -> None:
    _, pem = authority(tmp_path, "localhost")
    with sidecar(b"HTTP/1.0 403 Forbidden\r\n\r\n 200 ") as port, pytest.raises(OSError, match="no tunnel"):
        probe._tunnel(("127.0.0.1", port), "localhost", 443, ssl.create_default_context())
    with sidecar(b"HTTP/1.0 403 Forbidden\r\n\r\n 200 ") as port:
        assert signed(port, pem, ("a key", "localhost", 443, {}, ["GET /right"])) == {}


@pytest.mark.parametrize("name", ["probe.py", "search.py"])
def test_the_probe_runs_on_an_old_python_alone(name: str) -> None:
    tree = ast.parse(Path(probe.__file__).with_name(name).read_text(), feature_version=(3, 9))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


@pytest.mark.parametrize(
    ("link", "found"),
    [
        (None, "/usr/bin/git"),
        ("/opt/git", "/opt/git"),  # which the kernel would look for outside
        ("../../opt/git", "/opt/git"),
        ("/../../../opt/./git", "/opt/git"),
        ("/opt/folder/git", "/opt/git"),
        ("nowhere", "/usr/bin/nowhere"),
    ],
)
def test_a_link_of_the_bottle_leads_nowhere_else(tmp_path: Path, link: str | None, found: str) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt/git").write_text("another")
    (tmp_path / "opt/folder").symlink_to("/opt")
    if link:
        (tmp_path / "usr/bin/git").symlink_to(link)
    else:
        (tmp_path / "usr/bin/git").write_text("git")
    root = str(tmp_path)
    assert probe._within(root, "/usr/bin/git") == root + found
    state = probe._state(root, "/usr/bin/git")
    content = (tmp_path / found[1:]).read_bytes() if link != "nowhere" else None
    assert state == ("absent" if content is None else f"{found} {hashlib.sha256(content).hexdigest()}")


def test_what_python_could_take_for_a_module_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(Path(json.__file__).parent)
    bottles = tmp_path / folder[1:]
    bottles.mkdir(parents=True)
    for name in ("decoder.py", "decoder.so", "decoders.py", "decoder_.so"):
        (bottles / name).write_text("")
    (tmp_path / "file").write_text("another")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/ld.so.cache").write_bytes(b"glibc-ld.so.cache1.1" + bytes(28))
    monkeypatch.setattr(probe, "_ROOT", str(tmp_path))
    base = ({"/file": "absent"}, {(folder, "decoder"): "decoder.py"}, {("libz.so.1", 3): ["/lib/libz.so.1"]})
    assert probe._userland(base) == {
        "/file": ["absent", f"/file {hashlib.sha256(b'another').hexdigest()}"],
        f"{folder}/decoder*": ["decoder.py", "decoder.py decoder.so"],
        "/etc/ld.so.cache: libz.so.1, 3": ["/lib/libz.so.1", ""],
    }


@systems.needs_linux("its loader")
def test_the_base_image_is_looked_at_before_the_question() -> None:
    call = "states, found, _ = prepare([sys.executable], ['/nowhere'], ['json.decoder'])"
    shown = "print(json.dumps([states, found[json.__path__[0], 'decoder'], json.decoder.__file__]))"
    source = "\n".join((Path(probe.__file__).read_text(), call, shown))
    ran = subprocess.run((sys.executable, "-I", "-S", "-"), input=source.encode(), capture_output=True, check=True)
    states, neighbours, decoder = json.loads(ran.stdout)
    assert states["/nowhere"] == "absent"
    assert states[decoder] == f"{decoder} {hashlib.sha256(Path(decoder).read_bytes()).hexdigest()}"
    assert any(path.rpartition("/")[2].startswith("libc.so") for path in states)
    assert neighbours == "decoder.py"


def test_a_program_that_the_base_image_lacks_leaves_no_answer() -> None:
    assert probe.prepare(["/nowhere"], [], []) is None
    with pytest.raises(ValueError, match="nothing to compare with"):
        probe._userland(None)


def test_links_in_a_circle_and_what_is_no_file_are_told(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("/b")
    (tmp_path / "b").symlink_to("/a")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="symbolic links"):
        probe._state(str(tmp_path), "/a")
    assert probe._state(str(tmp_path), "/fifo") == "/fifo is no file"


def test_the_loaders_cache_is_read(tmp_path: Path) -> None:
    texts = b"libz.so.1\0/lib/libz.so.1\0/x/libz.so.1\0"
    start = 48 + 3 * 24
    places = [(0x0303, 0, 10), (0x0303, 0, 25), (3, 0, 10)]
    entries = b"".join(struct.pack("=iIIIQ", kind, start + key, start + value, 0, 0) for kind, key, value in places)
    head = b"glibc-ld.so.cache1.1" + struct.pack("=II", 3, len(texts)) + bytes(20)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/ld.so.cache").write_bytes(b"older half" + head + entries + texts)
    assert probe._cached(str(tmp_path)) == {
        ("libz.so.1", 0x0303): ["/lib/libz.so.1", "/x/libz.so.1"],
        ("libz.so.1", 3): ["/lib/libz.so.1"],
    }


CGROUPS = "4:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n2:pids:/docker/1\n1:name=systemd:/\n0::/docker/1\n"
MOUNTED = (
    "30 29 0:1 {root} /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
    "31 29 0:2 {root} /sys/fs/cgroup/cpu,cpuacct ro shared:4 - cgroup cgroup rw,cpu,cpuacct\n"
    "32 29 0:3 {root} /sys/fs/cgroup/unified ro - cgroup2 cgroup rw\n"
)


@pytest.mark.parametrize("root", ["/docker/1", "/docker"])
def test_limits_are_read_of_the_processs_own_cgroup_alone(
    tmp_path: Path, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"/proc/1/cgroup": CGROUPS, "/proc/1/mountinfo": MOUNTED.format(root=root)}
    for path in ("memory/memory.limit_in_bytes", "cpu,cpuacct/cpu.cfs_quota_us", "pids/pids.max", "unified/cpu.max"):
        (tmp_path / "sys/fs/cgroup" / path).parent.mkdir(parents=True)
        (tmp_path / "sys/fs/cgroup" / path).write_text(path)
    (tmp_path / "sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").symlink_to("/etc/shadow")
    monkeypatch.setattr(probe, "_ROOT", str(tmp_path))
    monkeypatch.setattr(probe, "_read", lambda path: files.get(path) or Path(path).read_text())
    names = {"memory.limit_in_bytes": "memory", "cpu.cfs_quota_us": "cpu,cpuacct", "cpu.max": "unified"}
    found = {name: f"{folder}/{name}" for name, folder in names.items()}
    assert probe._limits() == (found if root == "/docker/1" else {})  # pids is not mounted, whatever lies there
