"""Keep a session that has ended in order, if its user wants that: what it was, what it said, what came of it."""

import contextlib
import json
import threading
from collections.abc import Callable
from dataclasses import astuple, dataclass, field, replace
from datetime import datetime
from types import TracebackType
from typing import Self

from claude_bottle.bottle.plan import Conversation, Plan
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.egress.log import Tally
from claude_bottle.errors import BottleError, EngineError, MachineError
from claude_bottle.host import console, installation
from claude_bottle.host.machine import Machine, machine_fault
from claude_bottle.process import command
from claude_bottle.repository import git
from claude_bottle.selftest.receipt import Receipt
from claude_bottle.session import approvals, conversation, records
from claude_bottle.session.conversation import Heard, Source, Strike
from claude_bottle.session.planning import client_environment
from claude_bottle.session.records import (
    ANSWER,
    COUNTS,
    MOST,
    PLAN,
    RECEIPT,
    REFUSALS,
    TRANSCRIPT,
    Facts,
    Record,
    Records,
)

_SECONDS = 10.0  # for git to look up a branch
_SHOWN = 3  # records in a message


@dataclass
class _Begun:
    """A session whose claude is about to run."""

    plan: Plan
    receipt: Receipt
    tally: Tally
    source: Source
    started: datetime = field(default_factory=records.now)


