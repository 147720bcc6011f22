"""Wait for the end of sessions in the background."""

import time
from collections.abc import Sequence

from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.errors import NoRecordError, UsageError
from claude_bottle.host import console
from claude_bottle.host.machine import Machine
from claude_bottle.session import names
from claude_bottle.session.background import KILLED
from claude_bottle.session.records import Record, Records

_PAUSE = 0.2  # seconds between two looks


def wait(machine: Machine, chosen: Sequence[str]) -> int:
    """Return the first exit code that is not 0 of sessions, in this order, once all have ended.

    A session without a record counts as NoRecordError, and is printed.
    """
    found = [_find(machine, name) for name in chosen]
    codes = [ended(machine, record) if record else NoRecordError.exit_code for record in found]
    return next((code for code in codes if code), 0)


def ended(machine: Machine, record: Record) -> int:
    """Return the exit code of a session once it has ended; KILLED if its launcher could not write one."""
    while True:
        now = Record(record.session, record.folder, record.read_facts(), record.changed)
        over = not now.is_running(machine.owner)
        facts = record.read_facts()  # what it wrote last
        if over and facts:
            return KILLED if facts.code is None else facts.code
        if over:
            console.say(f"the record of {record.session} is gone")
            return NoRecordError.exit_code
        time.sleep(_PAUSE)


def find(machine: Machine, name: str) -> Record:
    """Return the record of the session that is meant: of one that runs, if it has been given this name.

    Raises UsageError if that one has none, or there is no session.
    """
    kept = Records.of(machine)
    held = names.is_name(name) and names.is_held(machine, name)
    if not held:
        return kept.find(name)
    for record in kept.all():
        if record.facts and record.facts.name == name and record.is_running(machine.owner):
            return record
    raise UsageError(f'the session named "{name}" was started without --detach, or its start goes on')


def _find(machine: Machine, name: str) -> Record | None:
    try:
        return find(machine, name)
    except UsageError as error:
        console.say(escape_control_chars(str(error)))
        return None
