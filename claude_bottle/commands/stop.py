"""End sessions."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from claude_bottle.cleanup import orphans, stack
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.errors import LeftBehindError
from claude_bottle.fleet.tasks import GRACE
from claude_bottle.host import console
from claude_bottle.host.machine import Machine
from claude_bottle.host.owner import TASK
from claude_bottle.process import command, liveness
from claude_bottle.repository import fetch
from claude_bottle.repository.clone import Work
from claude_bottle.session import conversation, engines, registry
from claude_bottle.session.planning import client_environment
from claude_bottle.session.registry import Session

_PATIENCE = 60.0  # seconds for a launcher to end: it waits 30 s for its steps, then undoes them
_PAUSE = 0.1  # seconds between two looks at the engine


@dataclass(frozen=True)
class Choice:
    """The sessions to be ended, each with the machine that has its engine; `others` is how many are left alone."""

    found: tuple[tuple[Machine, Session], ...]
    others: int = 0

    @property
    def sessions(self) -> tuple[Session, ...]:
        """Return the sessions alone."""
        return tuple(session for _, session in self.found)


def choose(machine: Machine, names: Sequence[str], *, every: bool) -> Choice:
    """Return the sessions with these names or, if `every`, those that this user started on this machine, and dead ones.

    Raises UsageError, EngineError or DockerError.
    """
    if not every:
        chosen = {session.id: (place, session) for place, session in engines.find_all(machine, names)}
        return Choice(tuple(chosen.values()))
    found = engines.listed(engines.answering(machine))
    lives = {session.id: liveness.liveness(session.owner, machine.owner) for _, session in found}
    ours = tuple(
        each for each in found
        if lives[each[1].id] == "dead" or (lives[each[1].id] == "ours" and each[1].is_proven(machine.key))
    )  # fmt: skip
    return Choice(ours, len(found) - len(ours))


def stop(choice: Choice) -> None:
    """End sessions by their own launchers if these run here, else by removal; wait until all are gone.

    Raises LeftBehindError.
    """
    places = {place.engine: place for place, _ in choice.found}

    def stop(place: Machine) -> None:
        _stop(place, [session for where, session in choice.found if where is place])

    if places:
        engines.side_by_side(list(places.values()), stop)


def _stop(machine: Machine, chosen: Sequence[Session]) -> None:
    """Do that on one engine."""
    env = client_environment(machine)
    asked = {session.id for session in chosen if _ask_to_end(machine, session)}
    stuck = [session.id for session in chosen if session.id not in asked and not _remove(env, session.id)]
    # Any of them may be kept: its conversation has a budget of its own.
    left = _await_end(env, asked, _PATIENCE + conversation.BUDGET)
    # One with a repository brings its work back first, for which it has a budget; teardown had its time above.
    working = {s.id: s.owner for s in chosen if s.id in left and Work.of_label(s.repository)}
    for name in working:
        console.say(f"{escape_control_chars(name)} is still bringing its work back; waiting")

    def living() -> bool:
        return any(liveness.liveness(owner, machine.owner) == "ours" for owner in working.values())

    stuck += [name for name in left - working.keys() if not _removed(env, name)]
    stuck += [name for name in _await_end(env, working, fetch.BUDGET, living) if not _removed(env, name)]
    if stuck:
        raise LeftBehindError(f"not everything could be removed of {', '.join(map(escape_control_chars, stuck))}")


def _ask_to_end(machine: Machine, session: Session) -> bool:
    """Ask a session's launcher to end it; False if it must be removed instead, with a message if somebody lives."""
    lives = liveness.liveness(session.owner, machine.owner)
    if lives == "dead":
        return False
    if session.owner.machine.startswith(TASK) and _task_ended(machine, session.owner.machine):
        return True
    if lives != "ours":
        who = "another user" if lives == "theirs" else "another machine"
        console.say(f"{escape_control_chars(session.id)} is a session of {who}; removing it without its launcher")
        return False
    why = f"process {session.owner.pid} is no launcher"
    if not session.is_proven(machine.key):
        why = registry.UNPROVEN.format(escape_control_chars(session.id))
    elif stack.ask_to_end(session.owner, machine.owner):
        return True
    console.say(f"{why}; removing the session without a signal")
    return False


def _task_ended(machine: Machine, container: str) -> bool:
    """End a task's launcher in its container, in order; return whether it has ended."""
    console.say(f"ending the task {escape_control_chars(container.removeprefix(TASK))}; `fleet result` has its work")
    argv = ("docker", "stop", "--time", str(GRACE), container)
    return command.run(argv, client_environment(machine), timeout=GRACE + _PATIENCE).ok


def _removed(env: Mapping[str, str], session: str) -> bool:
    """Remove a session whose launcher does not end it; return whether all is gone."""
    console.say(f"{escape_control_chars(session)} does not stop on its own; removing it")
    return _remove(env, session)


def _remove(env: Mapping[str, str], session: str) -> bool:
    """Remove all of a session, in order; return whether all is gone."""
    stages = tuple(item for item in orphans.stage_dirs(env) if item.session == session)
    return orphans.remove(env, (*orphans.listed(env, session), *stages), console.say)


def _await_end(
    env: Mapping[str, str], asked: Collection[str], patience: float, go_on: Callable[[], bool] = lambda: True
) -> set[str]:
    """Wait until nothing is left of sessions whose launchers end; return those of which something is."""
    end = time.monotonic() + patience
    left = set(asked)
    while left and time.monotonic() < end and go_on():
        left &= {item.session for item in (*orphans.listed(env), *orphans.stage_dirs(env))}
        time.sleep(_PAUSE if left else 0)
    return left
