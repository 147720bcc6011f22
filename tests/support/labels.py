"""Sessions as docker lists them by their labels, with owners of every kind."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from claude_bottle.host import machine

HERE = machine.read().owner
MACHINE, BOOT, *_ = HERE.split(":")
ELSEWHERE = "other:boot:1:2"
REBOOTED = f"{MACHINE}:before:1:2"
LIST = "ps --all --no-trunc"


def row(session: str, owner: str, role: str = "agent", agent: str = "demo", repository: str = "") -> str:
    """Return a container as `docker ps` tells it."""
    bottle = ("default", "headless", "/agents/bottles/default.yaml", "claude-bottle:x", repository)
    return "\t".join(("2026-11-24 11:00:00 +0100 CET", *map(json.dumps, (session, owner, role, agent, *bottle)))) + "\n"


def objects(session: str, owner: str) -> str:
    """Return containers as they are listed for removal."""
    names = ((f"claude-bottle-{session}-sidecar", "sidecar"), (f"claude-bottle-{session}", "agent"))
    return "".join(f"{name}\t{session}\t{owner}\t{role}\n" for name, role in names)


@contextmanager
def launcher() -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """Yield a living process, and the owner label of what it would have made."""
    with subprocess.Popen(("sleep", "600")) as process:
        yield process, f"{MACHINE}:{BOOT}:{process.pid}:{machine.start_time(process.pid)}"
        process.kill()
