"""Show what a session's sidecar let through and what it refused."""

from collections.abc import Generator

from claude_bottle.cleanup.stack import Teardown
from claude_bottle.egress.log import BLOCKED, Event, Tally
from claude_bottle.errors import DockerError
from claude_bottle.host.machine import Machine
from claude_bottle.process import command
from claude_bottle.process.engine import Engine
from claude_bottle.session import registry
from claude_bottle.session.planning import client_environment


def logs(machine: Machine, name: str, *, follow: bool, blocked: bool) -> Generator[Event, None, None]:
    """Yield a session's requests, only refused ones if `blocked`; until the session ends if `follow`.

    Raises UsageError, EngineError or DockerError.
    """
    env = client_environment(machine)
    session = registry.find(registry.listed(env), name)
    if not Engine(env).ask("container", "inspect", "--format", "{{.Id}}", session.sidecar).ok:
        raise DockerError(f"{session.sidecar} does not exist: the session is starting or ending")
    tally, codes = Tally(), list[int]()
    argv = ("docker", "logs", *(("--follow",) if follow else ()), session.sidecar)
    with Teardown():
        for line in command.lines(argv, env, ended=codes.append):
            event = tally.add(line)
            if event and (not blocked or event.verdict == BLOCKED):
                yield event
        if any(codes):
            Engine(env).versions()  # raises if the engine is gone: then this is not the end of the log
