"""Judge whose the bottle's processes are, and whether the programs run in it by the launcher are the base image's."""

import re
from collections.abc import Iterator
from pathlib import Path

from claude_bottle import repository
from claude_bottle.process.container import AGENT, GUARD
from claude_bottle.selftest import inspect_checks
from claude_bottle.selftest.evidence import Data, Evidence, Inconclusive

SHELL = "/bin/bash"
# What is run in a bottle by its first process, `container.execute`, clone.sh and the exporter.
PROGRAMS = (
    SHELL,
    "/bin/cat",
    "/usr/bin/env",
    "/usr/bin/tar",
    "/usr/bin/python3",
    "/usr/bin/git",
    "/usr/lib/git-core/git",
)
# Read by every program's loader, or by Python before any option of its own.
FILES = ("/etc/ld.so.preload", "/usr/bin/pyvenv.cfg", "/usr/pyvenv.cfg", "/usr/bin/pybuilddir.txt")
_IMPORT = re.compile(r"^\s*(?:import|from) ([\w.]+)", re.MULTILINE)  # parsing takes as long as all else of a plan
_GUARD, _AGENT = int(GUARD.partition(":")[0]), int(AGENT.partition(":")[0])


def compared() -> tuple[tuple[str, ...], tuple[str, ...], list[str]]:
    """Return what the probe is to compare: programs, other files, and the modules of what runs in the bottle."""
    paths = (Path(repository.__file__).with_name("exporter.py"), Path(__file__).with_name("search.py"))
    modules = {name for path in paths for name in _IMPORT.findall(path.read_text(encoding="utf-8"))}
    return PROGRAMS, FILES, sorted(modules)


def user(seen: Evidence) -> Iterator[str]:
    """Real, effective, saved and file system's user of every process, seen from inside and by the engine."""
    for pid, status in seen.processes.items():
        if "0" in status["Uid"] or not status["Uid"]:
            yield f"process {pid} is root's"
    if not seen.listed:
        raise Inconclusive("the engine cannot list processes with their users, so they were seen by the probe alone")
    first = _first(seen)
    for pid, *users in seen.listed:
        # Where users are mapped, root's is as far from the first process's as it is inside.
        if not users or {0, first - _GUARD} & set(map(int, users)):
            yield f"the engine's process {pid} is root's"


def guard(seen: Evidence) -> Iterator[str]:
    """The first process and the shell that reads the lifeline, and that nothing else has their user."""
    if seen.bottle["Config"]["User"] != GUARD:
        yield f"the first process runs as {seen.bottle['Config']['User'] or 'root'}"
    if seen.bottle["HostConfig"].get("Init") is not True:
        yield "the first process is the image's"
    elif seen.processes["1"].get("exe") not in inspect_checks.mounted(seen.probe["mounts"]):
        yield "the first process is not the engine's, by the kernel"
    others = {pid: status for pid, status in seen.processes.items() if pid != seen.probe["processes"]["self"]}
    theirs = {pid: status for pid, status in others.items() if str(_GUARD) in (*status["Uid"], *status["Gid"])}
    if {user for key in ("Uid", "Gid") for user in others["1"][key]} != {str(_GUARD)}:
        yield "process 1 is not the guard's alone"
    shells = [pid for pid, status in theirs.items() if pid != "1" and _reads_the_lifeline(status, seen)]
    yield from (f"process {pid} has the guard's user" for pid in theirs if pid not in ("1", *shells[:1]))
    if not shells:
        yield "nothing reads the lifeline"
    if seen.listed:
        yield from _from_outside(seen)


def _from_outside(seen: Evidence) -> Iterator[str]:
    first = _first(seen)
    outside = [users for _, *users in seen.listed if first in map(int, users)]
    if len(outside) != 2:
        yield f"the engine sees {len(outside)} processes of the guard's user, not 2"
    allowed = {first, first - _GUARD + _AGENT}
    for pid, *users in seen.listed:
        if not allowed.issuperset(map(int, users)):
            yield f"the engine's process {pid} has another user: {', '.join(users)}"


def userland(seen: Evidence) -> Iterator[str]:
    """Digests of programs, their libraries and Python's modules, in the bottle and in the base image."""
    found = seen.probe["userland"]
    missing = [path for path in (*PROGRAMS, *FILES) if path not in found]
    yield from (f"{path} was not looked at" for path in missing)
    if not any(path.endswith("/subprocess.py") for path in found):
        yield "Python's modules were not looked at"
    for path, (base, bottle) in found.items():
        if base != bottle or (path in PROGRAMS and base == "absent"):
            yield f"{path} is not the base image's"


def _reads_the_lifeline(status: Data, seen: Evidence) -> bool:
    return bool(status["PPid"] == ["1"] and status["exe"] == seen.probe["shell"])


def _first(seen: Evidence) -> int:
    """Return the user that the engine's list has for the bottle's first process."""
    [users] = [users for pid, *users in seen.listed if pid == str(seen.bottle["State"]["Pid"])]
    [one] = set(map(int, users))
    return one
