"""Look at the processes of containers from outside, in this machine's /proc."""

import contextlib
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TOKEN = re.compile(r"cb[0-9a-f]{12}")
PROC = Path("/proc")


@contextmanager
def processes(found: list[str]) -> Iterator[None]:
    """Meanwhile, note every process that bears a token as its name and is more than its parent."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            found.extend(_more_than_parents())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _more_than_parents() -> Iterator[str]:
    for process in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name = (process / "comm").read_text().strip()
            if TOKEN.fullmatch(name):
                yield from (f"{name} {reason}" for reason in _reasons(process))


def _reasons(process: Path) -> Iterator[str]:
    """Yield what a process has that its parent has not: user, namespaces, a socket of another kind."""
    status = _fields(process / "status")
    parent = PROC / status["PPid"][0]
    if status["Uid"] != _fields(parent / "status")["Uid"]:
        yield f"has the users {' '.join(status['Uid'])}"
    for namespace in ("user", "net", "mnt"):
        if (process / "ns" / namespace).readlink() != (parent / "ns" / namespace).readlink():
            yield f"has its own {namespace} namespace"
    for one in (process / "fd").iterdir():
        with contextlib.suppress(OSError):
            if os.getxattr(one, "system.sockprotoname").startswith(b"AF_VSOCK"):
                yield "has a socket to the hypervisor"


def _fields(file: Path) -> dict[str, list[str]]:
    lines = (line.partition(":") for line in file.read_text().splitlines())
    return {name: value.split() for name, _, value in lines}


def use(container: str) -> tuple[int, int]:
    """Return how many processes a container (its whole id) has, and how many bytes of memory of their own."""
    count = kilobytes = 0
    for process in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError, KeyError):
            if container in (process / "cgroup").read_text():
                count += 1
                # Of pages that forked processes share, each has its part.
                kilobytes += int(_fields(process / "smaps_rollup")["Pss_Anon"][0])
    return count, kilobytes * 1024
