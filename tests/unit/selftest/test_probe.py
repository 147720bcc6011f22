"""The probe tells what is there, on whatever Python an image has."""

import ast
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
