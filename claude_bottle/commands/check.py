"""Check manifests: what every command does that works with agents."""

from claude_bottle.host.machine import Machine
from claude_bottle.manifest import agent as manifest
from claude_bottle.manifest.agent import Agent


def check(machine: Machine, name: str | None = None) -> tuple[Agent, ...]:
    """Return one agent, or all; raises ManifestError, which has every fault."""
    if name is None:
        return manifest.load_agents(machine.agents, environ=machine.environ, home=machine.home)
    return (manifest.load_agent(machine.agents, name, environ=machine.environ, home=machine.home),)
