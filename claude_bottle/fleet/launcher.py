"""Run a packed start on the machine that has it: unpack it, start the session, leave the work as bundles."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

from claude_bottle.bottle.plan import Run
from claude_bottle.cleanup.stack import Teardown
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.errors import UsageError
from claude_bottle.fleet import payload
from claude_bottle.fleet.landing import in_order
from claude_bottle.fleet.packing import BUILD_CA, KEYS, SETTINGS, START
from claude_bottle.fleet.payload import AGENTS, BUNDLE, Task
from claude_bottle.host import console
from claude_bottle.host.machine import Machine
from claude_bottle.host.stage_dir import StageDir
from claude_bottle.manifest.agent import load_agent
from claude_bottle.repository import git
from claude_bottle.repository.clone import OUT, Wanted
from claude_bottle.repository.git import Git
from claude_bottle.session import start, time_limit
from claude_bottle.session.planning import client_environment

_BRANCHES = "refs/heads/bottle/"  # the work that came back
_REPOSITORY = "repository"


@dataclass(frozen=True)
class Given:
    """What a launcher gets besides its machine: the payload, the values of its secrets, and a folder for the work."""

    source: IO[bytes]
    secrets: Mapping[str, str] = field(repr=False)
    out: Path
    verbose: bool = False


def run(machine: Machine, given: Given) -> int:
    """Run a task; return the agent's exit code, as `start.start` does, and raise what it raises.

    The work is in `out`, as bundles, however the session ends. Raises UsageError for what is no payload, a secret that
    was not given, or no folder for the work; OSError.
    """
    with Teardown(stoppable=False) as undo, StageDir.held("task", machine.owner) as stage:
        folder = stage.path / "payload"
        folder.mkdir(mode=0o700)
        task = payload.read(given.source, folder)
        if missing := sorted(set(task.secrets) - given.secrets.keys()):
            raise UsageError(f"not among the secrets: {escape_control_chars(', '.join(missing))}")
        if task.commit and not given.out.is_dir():
            raise UsageError(f"{escape_control_chars(str(given.out))}: no folder, and the work is to be left there")
        machine = _furnished(machine, task, folder, given.secrets)
        agent = load_agent(folder / AGENTS, task.agent, environ=machine.environ, home=folder)
        wanted = _repository(task, folder, client_environment(machine)) if task.commit else None
        # The summary of the work is for whoever lands it: here it would name folders that are about to go.
        run = Run(terminal=False, question=task.question)
        options = start.Options(run, yes=True, verbose=given.verbose, wanted=wanted, show=lambda _: None)
        try:
            return start.start(machine, time_limit.limited(agent, task.time) if task.time else agent, options)
        finally:
            if wanted:
                with undo.shielded():  # a signal that comes only now must not cost the work
                    _leave(task, wanted.path, client_environment(machine), given.out)


def _furnished(machine: Machine, task: Task, folder: Path, secrets: Mapping[str, str]) -> Machine:
    """Return the machine with the task's settings and variables; write its private keys into the payload."""
    settings = {name: str(value) for name, value in task.settings.items() if name in (*SETTINGS, BUILD_CA)}
    if BUILD_CA in settings:
        settings[BUILD_CA] = str(folder / AGENTS / settings[BUILD_CA])
    keys = folder / AGENTS / KEYS
    keys.mkdir(mode=0o700)
    for name in task.secrets:
        if name.startswith("key-"):
            with os.fdopen(os.open(keys / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets[name].encode("utf-8", "surrogateescape"))
    given = {name: secrets[name] for name in task.secrets if not name.startswith("key-")}
    chosen = {f"CLAUDE_BOTTLE_{name}": value for name, value in settings.items()}
    return replace(machine, environ={**machine.environ, **chosen, **given}, interactive=False)


def _repository(task: Task, folder: Path, env: Mapping[str, str]) -> Wanted:
    """Make a bare repository with the task's history; raises RepositoryError."""
    path = folder / _REPOSITORY
    path.mkdir(mode=0o700)
    git_ = Git(path, git.environment(env), what="unpacking the repository")
    kind = () if len(task.commit) == 40 else ("--object-format=sha256",)
    git_.text("init", "--quiet", "--bare", *kind)
    if task.shallow:
        (path / "shallow").write_text(task.shallow, encoding="ascii")
    git_.text("bundle", "unbundle", str(folder / BUNDLE))
    git_.text("update-ref", f"refs/heads/{START}", task.commit)
    git_.text("symbolic-ref", "HEAD", f"refs/heads/{START}")
    if task.origin:
        git_.text("config", "remote.origin.url", task.origin)
    (folder / BUNDLE).unlink()
    return Wanted(path)


def _leave(task: Task, path: Path, env: Mapping[str, str], out: Path) -> None:
    """Leave the work in `out`: each branch as a bundle that `fleet result` takes, and what could become no branch."""
    git_ = Git(path, git.environment(env), what="packing the work")
    known = [f"^{task.commit}"]
    for name in sorted(git_.text("for-each-ref", "--format=%(refname)", _BRANCHES).split(), key=in_order):
        git_.text("update-ref", OUT, name)
        bundle = out.absolute() / f"{name.removeprefix(_BRANCHES).replace('/', '-')}.bundle"
        git_.text("bundle", "create", "--quiet", str(bundle), *known, OUT)
        known.append(f"^{name}")
        console.say(f"the work is in {escape_control_chars(str(bundle))}")
    for saved in path.parent.glob("*.bundle"):
        shutil.copyfile(saved, out / saved.name)
