"""The engine: the one that answers, else Debian's own, installed and started."""

import os
import subprocess
import time
from pathlib import Path

from tests.world import apt
from tests.world.shell import PATH, WorldError, attempt, need_root, say, which

LOG = Path("/var/log/claude-bottle-dockerd.log")
START_SECONDS = 60


def ensure() -> None:
    """Use the engine that answers, as it is; else install and start one on this machine."""
    version = answers()
    if version:
        say(f"Docker Engine {version} answers")
        return
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        if os.environ.get(name):
            raise WorldError(f"no engine answers, and {name} says to use that one: {os.environ[name]}")
    need_root("no Docker engine answers: start yours, or have one installed and started")
    if not (which("docker") and which("dockerd")):
        apt.install("docker.io", "iptables")
    say(f"Docker Engine {answers() or start(LOG)} answers")


def answers() -> str:
    """Return the version of the engine, or nothing where none answers."""
    asked = attempt("docker", "version", "--format", "{{.Server.Version}}")
    return asked.stdout.decode().strip() if asked.returncode == 0 else ""


def start(log: Path) -> str:
    """Start dockerd, detached: it outlives this program and holds none of its pipes; return its version."""
    with log.open("ab") as out:
        daemon = subprocess.Popen(
            ("dockerd",), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            start_new_session=True, cwd="/", env=os.environ | {"PATH": PATH},
        )  # fmt: skip
    say(f"started dockerd, its output is in {log}")
    deadline = time.monotonic() + START_SECONDS
    while daemon.poll() is None and time.monotonic() < deadline:
        version = answers()
        if version:
            return version
        time.sleep(0.2)
    tail = "\n  ".join(log.read_text(errors="replace").splitlines()[-15:])
    raise WorldError(f"dockerd does not answer; its last lines in {log}:\n  {tail}")
