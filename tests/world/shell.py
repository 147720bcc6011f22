"""Start programs for the test world, and say what it does."""

import os
import shutil
import subprocess
from collections.abc import Mapping

#: a bare root shell may lack these, and dockerd and debootstrap live in them
PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))


class WorldError(Exception):
    """The test world cannot be made; the message says what failed and how."""


def say(line: str) -> None:
    """Tell the user one thing that was done."""
    print(f"world: {line}", flush=True)


def which(program: str) -> bool:
    """Tell whether `program` can be run."""
    return shutil.which(program, path=PATH) is not None


def run(*argv: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> str:
    """Run a program and return its stdout; raise WorldError with the tail of its output where it fails."""
    done = attempt(*argv, stdin=stdin, env=env)
    if done.returncode != 0:
        said = (done.stderr + done.stdout).decode(errors="replace").strip().splitlines()
        raise WorldError("\n  ".join((f"{' '.join(argv[:3])} ... exited {done.returncode}", *said[-15:])))
    return done.stdout.decode()


def attempt(*argv: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run a program whose failure is an answer; a program that is not there exits 127."""
    whole = {**os.environ, "PATH": PATH, **(env or {})}
    try:
        return subprocess.run(argv, check=False, input=stdin, capture_output=True, env=whole)
    except FileNotFoundError:
        return subprocess.CompletedProcess(argv, 127, b"", f"{argv[0]}: not found".encode())


def need_root(purpose: str) -> None:
    """Raise WorldError unless this is root on a Debian machine, which `purpose` needs."""
    if os.geteuid() != 0 or not which("apt-get"):
        raise WorldError(f"{purpose}, which takes root on a Debian machine")
