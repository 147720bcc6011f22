"""Go on with a kept conversation in a new bottle: which one, and what the old session did not reach."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from claude_bottle.bottle.plan import Conversation, Plan
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.errors import UsageError
from claude_bottle.host import installation
from claude_bottle.host.machine import Machine
from claude_bottle.repository.clone import Wanted
from claude_bottle.session import approvals, conversation
from claude_bottle.session.approvals import Entry
from claude_bottle.session.records import PLAN, TRANSCRIPT, Facts, Record, Records

# Of the groups of a plan's entries those by which data comes in or goes out.
_REACH = frozenset(("env", "signs", "widens", "ssh", "egress", "registry", "network"))


@dataclass(frozen=True)
class Resumed:
    """A kept conversation, and what its session was allowed."""

    facts: Facts
    conversation: Conversation
    before: tuple[Entry, ...]

    def wanted(self, chosen: Wanted | None, *, named: bool) -> Wanted | None:
        """Return the wanted repository, at the branch that the old session left there unless a revision is `named`."""
        if not (chosen and self.facts.branch) or named or chosen.with_changes:
            return chosen
        try:
            same = chosen.path.resolve().is_relative_to(Path(self.facts.repository).resolve())
        except (OSError, ValueError):
            return chosen
        return replace(chosen, ref=self.facts.branch) if same else chosen

    def widened(self, plan: Plan) -> list[str]:
        """Return a line of the preflight for each thing that a plan reaches and the old session did not."""
        old = {(entry.group, entry.name): entry for entry in self.before}
        lines = [
            each.line("+") for each in _reaching(approvals.entries(plan)) if old.get((each.group, each.name)) != each
        ]
        if plan.repository:
            repository = str(plan.repository.work.repository)
            more = approvals.INCLUDED if plan.repository.with_changes and not self._had_changes() else ""
            if more or repository != self.facts.repository:
                lines.append(Entry("repo", "", repository + more, "").line("+"))
        return lines

    def _had_changes(self) -> bool:
        return any(each.group == "repo" and each.shown.endswith(approvals.INCLUDED) for each in self.before)


def find(machine: Machine, name: str) -> Resumed:
    """Return the kept conversation of a session; raises UsageError if there is none that Claude could go on with."""
    record = Records.of(machine).find(name)
    session, facts = escape_control_chars(record.session), record.facts
    if not facts:
        remove = installation.command(f"history --remove {session}")
        raise UsageError(f"what is kept of {session} is damaged: {remove}")
    data = record.read(TRANSCRIPT)
    if not facts.conversation or data is None:
        raise UsageError(f"no conversation is kept of {session}: {'; '.join(facts.notes) or 'start it with --keep'}")
    found = Conversation(record.session, facts.conversation, data)
    if problem := conversation.problem(found):
        path = escape_control_chars(str(record.path(TRANSCRIPT)))
        raise UsageError(f"Claude cannot go on with {session}: {path}: {problem}; start without --resume")
    return Resumed(facts, found, _before(record))


def _before(record: Record) -> tuple[Entry, ...]:
    """Return what the old session was allowed; nothing if that is not known, so that everything counts as new."""
    found = record.read_json(PLAN)
    if not isinstance(found, list):
        return ()
    whole = [each for each in found if isinstance(each, list) and len(each) == 4 and all(type(x) is str for x in each)]
    return tuple(Entry(*each) for each in whole)


def _reaching(entries: Iterable[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.group in _REACH]
