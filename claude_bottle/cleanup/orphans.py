"""Find what sessions have made by its labels, and remove it if its owner is dead."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from claude_bottle import PREFIX
from claude_bottle.cleanup import stack
from claude_bottle.errors import DockerError
from claude_bottle.host import own_file, stage_dir
from claude_bottle.host.owner import TASK, Owner
from claude_bottle.process import liveness
from claude_bottle.process.engine import Engine

_KINDS = {
    # In the order of removal: a network with a running container on it cannot be removed, nor can a volume in use.
    "container": (("ps", "--all"), ("rm", "--force", "--volumes")),
    "network": (("network", "ls"), ("network", "rm")),
    "volume": (("volume", "ls"), ("volume", "rm")),
}
_LAST = ("key-holder", "sidecar")  # the agent goes first: it may have work under way through these


@dataclass(frozen=True)
class Leftover:
    """One object of a session: a container, network or volume on the engine, or a stage dir on this host."""

    kind: str
    name: str
    session: str
    owner: Owner | None
    role: str = ""

    def __str__(self) -> str:
        """Return its kind and name."""
        return f"{self.kind} {self.name}"


def listed(env: Mapping[str, str], session: str | None = None) -> tuple[Leftover, ...]:
    """Return what is on the engine of one session, or of all, in the order of removal.

    Raises EngineError or DockerError.
    """
    label = f"{PREFIX}.session" + (f"={session}" if session else "")
    found = [item for kind, (words, _) in _KINDS.items() for item in _of_kind(env, kind, words, label)]
    return tuple(
        sorted(
            found,
            key=lambda item: (list(_KINDS).index(item.kind), _LAST.index(item.role) if item.role in _LAST else -1),
        )
    )


def stage_dirs(env: Mapping[str, str]) -> Iterator[Leftover]:
    """Yield this user's stage dirs on this host; without owner if the launcher was killed before it wrote that."""
    for folder in (*Path(tempfile.gettempdir()).glob(f"{PREFIX}-*-*"), *_linked(stage_dir.links(env))):
        try:
            if not own_file.owns_folder(folder):  # anybody can make names in /tmp, and any file in such a folder
                continue
            owner = _owner(folder / "owner")
        except OSError:
            continue  # removed meanwhile
        yield Leftover("stage dir", str(folder), folder.name.removeprefix(f"{PREFIX}-").rpartition("-")[0], owner)


def _linked(folder: Path) -> Iterator[Path]:
    """Yield where the links in a folder of this user's own lead."""
    with contextlib.suppress(OSError):
        if own_file.owns_folder(folder):
            yield from (link.readlink() for link in folder.iterdir() if link.is_symlink())


def _owner(file: Path) -> Owner | None:
    try:
        return Owner.parse(own_file.read(file).decode(errors="replace"))
    except OSError:
        return None


def dead(env: Mapping[str, str], items: Iterable[Leftover], observer: Owner) -> tuple[Leftover, ...]:
    """Return those whose owner is certainly gone: as seen from the process `observer` or, of a task, by the engine."""
    found = tuple(item for item in items if item.owner)
    tasks = {item.owner.machine for item in found if item.owner and item.owner.machine.startswith(TASK)}
    gone = tasks - {observer.machine} - _running(env) if tasks - {observer.machine} else set()
    return tuple(
        item for item in found if item.owner and (item.owner.machine in gone or liveness.is_dead(item.owner, observer))
    )


def _running(env: Mapping[str, str]) -> set[str]:
    """Return the names of the tasks' containers that run; raises DockerError: none would be taken for all dead."""
    result = Engine(env).ask("ps", "--filter", f"label={PREFIX}.task", "--format", "{{.Names}}")
    if not result.ok:
        raise DockerError(f"docker ps failed: {result.reason}")
    return set(result.stdout.decode(errors="replace").split())


def remove(env: Mapping[str, str], items: Iterable[Leftover], told: Callable[[str], None]) -> bool:
    """Remove things in the order given; `told` is called with each failure. Return whether all are gone."""
    clean = True
    for item in items:
        reason = _remove(env, item)
        if reason:
            told(f"{item} cannot be removed: {reason}")
            clean = False
    return clean


def _remove(env: Mapping[str, str], item: Leftover) -> str | None:
    if item.kind == "stage dir":
        shutil.rmtree(item.name, ignore_errors=True)
        if Path(item.name).exists():
            return "it is still there"
        with contextlib.suppress(OSError):
            (stage_dir.links(env) / Path(item.name).name).unlink(missing_ok=True)
        return None
    return stack.remove(("docker", *_KINDS[item.kind][1], item.name), env)


def _of_kind(env: Mapping[str, str], kind: str, words: tuple[str, ...], label: str) -> Iterator[Leftover]:
    name = {"container": ".Names"}.get(kind, ".Name")
    # As JSON: a label may hold a tab, or a line that looks like another object's.
    fields = (f"json {name}", *(f'json (.Label "{PREFIX}.{key}")' for key in ("session", "owner", "role")))
    shown = "\t".join(f"{{{{{field}}}}}" for field in fields)
    result = Engine(env).ask(*words, "--filter", f"label={label}", "--format", shown)
    if not result.ok:
        raise DockerError(f"docker {words[0]} failed: {result.reason}")
    for line in result.stdout.decode(errors="replace").split("\n"):
        values = line.split("\t")
        if len(values) != len(fields):
            continue
        try:
            found, session, label, role = map(json.loads, values)
        except ValueError:  # nothing that docker's template prints
            continue
        if owner := Owner.parse(label):
            yield Leftover(kind, found, session, owner, role)
