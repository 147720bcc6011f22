"""List the sessions on the engine, with what their sidecars counted."""

from collections.abc import Sequence
from dataclasses import dataclass

from claude_bottle.documents.escaping import columns, escape_control_chars
from claude_bottle.egress.log import Tally
from claude_bottle.host.machine import Machine
from claude_bottle.session import records, registry
from claude_bottle.session.background import KILLED
from claude_bottle.session.planning import client_environment
from claude_bottle.session.records import Facts, Records
from claude_bottle.session.registry import Session

_HEADER = ("SESSION", "AGENT", "BOTTLE", "AGE", "MODE", "ALLOWED", "BLOCKED")
_UNKNOWN = "-"


@dataclass(frozen=True)
class Line:
    """One session; `age` in seconds."""

    session: Session
    age: int
    tally: Tally

    def as_json(self) -> dict[str, str | int]:
        """Return the line as data for json.dumps."""
        return {
            "session": self.session.id,
            "name": self.session.called,
            "agent": self.session.agent,
            "bottle": self.session.bottle,
            "started": self.session.started.isoformat(),
            "age": self.age,
            "mode": self.session.mode,
            "allowed": self.tally.allowed,
            "blocked": self.tally.blocked,
        }

    def as_row(self) -> tuple[str, ...]:
        """Return the line as cells of a table; labels are foreign text."""
        names = (self.session.id, self.session.agent, self.session.bottle)
        counts = (str(self.tally.allowed), str(self.tally.blocked))
        return (
            *map(escape_control_chars, names),
            registry.duration(self.age),
            escape_control_chars(self.session.mode),
            *counts,
        )


@dataclass(frozen=True)
class Ended:
    """A session in the background that has ended, until its record is removed."""

    facts: Facts

    @property
    def mode(self) -> str:
        """Return how it ended, by its exit code."""
        return f"ended ({KILLED if self.facts.code is None else self.facts.code})"

    @property
    def age(self) -> int:
        """Return the seconds since its start."""
        return max(0, int((records.now() - self.facts.started).total_seconds()))

    def as_json(self) -> dict[str, str | int]:
        """Return the line as data for json.dumps."""
        return {
            "session": self.facts.session,
            "name": self.facts.name or _UNKNOWN,
            "agent": self.facts.agent,
            "started": self.facts.started.isoformat(),
            "age": self.age,
            "mode": self.mode,
        }

    def as_row(self) -> tuple[str, ...]:
        """Return the line as cells of a table."""
        agent = escape_control_chars(self.facts.agent)
        return (self.facts.session, agent, _UNKNOWN, registry.duration(self.age), self.mode, _UNKNOWN, _UNKNOWN)


def ended(machine: Machine) -> list[Ended]:
    """Return the sessions in the background that have ended, the oldest first."""
    kept = [record for record in reversed(Records.of(machine).all()) if not record.is_running(machine.owner)]
    return [Ended(record.facts) for record in kept if record.facts and record.facts.detached]


def sessions(machine: Machine) -> list[Line]:
    """Return every session, the oldest first; raises EngineError or DockerError."""
    env = client_environment(machine)
    found = registry.listed(env)
    tallies = registry.all_egress(env, found)
    return [Line(session, session.age(), tally) for session, tally in zip(found, tallies, strict=True)]


def listed(machine: Machine) -> list[Line | Ended]:
    """Return all sessions: what has ended, then what has containers. Raises EngineError or DockerError."""
    running = sessions(machine)
    ids = {line.session.id for line in running}
    return [*(line for line in ended(machine) if line.facts.session not in ids), *running]


def table(lines: Sequence[Line | Ended]) -> str:
    """Return sessions as a table with a header, and the names that users gave them, if any did."""
    names = [line.as_json()["name"] for line in lines]
    rows = [_HEADER, *(line.as_row() for line in lines)]
    if all(name == _UNKNOWN for name in names):
        return columns(rows)
    cells = ("NAME", *(escape_control_chars(str(name)) for name in names))
    return columns([(row[0], cell, *row[1:]) for row, cell in zip(rows, cells, strict=True)])
