"""Check manifests: what every command does that works with agents."""

from collections.abc import Iterable, Iterator, Mapping

from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.host.machine import Machine
from claude_bottle.manifest import agent as manifest
from claude_bottle.manifest.agent import Agent


def check(machine: Machine, name: str | None = None, environ: Mapping[str, str] | None = None) -> tuple[Agent, ...]:
    """Return one agent, or all; raises ManifestError, which has every fault.

    `environ` stands for the machine's own, if the values of its variables do not matter.
    """
    variables = machine.environ if environ is None else environ
    if name is None:
        return manifest.load_agents(machine.agents, environ=variables, home=machine.home)
    return (manifest.load_agent(machine.agents, name, environ=variables, home=machine.home),)


def notes(agents: Iterable[Agent]) -> Iterator[str]:
    """Yield what is no fault of the agents' bottles, but should be known of them: a line each."""
    for bottle in dict.fromkeys(agent.bottle for agent in agents):
        name = f"bottle {escape_control_chars(bottle.name)}"
        if bottle.readable:
            readable = ", ".join(bottle.readable)
            yield f'{name}: the agent can read {readable}; "credentials" keeps a secret outside'
        if bottle.credentials:
            signed = ", ".join(str(credential.host) for credential in bottle.credentials)
            yield f"{name}: WebSocket and gRPC do not work with hosts that have credentials: {signed}"
        if bottle.unlimited:
            yield f"{name}: not limited: {', '.join(bottle.unlimited)}"
