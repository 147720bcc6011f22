"""List the sessions on the engine, with what their sidecars counted."""

from dataclasses import dataclass

from claude_bottle.documents.escaping import columns, escape_control_chars
from claude_bottle.egress.log import Tally
from claude_bottle.host.machine import Machine
from claude_bottle.session import registry
from claude_bottle.session.planning import client_environment
from claude_bottle.session.registry import Session

_HEADER = ("SESSION", "AGENT", "BOTTLE", "AGE", "MODE", "ALLOWED", "BLOCKED")


@dataclass(frozen=True)
class Line:
    """One session; `age` in seconds."""

    session: Session
    age: int
    tally: Tally

    def as_json(self) -> dict[str, str | int | None]:
        """Return the line as data for json.dumps."""
        return {
            "session": self.session.id,
            "agent": self.session.agent,
            "bottle": self.session.bottle,
            "started": self.session.started.isoformat(),
            "age": self.age,
            "left": self.session.left(self.age),
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
            self._age(),
            escape_control_chars(self.session.mode),
            *counts,
        )

    def _age(self) -> str:
        """Return its age and, if it has a limit of time, what remains."""
        left = self.session.left(self.age)
        return registry.duration(self.age) + ("" if left is None else f", {registry.duration(left)} left")


def sessions(machine: Machine) -> list[Line]:
    """Return every session, the oldest first; raises EngineError or DockerError."""
    env = client_environment(machine)
    found = registry.listed(env)
    tallies = registry.all_egress(env, found)
    return [Line(session, session.age(), tally) for session, tally in zip(found, tallies, strict=True)]


def table(lines: list[Line]) -> str:
    """Return sessions as a table with a header."""
    return columns([_HEADER, *(line.as_row() for line in lines)])
