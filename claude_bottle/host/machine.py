"""The machine and the user that start a session: read once, passed on as a value."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from claude_bottle.host import installation

TOKEN_VARIABLE = "CLAUDE_BOTTLE_OAUTH_TOKEN"  # noqa: S105  (a name, no secret)

_ENDED = ("Z", "X")  # proc(5): a process that has ended and that nobody has asked about yet

# Of another machine; gone; alive and another user's; alive, and this user may signal it.
Fate = Literal["elsewhere", "dead", "theirs", "ours"]


@dataclass(frozen=True)
class Host:
    """Who starts a session and from where; `environ` may hold secrets and is kept out of the repr."""

    environ: Mapping[str, str] = field(repr=False)
    home: Path
    interactive: bool  # stdin is a terminal
    owner: str  # `<host>:<boot id>:<pid>:<process start time>`, the label of whatever a session makes

    def setting(self, name: str) -> str | None:
        """Return the value of CLAUDE_BOTTLE_<name>, None where it is unset or empty."""
        return self.environ.get(f"CLAUDE_BOTTLE_{name}") or None

    @property
    def agents(self) -> Path:
        """Return the manifests' folder: the setting's, else that of the checkout or the installation."""
        chosen = self.setting("AGENTS")
        return self.path(chosen) if chosen else installation.manifests(self.environ, self.home)

    def path(self, text: str) -> Path:
        """Return the path that a setting names; `~` is the user's home, `~other` nobody's."""
        first, _, rest = text.partition("/")
        return self.home / rest if first == "~" else Path(text)

    @property
    def has_token(self) -> bool:
        """Tell whether an OAuth token is there to be handed on."""
        return bool(self.environ.get(TOKEN_VARIABLE))


def read() -> Host:
    """Read environment, home and terminal of this process."""
    return Host(
        environ=dict(os.environ),
        home=Path(os.path.expanduser("~")),  # noqa: PTH111  (Path.home() raises where there is none)
        interactive=os.isatty(0),
        owner=":".join(
            (_machine(), _line("/proc/sys/kernel/random/boot_id"), str(os.getpid()), start_time(os.getpid()))
        ),
    )


def is_dead(owner: str, observer: str) -> bool:
    """Tell whether the process that an owner label names is certainly gone, seen from the process `observer` names."""
    return fate(owner, observer) == "dead"


def fate(owner: str, observer: str) -> Fate:
    """Tell of the process that an owner label names what can be known from the process that `observer` names.

    Only processes of the observer's own machine are judged; one is dead when the kernel has no such process, when its
    number has been given to another, or when the machine was booted since.
    """
    (machine, boot, pid, started), (here, now, *_) = owner.split(":"), observer.split(":")
    if machine != here or not pid.isdecimal():
        return "elsewhere"
    if boot != now:
        return "dead"
    living: Fate = "ours"
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return "dead"
    except PermissionError:
        living = "theirs"
    seen = start_time(int(pid))
    # Another user's may be hidden: proc(5), hidepid.
    return living if seen == started or (living == "theirs" and seen == "-") else "dead"


def start_time(pid: int) -> str:
    """Return when a process started, in clock ticks since boot (proc(5), field 22), or "-" where /proc has it not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "-"
    state, *rest = stat.rpartition(")")[2].split()  # the command's name may hold spaces and brackets
    return "-" if state in _ENDED else rest[18]


def _machine() -> str:
    """Return what tells this machine, and this part of it in which a pid means something, from others on one engine."""
    identity = _line("/etc/machine-id")  # machine-id(5)
    if identity == "-":
        import uuid

        identity = f"{uuid.getnode():012x}"  # a hardware address; where there is none, a number that nobody else has
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")  # pid_namespaces(7)
    except OSError:
        namespace = "-"
    return f"{socket.gethostname()}/{identity[:12]}/{namespace}".replace(":", "-")


def _line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip() or "-"
    except OSError:
        return "-"
