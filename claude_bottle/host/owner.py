"""The owner of what a session makes: the process that started it, as a label names it."""

import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from claude_bottle import PREFIX

TASK = f"{PREFIX}-task-"  # begins the name of a container with a launcher, and its host name
UNKNOWN = "-"  # of what the system does not show
PROC = Path("/proc")
MACHINE_ID = Path("/etc/machine-id")  # machine-id(5)


@dataclass(frozen=True)
class Owner:
    """A process, unlike any other of all machines that use an engine, and of all times."""

    machine: str  # this machine, and the part of it in which a pid means something
    boot: str  # the kernel's id of its boot
    pid: int
    started: str  # clock ticks since boot; without /proc, seconds since 1970; "-" if the system does not show it

    def __str__(self) -> str:
        """Return the label: `<machine>:<boot id>:<pid>:<process start time>`."""
        return f"{self.machine}:{self.boot}:{self.pid}:{self.started}"

    @classmethod
    def parse(cls, label: str) -> "Owner | None":
        """Return the owner that a label names; None if it is not exactly what `str` makes of one."""
        parts = label.split(":")
        if len(parts) != 4 or not all(parts):
            return None
        machine, boot, pid, started = parts
        if pid == "0" or not (_is_number(pid) and (started == UNKNOWN or _is_number(started))):
            return None
        return cls(machine, boot, int(pid), started)


def this_machine(hardware: Callable[[], str] = str) -> str:
    """Return what distinguishes this machine, and this part of it in which a pid means something, on one engine.

    `hardware` returns an id of the machine itself, if the system has one; it is called only without /etc/machine-id.
    """
    host, identity = socket.gethostname(), _line(MACHINE_ID)
    if host.startswith(TASK):
        return host  # its engine knows whether it runs
    if identity == UNKNOWN and (own := hardware()):
        host, identity = UNKNOWN, own  # on macOS the host's name and its hardware address change with the network
    elif identity == UNKNOWN:
        import uuid

        identity = f"{uuid.getnode():012x}"  # a hardware address; without one, a number that nobody else has
    try:
        namespace = str((PROC / "self/ns/pid").readlink()).strip("pid:[]")  # pid_namespaces(7)
    except OSError:
        namespace = UNKNOWN
    # Into a label of a --mount, too, in which a comma or a quotation mark has a meaning.
    return re.sub(r"[^\w./ -]", "-", f"{host}/{identity[:12]}/{namespace}", flags=re.ASCII)


def this_boot() -> str:
    """Return the kernel's id of this boot; "-" if the system does not show it."""
    return _line(PROC / "sys/kernel/random/boot_id")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 100 and text == str(int(text))


def _line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip() or UNKNOWN
    except OSError:
        return UNKNOWN
