"""List the sessions on the engine: what their agents do, what their sidecars counted, what their bottles use."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from claude_bottle.cleanup.stack import Teardown
from claude_bottle.documents.escaping import columns, escape_control_chars
from claude_bottle.egress.log import Tally
from claude_bottle.errors import BottleError, UsageError
from claude_bottle.host import console
from claude_bottle.host.live_page import LivePage
from claude_bottle.host.machine import Machine
from claude_bottle.session import engines, records, registry, states
from claude_bottle.session.background import KILLED
from claude_bottle.session.planning import client_environment
from claude_bottle.session.records import Facts, Records
from claude_bottle.session.registry import Session
from claude_bottle.session.states import NOTHING, State

WIDTH = 80  # columns, whatever the terminal has
_COUNTED = ("AGENT", "STATE", "AGE", "ALLOWED", "BLOCKED")
_USAGE = ("CPU", "MEMORY")
_NAME, _BRANCH, _ENGINE = "NAME", "BRANCH", "ENGINE"
_SPARED = ("AGENT", _BRANCH, "AGE", "ALLOWED")  # left out of a table that is too wide, one after the other
_MIB = 1 << 20
_PERIOD = 5.0  # seconds from one renewal to the next
_PAUSE = 1.0  # seconds between two, at least, however long they take
_PATIENCE = 0.1  # seconds between two looks whether a renewal is there


@dataclass(frozen=True)
class Line:
    """One session; `age` in seconds. `usage` is whether its bottle was asked for that."""

    session: Session
    age: int
    tally: Tally
    state: State
    usage: bool = False
    engine: str = ""  # if there are more

    def as_json(self) -> dict[str, str | int | float | None]:
        """Return the line as data for json.dumps."""
        used = self.state.usage
        usage: dict[str, float | None] = {}
        if self.usage:
            usage = {"cpu": round(used.cpu, 1) if used else None, "memory": used.memory if used else None}
        return {
            "session": self.session.id,
            "name": None if self.session.called == NOTHING else self.session.called,
            "agent": self.session.agent,
            "bottle": self.session.bottle,
            "started": self.session.started.isoformat(),
            "age": self.age,
            "left": self.session.left(self.age),
            "mode": self.session.mode,
            "state": self.state.word,
            "allowed": self.tally.allowed,
            "blocked": self.tally.blocked,
            "branch": self.session.branch or None,
            **({"engine": self.engine} if self.engine else {}),
            **usage,
        }

    def as_row(self) -> dict[str, str]:
        """Return the line as cells of a table, by their headers; labels are foreign text."""
        session, used = self.session, self.state.usage
        return {
            "SESSION": escape_control_chars(session.id),
            _NAME: escape_control_chars(session.called),
            "AGENT": escape_control_chars(session.agent),
            "STATE": self.state.word,
            "AGE": self._age(),
            "ALLOWED": str(self.tally.allowed),
            "BLOCKED": str(self.tally.blocked),
            "CPU": f"{used.cpu:.0f}%" if used else NOTHING,
            "MEMORY": f"{used.memory / _MIB:.0f} MiB" if used else NOTHING,
            _BRANCH: escape_control_chars(session.branch) or NOTHING,
            _ENGINE: escape_control_chars(self.engine) or NOTHING,
        }

    def _age(self) -> str:
        """Return its age and, if it has a limit of time, what remains."""
        left = self.session.left(self.age)
        return registry.duration(self.age) + ("" if left is None else f", {registry.duration(left)} left")


@dataclass(frozen=True)
class Ended:
    """A session in the background that has ended, until its record is removed."""

    facts: Facts

    @property
    def state(self) -> str:
        """Return how it ended, by its exit code."""
        return f"ended ({KILLED if self.facts.code is None else self.facts.code})"

    @property
    def age(self) -> int:
        """Return the seconds since its start."""
        return max(0, int((records.now() - self.facts.started).total_seconds()))

    def as_json(self) -> dict[str, str | int | float | None]:
        """Return the line as data for json.dumps."""
        return {
            "session": self.facts.session,
            "name": self.facts.name or None,
            "agent": self.facts.agent,
            "started": self.facts.started.isoformat(),
            "age": self.age,
            "state": self.state,
            "branch": self.facts.branch or None,
        }

    def as_row(self) -> dict[str, str]:
        """Return the line as cells of a table, by their headers."""
        return {
            "SESSION": self.facts.session,
            _NAME: escape_control_chars(self.facts.name) or NOTHING,
            "AGENT": escape_control_chars(self.facts.agent),
            "STATE": self.state,
            "AGE": registry.duration(self.age),
            _BRANCH: escape_control_chars(self.facts.branch) or NOTHING,
            _ENGINE: NOTHING,
        }


def ended(machine: Machine) -> list[Ended]:
    """Return the sessions in the background that have ended, the oldest first."""
    kept = [record for record in reversed(Records.of(machine).all()) if not record.is_running(machine.owner)]
    return [Ended(record.facts) for record in kept if record.facts and record.facts.detached]


def sessions(machine: Machine, *, usage: bool = False, say: Callable[[str], None] = console.say) -> list[Line]:
    """Return every session, the oldest first, with its bottle's usage if wanted; raises EngineError or DockerError.

    `say` is called with a line for each engine that does not answer, if there are more.
    """
    places = engines.answering(machine, say)
    known = engines.listed(places, say)

    def lines(place: Machine) -> list[Line]:
        own = [session for where, session in known if where is place]
        return _lines(place, own, usage=usage) if own else []

    return [line for _, found in engines.answers(places, lines, say) for line in found]


def _lines(machine: Machine, found: Sequence[Session], *, usage: bool) -> list[Line]:
    """Return the sessions of one engine."""
    env = client_environment(machine)
    with ThreadPoolExecutor(1) as pool:
        seen = pool.submit(states.read, env, found, usage=usage)
        tallies = registry.all_egress(env, found)
        known = seen.result()
    ages = [one.age() for one in found]
    return [Line(*each, usage, machine.engine) for each in zip(found, ages, tallies, known, strict=True)]


def listed(
    machine: Machine, *, usage: bool = False, say: Callable[[str], None] = console.say
) -> tuple[list[Line | Ended], BottleError | None]:
    """Return all sessions: what has ended, then what has containers, or the error for which that is not known."""
    gone = ended(machine)
    try:
        running = sessions(machine, usage=usage, say=say)
    except BottleError as error:
        return list(gone), error
    ids = {line.session.id for line in running}
    return [*(line for line in gone if line.facts.session not in ids), *running], None


def table(lines: Sequence[Line | Ended], *, usage: bool = False) -> str:
    """Return sessions as a table with a header, of 80 columns if it can be: what has no room there is left out.

    It has the names that users gave their sessions if there is any.
    """
    rows = [line.as_row() for line in lines]
    named = (_NAME,) if any(row[_NAME] != NOTHING for row in rows) else ()
    where = (_ENGINE,) if any(row[_ENGINE] != NOTHING for row in rows) else ()
    header = ["SESSION", *named, *where, *_COUNTED, *(_USAGE if usage else ()), _BRANCH]
    text = _table(header, rows)
    for spared in _SPARED:
        if max(map(len, text.split("\n"))) <= WIDTH:
            break
        header.remove(spared)
        text = _table(header, rows)
    return text


def watch(machine: Machine, *, usage: bool = False) -> None:
    """Show the sessions on the terminal, renewed every five seconds, until the user types `q` or Ctrl-C.

    Raises UsageError without a terminal, EngineError or DockerError if the first listing fails, OSError if the terminal
    has gone, SystemExit(128 + n) after signal n.
    """
    if not (machine.interactive and console.output_on_terminal()):
        raise UsageError("--watch needs a terminal; list --json is for programs")
    text, took = _page(machine, usage=usage), 0.0
    page = LivePage()
    with Teardown(stoppable=False) as undo:
        undo.arm(0, "page", page.close)
        page.open()
        page.show(text)
        while not page.wait(max(_PAUSE, _PERIOD - took)):
            begun, renewed = time.monotonic(), _renewed(machine, usage=usage)
            while not renewed.done():
                if page.wait(_PATIENCE):
                    return
            took = time.monotonic() - begun
            page.show(renewed.result())


def _renewed(machine: Machine, *, usage: bool) -> "Future[str]":
    """List once more, beside the terminal: an engine that hangs must not keep the user from leaving."""
    future = Future[str]()

    def run() -> None:
        try:
            future.set_result(_page(machine, usage=usage))
        except BottleError as error:  # an engine that is gone may come back
            future.set_result(f"{_heading()}\n\n{escape_control_chars(str(error))}")
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def _page(machine: Machine, *, usage: bool) -> str:
    said = list[str]()
    found, error = listed(machine, usage=usage, say=said.append)
    if error:
        raise error
    return "\n".join((_heading(), "", table(found, usage=usage), *said))


def _heading() -> str:
    return f"{datetime.now().astimezone():%H:%M:%S}  every {_PERIOD:.0f} s; q ends"


def _table(header: Sequence[str], rows: Sequence[dict[str, str]]) -> str:
    return columns([header, *([row.get(name, NOTHING) for name in header] for row in rows)])
