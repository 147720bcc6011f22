"""List the agents, and what their bottles may reach."""

from collections.abc import Iterable
from dataclasses import dataclass

from claude_bottle.documents.escaping import columns, escape_control_chars
from claude_bottle.egress import allowlist
from claude_bottle.manifest.agent import Agent

_HEADER = ("AGENT", "BOTTLE", "EGRESS")


@dataclass(frozen=True)
class Line:
    """One agent; `egress` sums up the hosts that it may reach."""

    agent: str
    bottle: str
    egress: str


def lines(agents: Iterable[Agent]) -> list[Line]:
    """Return a line for each agent."""
    return [
        Line(agent.name, agent.bottle.name, allowlist.summary(allowlist.allowlist(agent.bottle.reach)))
        for agent in agents
    ]


def table(found: Iterable[Line]) -> str:
    """Return lines as a table with a header."""
    return columns(
        [_HEADER, *(tuple(map(escape_control_chars, (line.agent, line.bottle, line.egress))) for line in found)]
    )
