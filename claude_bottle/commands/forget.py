"""Remove the record of an agent's approval."""

from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.host.machine import Machine
from claude_bottle.manifest import agent as manifest
from claude_bottle.session import approvals


def forget(machine: Machine, name: str) -> str:
    """Remove the record, also of an agent that is gone or faulty; return what to print.

    Raises ManifestError if there is neither an agent nor a record, or OSError.
    """
    shown = escape_control_chars(name)
    if approvals.forget(machine, manifest.manifest(machine.agents, name)):
        return f"removed the record of your last yes to {shown}"
    manifest.require(machine.agents, name)
    return f"no yes to {shown} is recorded; nothing changed"
