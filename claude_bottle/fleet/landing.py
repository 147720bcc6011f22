"""Bring a task's work home: the bundles of its launcher, through this machine's own quarantine, into branches."""

import contextlib
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from claude_bottle.errors import DockerError, RepositoryError
from claude_bottle.fleet.tasks import OUT, Task
from claude_bottle.host.machine import Machine
from claude_bottle.host.stage_dir import StageDir
from claude_bottle.process import command, stream
from claude_bottle.process.deadline import Deadline
from claude_bottle.repository import quarantine, report
from claude_bottle.repository.clone import Work
from claude_bottle.repository.quarantine import Quarantine, Room

_SECONDS = 600.0  # for a task's whole work
_MOST = 64  # bundles


def landed(machine: Machine, env: Mapping[str, str], task: Task, work: Work) -> Iterator[str]:
    """Yield the summary of each branch, once it is there; raises RepositoryError, DockerError, OSError.

    What was not landed is still in the task's container.
    """
    deadline, room = Deadline(_SECONDS), Room(quarantine.UNPACKED, quarantine.PATHS)
    taken: dict[str, str] = {}
    with StageDir.held("task", machine.owner) as stage:
        for number, bundle in enumerate(_received(env, task, stage, deadline)):
            folder = stage.path / str(number)
            folder.mkdir()
            apart = Quarantine.make(folder, work, env, deadline)
            with bundle.open("rb", buffering=0) as file:
                tip = apart.admit(file, room)
            branch = apart.land(tip, task.id, taken)
            taken[branch] = tip
            yield report.told(apart.git, work, tip, branch)


def _received(env: Mapping[str, str], task: Task, stage: StageDir, deadline: Deadline) -> list[Path]:
    """Return the bundles in a task's container, copied into the stage dir; those of HEAD come first, being shortest."""
    whole = stage.path / "out.tar"
    argv = ("docker", "cp", f"{task.container}:{OUT}", "-")
    with whole.open("wb", buffering=0) as file:
        seconds = deadline.left(_SECONDS)
        client = command.start(argv, env)
        result = stream.pump(client, what="fetching the work", seconds=seconds, into=file, limit=quarantine.BUNDLE)
    if not result.ok:
        raise DockerError(f"the work cannot be fetched: {result.reason}")
    found: list[tuple[int, str, Path]] = []
    with contextlib.suppress(tarfile.TarError), tarfile.open(whole) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() and member.name.endswith(".bundle") else None
            if content and len(found) == _MOST:
                raise RepositoryError(f"more than {_MOST} bundles of work")
            if content:
                found.append((len(member.name), member.name, _copied(content, stage.path / f"{len(found)}.bundle")))
    return [path for _, _, path in sorted(found)]


def _copied(content: IO[bytes], path: Path) -> Path:
    with path.open("wb") as file:
        while data := content.read(1 << 20):
            file.write(data)
    return path