class Keeper:
    """Keeps one session, as a context manager around all of it; does nothing unless `wanted`, or if claude never ran.

    What it cannot keep it says: neither the session's end nor its exit code depends on it.
    """

    def __init__(self, machine: Machine, *, wanted: bool) -> None:
        """Keep nothing yet."""
        self.wanted = wanted
        self._machine = machine
        self._begun: _Begun | None = None
        self._answer = Heard(MOST[ANSWER])
        self._code, self._error = 0, ""
        self._notes: list[str] = []
        self._conversation: Conversation | None = None
        self._once, self._taken = threading.Lock(), False
        self.last: Callable[[], None] | None = None  # called once the record is written, if it is to be

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the record, once everything else has been undone."""
        try:
            self._end(error)
        finally:
            if self.last:
                self.last()

    def _end(self, error: BaseException | None) -> None:
        if isinstance(error, BottleError):
            self._code, self._error = error.exit_code, str(error)
        elif isinstance(error, OSError):
            self._code, self._error = MachineError.exit_code, machine_fault(error)
        elif isinstance(error, SystemExit):
            self._code = error.code if isinstance(error.code, int) else 1
        if self._begun and (error is None or isinstance(error, BottleError | OSError | SystemExit)):
            try:
                self._keep(self._begun)
            except Exception as failed:  # of any kind: the session has its exit code
                why = machine_fault(failed) if isinstance(failed, OSError) else str(failed) or repr(failed)
                console.say(escape_control_chars(f"this session is not kept: {why}"))

    def begin(
        self, machine: Machine, plan: Plan, receipt: Receipt, tally: Tally, started: Callable[[int], None]
    ) -> None:
        """Note what is known before claude runs; `machine` has the token. `started` is called with pids of clients."""
        if self.wanted:
            strike = Strike(conversation.secrets(machine, plan.agent))
            source = Source(plan.session, plan.name, client_environment(machine), started, strike)
            self._begun = _Begun(plan, receipt, tally, source)

    @property
    def heard(self) -> Callable[[bytes], None] | None:
        """Return what is to be called with the answer as it comes; None if it is not kept."""
        return self._answer.add if self._begun else None

    def ended(self, code: int) -> int:
        """Note the exit code, and return it."""
        self._code = code
        return code

    def take(self) -> None:
        """Take the conversation out of the bottle, once, whichever thread is first; it prints and raises nothing."""
        with self._once:
            if not self._begun or self._taken:
                return
            self._taken = True
            main = threading.current_thread() is threading.main_thread()
            with contextlib.nullcontext() if main else console.without_progress():
                try:
                    self._conversation = conversation.receive(self._begun.source)
                except Exception as error:  # of any kind: the bottle must still be removed
                    why = self._begun.source.strike.text(str(error))  # it may be the agent's word
                    self._notes.append(f"the conversation is not kept: {why or type(error).__name__}")

    def _keep(self, begun: _Begun) -> None:
        """Write the record, and make room for it; raises OSError.

        Until it is whole it is that of a session that runs. One in the background ends its own: see `background`.
        """
        kept = Records.of(self._machine)
        facts = self._facts(begun)
        before = Record(facts.session, kept.folder / facts.session).read_facts()
        facts = replace(facts, detached=before is not None and before.detached)
        record = kept.create(facts)
        try:
            facts = self._parts(begun, record, facts)
        except OSError as error:  # it has ended in order for all that
            self._notes.append(f"not everything is kept: {machine_fault(error)}")
        facts = replace(facts, kept=True, struck=begun.source.strike.count, notes=tuple(self._notes))
        if not facts.detached:
            facts = replace(facts, ended=records.now(), code=self._code, error=self._error)
        record = record.write_facts(facts)
        for note in self._notes:
            console.say(escape_control_chars(note))
        self._tell(facts)
        if gone := kept.trim(self._machine.owner, spared=record.session):
            console.say(told_of_removed(gone))

    def _facts(self, begun: _Begun) -> Facts:
        plan = begun.plan
        repository = plan.repository.work.repository if plan.repository else ""
        return Facts(
            plan.session,
            plan.agent.name,
            begun.started,
            owner=str(plan.owner),
            agent_file=str(plan.agent.path),
            name=plan.run.name,
            terminal=plan.run.terminal,
            repository=str(repository),
            branch=branch(self._machine, plan),
        )

    def _parts(self, begun: _Begun, record: Record, facts: Facts) -> Facts:
        """Write the parts of a record; return the facts with what is known of them. Raises OSError."""
        out = begun.source.strike.out
        record.write_json(RECEIPT, begun.receipt.as_json())
        record.write_json(PLAN, [astuple(entry) for entry in approvals.entries(begun.plan)])
        record.write_json(COUNTS, counts(begun.tally))
        record.write(REFUSALS, out(json.dumps(refusals(begun.tally), indent=1).encode() + b"\n"))
        if not begun.plan.run.terminal:
            answer, cut = self._answer.struck(begun.source.strike)
            facts = replace(facts, cut=cut)
            record.write(ANSWER, answer)
        if self._conversation:
            try:
                record.write(TRANSCRIPT, out(self._conversation.data))
                facts = replace(facts, conversation=self._conversation.id)
            except OSError as error:
                self._notes.append(f"the conversation is not kept: {machine_fault(error)}")
        return facts

    def _tell(self, facts: Facts) -> None:
        how = installation.command(f"start {facts.agent} --resume {facts.session}")
        more = f"; to go on: {how}" if facts.conversation else ""
        console.say(escape_control_chars(f"kept: {installation.command(f'history {facts.session}')}{more}"))


def branch(machine: Machine, plan: Plan) -> str:
    """Return the branch of a session that came back, empty if there is none."""
    if not plan.repository:
        return ""
    env = git.environment(client_environment(machine))
    there = git.Git(plan.repository.work.repository, env)
    argv = there.argv("rev-parse", "--quiet", "--verify", f"refs/heads/{plan.branch}")
    try:
        return plan.branch if command.run(argv, there.env, timeout=_SECONDS).ok else ""
    except EngineError:
        return ""


def counts(tally: Tally) -> dict[str, int]:
    """Return what a session's proxies counted, as data for json.dumps."""
    return {
        "allowed": tally.allowed,
        "blocked": tally.blocked,
        "unresolved": sum(tally.unresolved.values()),
        "failed": sum(tally.failed.values()),
        "messages": tally.messages,
        "sent": tally.sent,
    }


def refusals(tally: Tally) -> dict[str, dict[str, int]]:
    """Return how often each host was refused, looked up in vain or not reached, as data for json.dumps."""
    groups = {"refused": tally.refused, "unresolved": tally.unresolved, "failed": tally.failed}
    return {name: dict(hosts) for name, hosts in groups.items()}


def told_of_removed(gone: tuple[Record, ...]) -> str:
    """Return the message about the oldest records that made room."""
    more = f", +{len(gone) - _SHOWN} more" if len(gone) > _SHOWN else ""
    names = ", ".join(record.session for record in gone[:_SHOWN])
    return f"more than {records.LIMIT // records.MIB // 1024} GiB was kept: removed the oldest, {names}{more}"
