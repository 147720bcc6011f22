"""The owner of what a session makes: the process that started it, as a label names it, and whether that still lives."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_UNKNOWN = "-"  # of what the system does not show
_ENDED = ("Z", "X")  # proc(5): a process that has ended and whose parent has not waited for it yet

# Of another machine; gone; alive and another user's; alive, and this user may signal it.
Liveness = Literal["elsewhere", "dead", "theirs", "ours"]


@dataclass(frozen=True)
class Owner:
    """A process, unlike any other of all machines that use an engine, and of all times."""

    machine: str  # this machine, and the part of it in which a pid means something
    boot: str  # the kernel's id of its boot
    pid: int
    started: str  # clock ticks since boot, "-" if the system does not show it

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
        if pid == "0" or not (_is_number(pid) and (started == _UNKNOWN or _is_number(started))):
            return None
        return cls(machine, boot, int(pid), started)

    @classmethod
    def of_this_process(cls) -> "Owner":
        """Return this very process."""
        return cls(_machine(), _line("/proc/sys/kernel/random/boot_id"), os.getpid(), start_time(os.getpid()))

    def is_dead(self, observer: "Owner") -> bool:
        """Return whether the process is certainly gone, as seen from the process `observer`."""
        return self.liveness(observer) == "dead"

    def liveness(self, observer: "Owner") -> Liveness:
        """Return what can be known of the process from the process `observer`.

        Only processes of the observer's own machine are judged; one is dead if the kernel has no such process, if its
        number has been given to another, or if the machine was booted since.
        """
        if self.machine != observer.machine:
            return "elsewhere"
        if self.boot != observer.boot:
            return "dead"
        living: Liveness = "ours"
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return "dead"
        except PermissionError:
            living = "theirs"
        seen = start_time(self.pid)
        # Another user's may be hidden: proc(5), hidepid.
        return living if seen == self.started or (living == "theirs" and seen == _UNKNOWN) else "dead"


def start_time(pid: int) -> str:
    """Return when a process started, in clock ticks since boot (proc(5), field 22); "-" if /proc does not show it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return _UNKNOWN
    state, *rest = stat.rpartition(")")[2].split()  # the command's name may hold spaces and brackets
    return _UNKNOWN if state in _ENDED else rest[18]


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 100 and text == str(int(text))


def _machine() -> str:
    """Return what tells this machine, and this part of it in which a pid means something, from others on one engine."""
    identity = _line("/etc/machine-id")  # machine-id(5)
    if identity == _UNKNOWN:
        import uuid

        identity = f"{uuid.getnode():012x}"  # a hardware address; without one, a number that nobody else has
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")  # pid_namespaces(7)
    except OSError:
        namespace = _UNKNOWN
    return f"{socket.gethostname()}/{identity[:12]}/{namespace}".replace(":", "-")


def _line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip() or _UNKNOWN
    except OSError:
        return _UNKNOWN
