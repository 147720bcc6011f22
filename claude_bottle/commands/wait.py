"""Wait for the end of sessions in the background."""

import time
from collections.abc import Sequence

from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.errors import NoRecordError, UsageError
from claude_bottle.host import console
from claude_bottle.host.machine import Machine
from claude_bottle.session.background import KILLED
from claude_bottle.session.records import Record, Records

_PAUSE = 0.2  # seconds between two looks


def wait(machine: Machine, names: Sequence[str]) -> int:
    """Return the first exit code that is not 0 of sessions, in this order, once all have ended.

    A session without a record counts as NoRecordError, and is printed.
    """
    kept = Records.of(machine)
    found = [_find(kept, name) for name in names]
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


def _find(kept: Records, name: str) -> Record | None:
    try:
        return kept.find(name)
    except UsageError as error:
        console.say(escape_control_chars(str(error)))
        return None
