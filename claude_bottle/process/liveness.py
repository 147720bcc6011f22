"""Whether the process that owns something still lives: read from /proc, or printed by ps on a system without it.

What is not known is never taken for an end: a process is dead only if the system says so.
"""

import calendar
import os
import re
import time
from dataclasses import dataclass
from typing import Literal

from claude_bottle.host.owner import PROC, UNKNOWN, Owner, this_boot, this_machine
from claude_bottle.process import command

# Of another machine; gone; alive and another user's; alive, and this user may signal it.
Liveness = Literal["elsewhere", "dead", "theirs", "ours"]

_ENDED = ("Z", "X")  # the first letter of the state of a process that has ended and has not been waited for
# What POSIX lacks, BSD's, macOS's and Linux's ps have. Without PATH: the system's own, in /bin or /usr/bin.
_PS = ("ps", "-ww", "-o", "stat=", "-o", "lstart=", "-o", "command=", "-p")
_ENV = {"LC_ALL": "C", "TZ": "UTC"}  # names of months are English, and no hour comes twice
_IOREG = ("/usr/sbin/ioreg", "-rd1", "-c", "IOPlatformExpertDevice")
_HARDWARE = re.compile(rb'"IOPlatformUUID" = "([0-9A-Fa-f-]{36})"')
_SHOWN = 4096  # characters of a command line that are looked at
# A Python that runs our program, which starts a session by one of these commands.
_LAUNCHER = re.compile(
    r"^.*python[^/\n]*\s.*?(?<![^\s/])(cli\.py|claude.bottle)\s+(start|verify|fleet\s+run)(?!\S)", re.I | re.S
)


@dataclass(frozen=True)
class Process:
    """What the system shows of a process."""

    started: str = UNKNOWN  # as `Owner.started`
    ended: bool = False  # it has, and its parent has not waited for it yet
    command: str = ""  # its arguments with blanks between them; nothing if the system does not show them


def look(pid: int) -> Process:
    """Return what the system shows of a process; of one that is gone, or hidden, nothing."""
    return _in_proc(pid) if _has_proc() else _by_ps(pid)


def start_time(pid: int) -> str:
    """Return when a process started, as `Owner.started`; "-" if it has ended or the system does not show it."""
    seen = look(pid)
    return UNKNOWN if seen.ended else seen.started


def stamp(pid: int) -> str:
    """Return what distinguishes a process that was just started from a later one with its number, for `is_same`.

    Without /proc that is the time: ps takes so long that this process could be killed before it has noted the other.
    """
    return start_time(pid) if _has_proc() else str(int(time.time()))


def is_same(pid: int, stamp: str) -> bool:
    """Return whether a process is certainly the one of that stamp."""
    started = start_time(pid)
    if UNKNOWN in (started, stamp):
        return False
    return started == stamp if _has_proc() else int(started) <= int(stamp)


def this_process() -> Owner:
    """Return this very process as an owner."""
    return Owner(this_machine(_hardware), this_boot(), os.getpid(), start_time(os.getpid()))


def liveness(owner: Owner, observer: Owner) -> Liveness:
    """Return what can be known of an owner from the process `observer`.

    Only processes of the observer's own machine are judged; one is dead if the kernel has no such process, if it has
    ended, if its number has been given to another, or if the machine was booted since. It lives if that is not known.
    """
    if owner.machine != observer.machine:
        return "elsewhere"
    if owner.boot != observer.boot:
        return "dead"
    living: Liveness = "ours"
    try:
        os.kill(owner.pid, 0)
    except (ProcessLookupError, OverflowError):
        return "dead"
    except PermissionError:
        living = "theirs"
    seen = look(owner.pid)
    if seen.ended or (UNKNOWN not in (seen.started, owner.started) and seen.started != owner.started):
        return "dead"
    return living


def is_dead(owner: Owner, observer: Owner) -> bool:
    """Return whether an owner is certainly gone, as seen from the process `observer`."""
    return liveness(owner, observer) == "dead"


def is_launcher(pid: int) -> bool:
    """Return whether a process may be a launcher: False if its command line is seen to be another program's."""
    seen = look(pid).command[:_SHOWN]
    return not seen or bool(_LAUNCHER.search(seen))


def _hardware() -> str:
    """Return macOS's id of the hardware; nothing on other systems."""
    found = _HARDWARE.search(command.output(_IOREG, _ENV))
    return found[1].decode().replace("-", "").lower() if found else ""


def _has_proc() -> bool:
    return (PROC / "self/stat").exists()


def _in_proc(pid: int) -> Process:
    folder = PROC / str(pid)
    try:
        stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")  # proc(5)
        line = (folder / "cmdline").read_bytes()
    except OSError:
        return Process()
    state, *rest = stat.rpartition(")")[2].split()  # the command's name may hold spaces and brackets
    shown = line.replace(b"\0", b" ").decode(errors="replace").strip()
    return Process(rest[18], state in _ENDED, shown)


def _by_ps(pid: int) -> Process:
    # "Ss   Mon Nov 30 01:02:03 2026     python cli.py start": the time as C's `%c` has it.
    words = command.output((*_PS, str(pid)), _ENV).decode(errors="replace").split(None, 6)
    if not words:
        return Process()
    ended = words[0].startswith(_ENDED)
    try:
        started = calendar.timegm(time.strptime(" ".join(words[1:6]), "%a %b %d %H:%M:%S %Y"))
    except ValueError:
        return Process(ended=ended)
    return Process(str(started) if started > 0 else UNKNOWN, ended, words[6].strip() if len(words) > 6 else "")
