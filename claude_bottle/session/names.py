"""The names that users give their sessions: no two that run have the same."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from claude_bottle.errors import UsageError
from claude_bottle.host.machine import Machine
from claude_bottle.manifest.validation import SHAPE, is_name
from claude_bottle.process import liveness
from claude_bottle.session import registry
from claude_bottle.session.planning import client_environment

__all__ = ("SHAPE", "held", "is_held", "is_name")


@contextlib.contextmanager
def held(machine: Machine, name: str) -> Iterator[None]:
    """Hold a name for a session of this process, if it is not empty; raises UsageError if another one has it.

    By a lock on a file, which ends with the process, for this user's sessions on this machine; others are seen by their
    labels. Raises OSError, EngineError and DockerError, too.
    """
    if not name:
        yield
        return
    path = machine.key_file.with_name("names") / name
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        while not _lock(path, stack):
            pass
        if any(each.called == name and _lives(machine, each) for each in _listed(machine)):
            raise UsageError(f'a session named "{name}" is running')
        yield


def is_held(machine: Machine, name: str) -> bool:
    """Return whether a session of this user on this machine holds a name; raises OSError."""
    try:
        descriptor = os.open(machine.key_file.with_name("names") / name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _lock(path: Path, stack: contextlib.ExitStack) -> bool:
    """Lock a file until the stack ends, and then remove it; False if its last holder has removed it meanwhile."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f'a session named "{path.name}" is running') from None
    try:
        same = os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
    if same:
        stack.callback(path.unlink, missing_ok=True)
    return same


def _listed(machine: Machine) -> tuple[registry.Session, ...]:
    return registry.listed(client_environment(machine))


def _lives(machine: Machine, session: registry.Session) -> bool:
    return not liveness.is_dead(session.owner, machine.owner)
