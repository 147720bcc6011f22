"""What the agents of sessions do at this moment, by one exec in each bottle, side by side, but during its set-up."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from claude_bottle.bottle import state
from claude_bottle.bottle.state import Usage
from claude_bottle.errors import BottleError
from claude_bottle.process import command, stream
from claude_bottle.session.registry import Session

NOTHING = "-"  # without a container of the agent there is no state
_SECONDS = 1.0  # for one bottle
_AT_ONCE = 8  # more would keep one another from answering in time
_MOST = 1 << 10  # bytes of an answer: the agent can write into what its own user prints
_YOUNG = 600  # seconds; no set-up takes as long
_SET_UP = frozenset(("lock", "probe"))  # the roles of containers that are there during the set-up alone
_CLAUDE = b"claude --dangerously-skip-permissions"  # nothing of a set-up has these words


@dataclass(frozen=True)
class State:
    """The word for what an agent does, and what its bottle uses, if that was asked for and is known."""

    word: str
    usage: Usage | None = None


def read(env: Mapping[str, str], sessions: Sequence[Session], *, usage: bool) -> list[State]:
    """Return the state of each session, in order; UNKNOWN for a bottle that gives no answer in a second."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda session: _read(env, session, usage=usage), sessions))


def _read(env: Mapping[str, str], session: Session, *, usage: bool) -> State:
    if "agent" not in session.roles:
        return State(NOTHING)
    try:
        if _is_set_up(env, session):
            return State(state.STARTING)
        client = command.start(state.query(session.container, usage=usage), env)
        result = stream.pump(client, what="", seconds=_SECONDS, limit=_MOST)
    except BottleError:  # too much, or docker has gone
        return State(state.UNKNOWN)
    if not result.ok:
        return State(state.UNKNOWN)
    return State(state.word(result.stdout), state.usage(result.stdout) if usage else None)


def _is_set_up(env: Mapping[str, str], session: Session) -> bool:
    """Return whether the bottle may still be in its set-up: a process of ours would spoil its self-test.

    The engine's list of processes, which starts none, has claude's once that is over. Raises EngineError.
    """
    if session.roles & _SET_UP:
        return True
    if session.age() >= _YOUNG:
        return False
    return _CLAUDE not in command.run(("docker", "top", session.container), env, timeout=_SECONDS).stdout
