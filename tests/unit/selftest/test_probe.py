"""The probe tells what is there, on whatever Python an image has."""

import ast
import hashlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from claude_bottle.selftest import probe


@contextmanager
def sidecar(answer: bytes) -> Iterator[int]:
    """Listen on loopback and give everybody one answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1024)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def test_the_probe_tells_what_is_there() -> None:
    source = Path(probe.__file__).read_text()
    with sidecar(b"HTTP/1.0 200 OK\r\n\r\nhello") as port, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        refusing = f"127.0.0.1 {closed.getsockname()[1]}"
        asked = {
            "sidecar": ("127.0.0.1", port), "outside": "localhost", "refused": "a.invalid", "resolver": "127.0.0.1",
            "tcp": [f"127.0.0.1 {port}", refusing], "udp": ["no target"],
        }  # fmt: skip
        program = f"{source}\nmain({asked!r})\n".encode()
        argv = (sys.executable, "-I", "-")
        ran = subprocess.run(argv, input=program, capture_output=True, check=True, env={"PLANTED": "x"})
    said = json.loads(ran.stdout)
    assert said["tcp"] == {f"127.0.0.1 {port}": "connected", refusing: "ECONNREFUSED"}
    assert "127.0.0.1" in said["resolved"]
    assert said["health"] == "HTTP/1.0 200 OK\r\n\r\nhello"
    assert said["allowed"].startswith("HTTP/1.0 200")
    own = said["processes"][said["processes"]["self"]]
    assert "PLANTED" in own["names"]
    assert len(own["Uid"]) == 4
    assert "udp" not in said  # the look tripped: no answer, rather than half of one


def test_the_probe_runs_on_an_old_python_alone() -> None:
    tree = ast.parse(Path(probe.__file__).read_text(), feature_version=(3, 9))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names <= sys.stdlib_module_names


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
