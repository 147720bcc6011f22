"""Prove the isolation of bottles without running claude."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.errors import BottleError, IsolationError
from claude_bottle.host.machine import Machine
from claude_bottle.manifest.agent import Agent
from claude_bottle.selftest.receipt import Receipt
from claude_bottle.session import start


@dataclass(frozen=True)
class Verified:
    """The receipt of one agent's bottle, or why there is none."""

    agent: str
    outcome: Receipt | BottleError

    @property
    def exit_code(self) -> int:
        """Return the exit code that the outcome stands for, 0 if the bottle is isolated."""
        if isinstance(self.outcome, BottleError):
            return self.outcome.exit_code
        return IsolationError.exit_code if self.outcome.failed else 0

    def as_json(self) -> dict[str, object]:
        """Return the outcome as data for json.dumps."""
        if isinstance(self.outcome, BottleError):
            return {"passed": False, "error": str(self.outcome)}
        return self.outcome.as_json()

    def __str__(self) -> str:
        """Return the agent's name and a line for each check."""
        if isinstance(self.outcome, BottleError):
            return f"{escape_control_chars(self.agent)}\n  {self.outcome}"
        return "\n".join((escape_control_chars(self.agent), *self.outcome.lines(), self.outcome.line()))


def verify(machine: Machine, agents: Sequence[Agent], *, verbose: bool) -> Iterator[Verified]:
    """Yield the outcome for each agent as soon as it is known."""
    for name, outcome in start.verify(machine, agents, verbose=verbose):
        yield Verified(name, outcome)
