"""Check manifests: what every command does that works with agents."""

from collections.abc import Iterable, Iterator, Mapping

from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.host.machine import Machine
from claude_bottle.manifest import agent as manifest
from claude_bottle.manifest.agent import Agent
from claude_bottle.session import registries


def check(machine: Machine, name: str | None = None, environ: Mapping[str, str] | None = None) -> tuple[Agent, ...]:
    """Return one agent, or all, with the hosts of their registries as far as known; ManifestError has every fault.

    `environ` stands for the machine's own, if the values of its variables do not matter.
    """
    variables = machine.environ if environ is None else environ
    if name is None:
        found = manifest.load_agents(machine.agents, environ=variables, home=machine.home)
    else:
        found = (manifest.load_agent(machine.agents, name, environ=variables, home=machine.home),)
    return tuple(registries.located(machine, agent) for agent in found)


def notes(agents: Iterable[Agent]) -> Iterator[str]:
    """Yield what is no fault of the agents' bottles, but should be known of them: a line each."""
    for bottle in dict.fromkeys(agent.bottle for agent in agents):
        name = f"bottle {escape_control_chars(bottle.name)}"
        if bottle.readable:
            readable = ", ".join(bottle.readable)
            yield f'{name}: the agent can read {readable}; "credentials" keeps a secret outside'
        for registry in bottle.registries:
            where = escape_control_chars(registry.where)
            yield f"{name}: {registry.name}: {where}: anyone can publish here: data can leave"
        if bottle.credentials:
            signed = ", ".join(str(credential.host) for credential in bottle.credentials)
            yield f"{name}: WebSocket and gRPC do not work with hosts that have credentials: {signed}"
        if bottle.unlimited:
            yield f"{name}: not limited: {', '.join(bottle.unlimited)}"
