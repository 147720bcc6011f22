"""List what is kept of ended sessions, show one, print its answer, remove them."""

from collections.abc import Iterator
from dataclasses import dataclass

from claude_bottle.documents.escaping import columns, escape_control_chars
from claude_bottle.errors import UsageError
from claude_bottle.host import installation
from claude_bottle.host.machine import Machine
from claude_bottle.session.records import ANSWER, COUNTS, MIB, MOST, PLAN, RECEIPT, REFUSALS, Record, Records

_HEADER = ("SESSION", "AGENT", "STARTED", "CODE", "SIZE", "BRANCH")
_NOTHING = "-"
_PARTS = {"receipt": RECEIPT, "plan": PLAN, "counts": COUNTS, "refusals": REFUSALS}


@dataclass(frozen=True)
class Kept:
    """A record, as people and programs see it."""

    record: Record

    def as_json(self, *, whole: bool = False) -> dict[str, object]:
        """Return it as data for json.dumps, with the parts that are data themselves if `whole`."""
        record, facts = self.record, self.record.facts
        told = {"session": record.session, "damaged": facts is None, **(facts.as_json() if facts else {})}
        parts = {part: (record.folder / part).exists() for part in MOST}
        told |= {
            "size": record.size,
            "folder": str(record.folder),
            "parts": [name for name, there in parts.items() if there],
        }
        return told | ({name: record.read_json(part) for name, part in _PARTS.items()} if whole and facts else {})

    def as_row(self) -> tuple[str, ...]:
        """Return it as cells of a table."""
        facts, size = self.record.facts, _size(self.record.size)
        if not facts:
            return (self.record.session, "damaged", _NOTHING, _NOTHING, size, _NOTHING)
        code = _NOTHING if facts.code is None else str(facts.code)
        started = facts.started.astimezone().strftime("%Y-%m-%d %H:%M")
        return (facts.session, escape_control_chars(facts.agent), started, code, size, _shown(facts.branch))

    def __str__(self) -> str:
        """Return all that is known, a line each."""
        return "\n".join(f"{name:<12}  {escape_control_chars(value)}" for name, value in self._lines() if value)

    def _lines(self) -> Iterator[tuple[str, str]]:
        record, facts = self.record, self.record.facts
        yield "session", record.session
        if not facts:
            yield "damaged", f"{installation.command(f'history --remove {record.session}')} removes it"
            return
        yield "name", facts.name
        yield "agent", f"{facts.agent}, {facts.agent_file}"
        yield "started", str(facts.started.astimezone())
        yield "ended", str(facts.ended.astimezone()) if facts.ended else ""
        yield "exit code", "" if facts.code is None else str(facts.code)
        yield "error", facts.error
        yield "repository", facts.repository
        yield "branch", facts.branch
        counted = record.read_json(COUNTS)
        if isinstance(counted, dict):
            yield "requests", ", ".join(f"{value} {name}" for name, value in counted.items() if isinstance(value, int))
        if (record.folder / ANSWER).exists():
            yield "answer", installation.command(f"answer {record.session}")
        if facts.conversation:
            yield "conversation", installation.command(f"start {facts.agent} --resume {record.session}")
        if facts.struck:
            yield "note", _struck(facts.struck)
        yield from (("note", note) for note in facts.notes)
        yield "folder", f"{record.folder}, {_size(record.size)}"


@dataclass(frozen=True)
class Answer:
    """A kept answer, and what became of it."""

    data: bytes
    notes: tuple[str, ...]


def kept(machine: Machine) -> list[Kept]:
    """Return everything that is kept, the newest first."""
    return [Kept(record) for record in Records.of(machine).all()]


def table(found: list[Kept]) -> str:
    """Return what is kept as a table with a header."""
    return columns([_HEADER, *(each.as_row() for each in found)])


def shown(machine: Machine, name: str) -> Kept:
    """Return what is kept of a session; raises UsageError if that is nothing."""
    return Kept(Records.of(machine).find(name))


def answer(machine: Machine, name: str) -> Answer:
    """Return the answer of a session; raises UsageError if none is kept."""
    record = Records.of(machine).find(name)
    facts, data = record.facts, record.read(ANSWER)
    session = escape_control_chars(record.session)
    if not facts:
        raise UsageError(f"what is kept of {session} is damaged: {installation.command(f'history --remove {session}')}")
    if data is None:
        raise UsageError(f"no answer is kept of {session}: that is what `start --print` prints")
    cut = (f"the answer was longer: cut after {MOST[ANSWER] // MIB} MiB",) if facts.cut else ()
    return Answer(data, (*((_struck(facts.struck),) if facts.struck else ()), *cut))


def remove(machine: Machine, name: str | None) -> Iterator[str]:
    """Remove what is kept of a session, or of all that have ended; yield each one's id as it goes.

    Raises UsageError for one that is not kept or still runs, OSError for one that cannot be removed.
    """
    records = Records.of(machine)
    for record in (records.find(name),) if name else records.all():
        if not record.is_running(machine.owner):
            records.remove(record)
            yield escape_control_chars(record.session)
        elif name:
            stop = installation.command(f"stop {record.session}")
            raise UsageError(f"{escape_control_chars(record.session)} is running: {stop}")


def summary(machine: Machine) -> str:
    """Return how much is kept, in one line; nothing if nothing is."""
    found = Records.of(machine).all()
    if not found:
        return ""
    much = f"{len(found)} session{'' if len(found) == 1 else 's'}, {_size(sum(record.size for record in found))}"
    return f"{much}; remove them with {installation.command('history --remove --all')}"


def _struck(count: int) -> str:
    return f"secrets were struck out of what is kept, at {count} place{'' if count == 1 else 's'}"


def _shown(text: str) -> str:
    return escape_control_chars(text) or _NOTHING


def _size(count: int) -> str:
    return f"{count / MIB:.1f} MiB" if count >= MIB else f"{count / 1024:.1f} KiB"
