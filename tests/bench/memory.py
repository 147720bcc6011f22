"""What one session takes of the memory, beside what claude itself takes."""

import contextlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.ground import Ground
from tests.support.sessions import docker

_KIB = 1 << 10
_UNITS = {"B": 1, "KiB": _KIB, "MiB": _KIB**2, "GiB": _KIB**3}


@dataclass(frozen=True)
class Part:
    """Processes of a session, and their memory in bytes: proportional share (PSS) and resident (RSS) added up."""

    name: str
    processes: int
    pss: int
    rss: int


@dataclass(frozen=True)
class Weight:
    """What a session that waits for its claude weighs; `cgroup` is its sidecar's, as `docker stats` shows it."""

    parts: tuple[Part, ...]
    cgroup: int

    @property
    def pss(self) -> int:
        return sum(part.pss for part in self.parts)


def weigh(ground: Ground) -> Weight:
    """Weigh one session; SystemExit where this user may not look at others' processes."""
    launch = ground.launch("hold")
    if launch.told() is None:
        raise SystemExit(f"bench: a session failed: {launch.end()}")
    try:
        [session] = ground.sessions()
        return _weight(launch.process.pid, f"claude-bottle-{session}")
    except PermissionError:
        raise SystemExit("bench: takes root, to read the memory of other users' processes") from None
    finally:
        launch.end()
        ground.launches.clear()


def _weight(launcher: int, bottle: str) -> Weight:
    children = dict(_children(launcher))
    dogs = [pid for pid, line in children.items() if "watchdog" in line]
    clients = [pid for pid, line in children.items() if line.startswith("docker ")]
    if len(dogs) != 1 or len(dogs) + len(clients) != len(children):
        raise SystemExit(f"bench: cannot tell the launcher's processes apart: {sorted(children.values())}")
    ids = docker("inspect", "--format", "{{.Id}}", bottle, f"{bottle}-sidecar").split()
    parts = (
        _part("launcher", [launcher]),
        _part("watchdog", dogs),
        _part("docker clients", clients),
        _part("sidecar", _inside(f"{bottle}-sidecar")),
        _part("the bottle's init and lifeline", _inside(bottle, but="claude")),
        _part(
            "the engine's shims", (pid for pid, line in _processes() if "shim" in line and any(i in line for i in ids))
        ),
    )
    return Weight(parts, _bytes(docker("stats", "--no-stream", "--format", "{{.MemUsage}}", f"{bottle}-sidecar")))


def _part(name: str, pids: Iterable[int]) -> Part:
    measured = [_memory(pid) for pid in pids]
    if not measured:
        raise SystemExit(f"bench: there is no process of {name}")
    return Part(name, len(measured), sum(pss for pss, _ in measured), sum(rss for _, rss in measured))


def _memory(pid: int) -> tuple[int, int]:
    """Return a process's PSS and RSS (proc(5), smaps_rollup)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    pss, rss = (re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE) for name in ("Pss", "Rss"))
    assert pss
    assert rss
    return int(pss[1]) * _KIB, int(rss[1]) * _KIB


def _children(parent: int) -> Iterator[tuple[int, str]]:
    for pid, line in _processes():
        with contextlib.suppress(OSError):  # it has ended
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            if int(stat.rpartition(")")[2].split()[1]) == parent:
                yield pid, line


def _processes() -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield int(folder.name), (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def _inside(container: str, but: str = "") -> list[int]:
    """Return the processes of a container, without claude's own."""
    rows = [row.split(None, 1) for row in docker("top", container, "-eo", "pid,args").splitlines()[1:]]
    return [int(pid) for pid, line in rows if not but or but not in line]


def _bytes(usage: str) -> int:
    found = re.match(r"([0-9.]+)([KMG]?i?B)", usage)
    assert found
    return int(float(found[1]) * _UNITS[found[2]])
