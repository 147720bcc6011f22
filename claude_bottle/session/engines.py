"""The engines that a user works with: that of docker's own settings, and the contexts in CLAUDE_BOTTLE_ENGINES.

Each is the machine with other settings of docker's. Without the setting there is one, and no docker client is started.
"""

import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.errors import BottleError, EngineError, ManifestError, UsageError
from claude_bottle.host import console
from claude_bottle.host.machine import Machine
from claude_bottle.process import command
from claude_bottle.process.engine import Engine
from claude_bottle.session import registry
from claude_bottle.session.planning import client_environment
from claude_bottle.session.registry import Session

ANY = "any"
_SETTING = "CLAUDE_BOTTLE_ENGINES"
_PATIENCE = 10.0  # seconds for all engines together to give a sign of life
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.+-]+")  # of a docker context
_CONTEXT = ("docker", "context", "inspect", "--format", "{{.Name}}")
_ALIVE = ("docker", "version", "--format", "{{.Server.Version}}")
_T = TypeVar("_T")


def named(machine: Machine) -> tuple[str, ...]:
    """Return the names in the setting, in order; raises ManifestError if one can be none of a context."""
    names = tuple(dict.fromkeys((machine.setting("ENGINES") or "").split()))
    for name in names:
        if name == ANY or not _NAME.fullmatch(name):
            raise ManifestError(f"{_SETTING}: {escape_control_chars(name)} is no name of a docker context")
    return names


def on(machine: Machine, name: str) -> Machine:
    """Return the machine with the engine of a context, and with no other."""
    environ = {key: value for key, value in machine.environ.items() if key not in (_SETTING, "DOCKER_HOST")}
    return replace(machine, environ=environ | {"DOCKER_CONTEXT": name}, engine=name)


def chosen(machine: Machine, name: str) -> Machine:
    """Return the machine with the engine that is wanted; `any` is the one with the most memory left by limits.

    Raises UsageError for one that is not named, EngineError if none answers.
    """
    places = wanted(machine, name)
    if len(places) == 1:
        return places[0]
    rooms = answers(places, lambda place: Engine(client_environment(place)).room())
    return max(rooms, key=lambda pair: pair[1])[0]


def wanted(machine: Machine, name: str) -> list[Machine]:
    """Return the machine with the engine that is wanted, with each that answers if that is `any`.

    Raises UsageError for one that is not named, EngineError if none answers.
    """
    names = named(machine)
    if not names:
        raise UsageError(f"--on {escape_control_chars(name)}: {_SETTING} is not set; it names docker contexts")
    if name != ANY and name not in names:
        known = ", ".join((*names, ANY))
        raise UsageError(f"--on {escape_control_chars(name)}: not in {_SETTING}; it has {known}")
    return _answering([on(machine, each) for each in (names if name == ANY else (name,))])


def every(machine: Machine) -> list[Machine]:
    """Return the machine with each engine: that of docker's own settings first, which may be one of the named."""
    names = named(machine)
    if not names:
        return [machine]
    current = command.run(_CONTEXT, client_environment(machine), timeout=_PATIENCE).stdout.decode(errors="replace")
    own = machine.environ.get("DOCKER_HOST") or current.strip()
    only = {key: value for key, value in machine.environ.items() if key != _SETTING}
    return [replace(machine, environ=only, engine=own), *(on(machine, name) for name in names if name != own)]


def answering(machine: Machine, say: Callable[[str], None] = console.say) -> list[Machine]:
    """Return those that answer; `say` is called with a line for each other one. Raises EngineError if none does."""
    return _answering(every(machine), say)


def _answering(places: list[Machine], say: Callable[[str], None] = console.say) -> list[Machine]:
    if len(places) == 1:
        return places  # whatever is asked of it says what is wrong
    found = probed(places)
    for place, why in found:
        if why:
            say(escape_control_chars(f"engine {place.engine} does not answer: {why}"))
    living = [place for place, why in found if not why]
    if not living:
        raise EngineError("no engine answers")
    return living


def probed(places: Sequence[Machine]) -> list[tuple[Machine, str]]:
    """Return each with the reason for which it does not answer, asked side by side; nothing if it does."""
    end = time.monotonic() + _PATIENCE
    clients = [command.start(_ALIVE, client_environment(place)) for place in places]
    try:
        results = [client.wait(timeout=max(0.1, end - time.monotonic())) for client in clients]
    finally:
        for client in clients:
            client.terminate()
    return [(place, "" if result.ok else result.reason) for place, result in zip(places, results, strict=True)]


def side_by_side(places: Sequence[Machine], act: Callable[[Machine], _T]) -> list[_T]:
    """Return what `act` returns for each, in order; raises what it raises."""
    if len(places) == 1:
        return [act(places[0])]  # a signal must end it at once
    with ThreadPoolExecutor(len(places)) as pool:
        return list(pool.map(act, places))


def answers(
    places: Sequence[Machine],
    act: Callable[[Machine], _T],
    say: Callable[[str], None] = console.say,
    *,
    in_turn: bool = False,
) -> list[tuple[Machine, _T]]:
    """Return each with what `act` returns for it, side by side or `in_turn`, without those for which it fails.

    An engine may answer a query and hang at the next. `say` is called with a line for each of these; if there is no
    other, the first error is raised.
    """

    def tried(place: Machine) -> _T | BottleError:
        try:
            return act(place)
        except BottleError as error:
            return error

    results = [tried(place) for place in places] if in_turn else side_by_side(places, tried)
    found: list[tuple[Machine, _T]] = []
    failed: list[tuple[Machine, BottleError]] = []
    for place, result in zip(places, results, strict=True):
        if isinstance(result, BottleError):
            failed.append((place, result))
        else:
            found.append((place, result))
    if failed and not found:
        raise failed[0][1]
    for place, error in failed:
        say(escape_control_chars(f"engine {place.engine} does not answer: {error}"))
    return found


def find(machine: Machine, name: str) -> tuple[Machine, Session]:
    """Return a session as `registry.find` does, of any engine, and the machine with that; raises UsageError."""
    [found] = find_all(machine, [name])
    return found


def find_all(machine: Machine, names: Sequence[str]) -> list[tuple[Machine, Session]]:
    """Return the same of several sessions. If there are more engines, it is printed which one has it."""
    places = answering(machine)
    known = listed(places)
    sessions = [session for _, session in known]
    found = []
    for name in dict.fromkeys(names):
        place, session = known[sessions.index(registry.find(sessions, name))]
        if len(places) > 1:
            console.say(escape_control_chars(f"{session.id} is on {place.engine}"))
        found.append((place, session))
    return found


def listed(places: Sequence[Machine], say: Callable[[str], None] = console.say) -> list[tuple[Machine, Session]]:
    """Return the sessions of all these engines, each once; one that fails is printed.

    Raises EngineError or DockerError if all do.
    """
    found: dict[str, tuple[Machine, Session]] = {}
    for place, sessions in answers(places, lambda place: registry.listed(client_environment(place)), say):
        for session in sessions:
            found.setdefault(session.id, (place, session))  # two contexts may lead to one engine
    return list(found.values())
