"""Join the terminal of a session in the background."""

import os

from claude_bottle.commands import wait
from claude_bottle.errors import UsageError
from claude_bottle.host import console, installation
from claude_bottle.host.machine import Machine
from claude_bottle.process import terminal_client
from claude_bottle.session.background import socket_of
from claude_bottle.session.records import MESSAGES, Record, Records

_SHOWN = 1 << 16  # bytes of the messages that are printed at the end


def attach(machine: Machine, name: str | None) -> int:
    """Join a session's terminal; return the session's exit code, 0 if the user has detached.

    Raises UsageError, and what the handlers of signals raise.
    """
    if not (machine.interactive and os.isatty(1)):
        raise UsageError("attach needs a terminal, on stdin and stdout")
    record = _chosen(machine, name)
    path = socket_of(record)
    if not path:
        raise UsageError(f"{record.session} has no terminal to join: it answers one question")
    before = len(record.tail(MESSAGES, 1 << 30))
    try:
        with terminal_client.connected(path) as connection:
            console.say(f"joining {record.session}; {terminal_client.DETACH} leaves it running")
            code = terminal_client.join(connection)
    except (OSError, terminal_client.Lost):
        code = 1  # what its record says counts
        if record.is_running(machine.owner):
            why = "too many terminals, or it is ending"
            console.say(f"{record.session} cannot be joined: {why}; waiting for its exit code")
    if code is None:
        again = installation.command(f"attach {record.session}")
        console.say(f"{record.session} goes on; to join it again: {again}")
        return 0
    code = wait.ended(machine, record)
    console.show(record.tail(MESSAGES, 1 << 30)[before:][-_SHOWN:].decode(errors="replace"))
    return code


def _chosen(machine: Machine, name: str | None) -> Record:
    """Return the record of the session of this name, or of the only one that can be joined; raises UsageError."""
    if name is not None:
        record = wait.find(machine, name)
        if not record.is_running(machine.owner):
            raise UsageError(f"{record.session} has ended; nothing is left to join")
        return record
    found = [record for record in Records.of(machine).all() if record.is_running(machine.owner) and socket_of(record)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"name one of {', '.join(record.session for record in found)}")
    raise UsageError("no session in the background has a terminal to join")
