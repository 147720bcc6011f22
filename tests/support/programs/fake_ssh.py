"""An `ssh` that forwards a socket to an engine that answers pings alone; put on PATH beside the fake docker.

It writes its arguments to `ssh-log`, a line each. A file `ssh-refuses` has it fail, with what that says; with one named
`ssh-mute` there is no engine at the other end, with one named `ssh-hangs` it never connects. Like the real one,
whose remote command ends, it ends with its stdin. `ssh-there` is the endpoint of docker at the other end.
"""

import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

FOLDER = Path(__file__).absolute().parent.parent


def serve(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1 << 12)
            if not (FOLDER / "ssh-mute").exists():
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")


with (FOLDER / "ssh-log").open("a") as file:
    file.write(json.dumps({"pid": os.getpid(), "argv": sys.argv[1:]}) + "\n")
if (FOLDER / "ssh-refuses").exists():
    sys.exit((FOLDER / "ssh-refuses").read_text())
while (FOLDER / "ssh-hangs").exists():
    time.sleep(60)
here = sys.argv[sys.argv.index("-L") + 1].partition(":")[0]
listener = socket.socket(socket.AF_UNIX)
listener.bind(here)
listener.listen()
threading.Thread(target=serve, args=(listener,), daemon=True).start()
there = FOLDER / "ssh-there"
os.write(1, f"up {there.read_text() if there.exists() else ''}\n".encode())
while os.read(0, 1 << 12):
    pass
