"""The limit of a session's time: notice before it, then an ordinary end."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from claude_bottle.errors import TimeUpError
from claude_bottle.manifest import duration
from claude_bottle.manifest.agent import Agent
from claude_bottle.process import command, container

NOTICE = 600  # seconds before the end; half of the time if that is less
GRACE = 10.0  # seconds for claude to end by itself
_TIMEOUT = 10.0  # seconds for a signal to be sent

Wait = Callable[[float], bool]  # waits so many seconds; returns whether claude has ended meanwhile


def limited(agent: Agent, seconds: int) -> Agent:
    """Return the agent with another limit of time than its bottle's."""
    limits = replace(agent.bottle.limits, time=seconds)
    return replace(agent, bottle=replace(agent.bottle, limits=limits))


def passed(seconds: int, wait: Wait, notify: Callable[[str], None]) -> TimeUpError | None:
    """Wait until the time is over, with a notice before that; return the error for it, None if claude ended before."""
    notice = min(NOTICE, seconds / 2)
    if wait(seconds - notice):
        return None
    left = duration.written(round(notice))
    notify(f"the session ends in {left}, at its limit of time")
    if wait(notice):
        return None
    return TimeUpError(f"the session has reached its limit of time, {duration.written(seconds)}, which ended it")


def end_processes(bottle: str, env: Mapping[str, str], name: str) -> bool:
    """Send a signal, TERM or KILL, to every process of the agent in a bottle; return whether it was sent.

    Not to claude alone: nothing in a bottle says which process that is. The first processes have another user.
    """
    argv = container.execute(bottle, "/bin/bash", "-c", f"kill -{name} -1; exit 0")
    return command.run(argv, env, timeout=_TIMEOUT).ok
