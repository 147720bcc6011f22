"""Bring a task's work home: the bundles of its launcher, through this machine's own quarantine, into branches."""

import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from claude_bottle.errors import BottleError, DockerError, RepositoryError
from claude_bottle.fleet.tasks import OUT, Task
from claude_bottle.host.machine import Machine
from claude_bottle.host.stage_dir import StageDir
from claude_bottle.process import command, stream
from claude_bottle.process.deadline import Deadline
from claude_bottle.repository import fetch, quarantine, report
from claude_bottle.repository.clone import Work
from claude_bottle.repository.quarantine import Quarantine, Room

_SECONDS = 600.0  # for a task's whole work
_MOST = 64  # bundles
_BLOCK = 1 << 20  # bytes


def in_order(name: str) -> tuple[int, str]:
    """Return a key by which the names of branches, or of their bundles, are in the order in which they were made."""
    return len(name), name


def land(machine: Machine, env: Mapping[str, str], task: Task, work: Work, landed: Callable[[str], None]) -> None:
    """Land the work in branches; `landed` is called with the summary of each.

    Raises RepositoryError, once all others have been tried, for bundles that could not be landed: they are saved beside
    the repository. Raises DockerError if the work cannot be had, OSError.
    """
    deadline, room = Deadline(_SECONDS), Room(quarantine.UNPACKED, quarantine.PATHS)
    taken: dict[str, str] = {}
    faults: list[str] = []
    with StageDir.held("task", machine.owner) as stage:
        for bundle in _received(env, task, stage, deadline):
            try:
                apart = Quarantine.make(bundle.parent, work, env, deadline)
                with bundle.open("rb", buffering=0) as file:
                    tip = apart.admit(file, room)
                branch = apart.land(tip, task.id, taken)
            except (BottleError, OSError) as error:
                faults.append(str(fetch.saved(work, task.id, bundle, str(error))))
                continue
            taken[branch] = tip
            landed(report.told(apart.git, work, tip, branch))
    if faults:
        raise RepositoryError("; ".join(faults))


def _received(env: Mapping[str, str], task: Task, stage: StageDir, deadline: Deadline) -> list[Path]:
    """Return the bundles in a task's container, each copied into a folder of its own, in order.

    Their node may be hostile: sizes count as they are written, and nothing but a plain tar is read.
    """
    whole = stage.path / "out.tar"
    argv = ("docker", "cp", f"{task.container}:{OUT}", "-")
    with whole.open("wb", buffering=0) as file:
        seconds = deadline.left(_SECONDS)
        client = command.start(argv, env)
        result = stream.pump(client, what="fetching the work", seconds=seconds, into=file, limit=quarantine.BUNDLE)
    if not result.ok:
        raise DockerError(f"the work cannot be fetched: {result.reason}")
    found: dict[str, Path] = {}
    left = quarantine.BUNDLE
    try:
        with tarfile.open(whole, mode="r:") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() and member.name.endswith(".bundle") else None
                if not content:
                    continue
                left -= member.size
                if left < 0 or len(found) == _MOST or member.issparse() or member.name in found:
                    raise RepositoryError("what the task's engine has sent is no work of a launcher")
                found[member.name] = _copied(content, stage.path / str(len(found)))
    except tarfile.TarError as error:
        raise DockerError(f"the work cannot be fetched: {error}") from None
    return [found[name] for name in sorted(found, key=in_order)]


def _copied(content: IO[bytes], folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    path = folder / "bundle"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        while data := content.read(_BLOCK):
            file.write(data)
    return path
