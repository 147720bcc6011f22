"""Show a session's requests: what its sidecar and its credential proxy let through, and what they refused."""

import heapq
import operator
import time
from collections.abc import Generator, Iterable, Iterator

from claude_bottle.cleanup.stack import Teardown
from claude_bottle.egress.log import BLOCKED, Event, Tally
from claude_bottle.errors import DockerError
from claude_bottle.host.machine import Machine
from claude_bottle.process import command
from claude_bottle.process.engine import Engine
from claude_bottle.session import engines
from claude_bottle.session.planning import client_environment
from claude_bottle.session.registry import Session

_PATIENCE = 10.0  # seconds for a session that starts to start its credential proxy; it comes right after the sidecar
_PAUSE = 0.1  # seconds between two looks at the engine


def logs(machine: Machine, name: str, *, follow: bool, blocked: bool) -> Generator[Event, None, None]:
    """Yield a session's requests, only refused ones if `blocked`, by time; as they come until its end if `follow`.

    Raises UsageError, EngineError or DockerError.
    """
    machine, session = engines.find(machine, name)
    env = client_environment(machine)
    engine = Engine(env)
    if not _exists(engine, session.sidecar):
        raise DockerError(f"{session.sidecar} does not exist: the session is starting or ending")
    tally, codes = Tally(session.ended), list[int]()

    def events(lines: Iterable[bytes]) -> Iterator[Event]:
        return filter(None, map(tally.add, lines))

    with Teardown():
        if follow:
            _await_gate(engine, session)
        words = ("docker", "logs", *(("--follow",) if follow else ()))
        commands = [(*words, container) for container in session.logged]
        if follow:
            found = events(command.merged(commands, env, ended=codes.append))
        else:
            each = (events(command.lines(argv, env, ended=codes.append)) for argv in commands)
            found = heapq.merge(*each, key=operator.attrgetter("time"))
        yield from (event for event in found if not blocked or event.verdict == BLOCKED)
        if any(codes):
            engine.versions()  # raises if the engine is gone: then this is not the end of the log


def _exists(engine: Engine, container: str) -> bool:
    return engine.ask("container", "inspect", "--format", "{{.Id}}", container).ok


def _await_gate(engine: Engine, session: Session) -> None:
    """Wait until the log of the credential proxy can be followed; that of a container that does not run ends at once.

    Its session has no request before. One that has no proxy any more is followed without it.
    """
    asked = ("container", "inspect", "--format", "{{.State.Running}}", session.gate)
    end = time.monotonic() + _PATIENCE
    while session.ended and engine.ask(*asked).stdout.strip() != b"true" and _exists(engine, session.sidecar):
        if time.monotonic() > end:
            return
        time.sleep(_PAUSE)
