"""A session in the background: its launcher goes on without a terminal, and its record says what becomes of it."""

import functools
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from claude_bottle.bottle.plan import Plan
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.errors import BottleError, MachineError
from claude_bottle.host import console, installation
from claude_bottle.host.machine import Machine, machine_fault
from claude_bottle.host.stage_dir import StageDir
from claude_bottle.process import command, terminal_client, terminal_host
from claude_bottle.process.background import Back
from claude_bottle.selftest.receipt import Receipt
from claude_bottle.session import conversation, keeping, records
from claude_bottle.session.bring_up import SessionContext
from claude_bottle.session.conversation import Heard, Strike
from claude_bottle.session.records import ANSWER, MESSAGES, MOST, RECEIPT, TERMINAL, Facts, Record, Records

_LAST = -1  # the place in the order of teardown of what is needed until the end
_ERRORS = MOST[MESSAGES] // 2  # bytes of what claude says on stderr without a terminal
KILLED = 128 + 9  # the exit code of a launcher that could not write one


class Apart(ABC):
    """What a launcher has, besides its session, that does not have its user's terminal."""

    def __init__(self) -> None:
        """Begin."""
        self.last: Callable[[], None] | None = None  # called once it is known how it ended, if it is to be

    @abstractmethod
    def go_on(self, machine: Machine, plan: Plan, receipt: Receipt, context: SessionContext) -> None:
        """Note that the session is proven; raises OSError."""

    @abstractmethod
    def claude(
        self, argv: tuple[str, ...], env: Mapping[str, str], heard: Callable[[bytes], None] | None = None
    ) -> int:
        """Run claude; return its exit code. If given, `heard` is called with its answer as it comes."""

    @abstractmethod
    def ended(self, code: int, error: str) -> None:
        """Note how the session ended, with the last error."""

    def run(self, body: Callable[[], int], failed: Callable[[BaseException], int]) -> int:
        """Run a session; return its exit code.

        `failed` is called with a BottleError or an OSError, and returns its exit code once it has printed it.
        """
        code, text = MachineError.exit_code, ""
        try:
            code = body()
        except (BottleError, OSError) as error:
            text = str(error)
            code = failed(error)
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except BaseException:
            code = 1
            raise
        finally:
            try:
                self.ended(code, text)
            finally:
                if self.last:
                    self.last()
        return code


class Background(Apart):
    """What a launcher in the background has, besides its session: a record of it, which others read."""

    def __init__(self, back: Back) -> None:
        """Begin in the foreground, as far as the user can see."""
        super().__init__()
        self._back = back
        self._size = terminal_host.size()
        self._record: Record | None = None
        self._listening: socket.socket | None = None
        self._strike: Strike | None = None
        self._cut = False
        self._branch: Callable[[], str] = str

    def go_on(self, machine: Machine, plan: Plan, receipt: Receipt, context: SessionContext) -> None:
        """Let the caller and its terminal go: from now on the record gets what is printed. Raises OSError."""
        facts = Facts(
            plan.session,
            plan.agent.name,
            records.now(),
            owner=str(plan.owner),
            agent_file=str(plan.agent.path),
            name=plan.run.name,
            terminal=plan.run.terminal,
            repository=str(plan.repository.work.repository) if plan.repository else "",
            detached=True,
        )
        record = Records.of(machine).create(facts)
        try:
            record.write_json(RECEIPT, receipt.as_json())
            if plan.run.terminal:
                self._listen(plan, record, context)
            messages = record.opened(MESSAGES)
        except BaseException:
            Records.of(machine).remove(record)  # the user reads of it on the terminal
            raise
        self._branch = functools.partial(keeping.branch, machine, plan)
        if plan.run.terminal:  # here, where it stays to be read: what attach says is hidden by claude's screen
            join = installation.command(f"attach {plan.session}")
            console.say(f"{plan.session} goes on; to join it: {join}; {terminal_client.DETACH} leaves it again")
        self._record, self._strike = record, Strike(conversation.secrets(machine, plan.agent))
        self._back.ready(plan.session, messages)
        os.close(messages)

    def claude(
        self, argv: tuple[str, ...], env: Mapping[str, str], heard: Callable[[bytes], None] | None = None
    ) -> int:
        """Run claude on the terminal that others join, or headless; return its exit code.

        If given, `heard` is called with its answer as it comes.
        """
        if self._listening:
            return terminal_host.serve(argv, env, self._listening, self._size)
        said = {1: Heard(MOST[ANSWER]), 2: Heard(_ERRORS)}

        def take(stream: int, data: bytes) -> None:
            said[stream].add(data)
            if heard and stream == 1:
                heard(data)

        try:
            return command.gather(argv, env, take)
        finally:
            self._write(said[1], said[2])

    def _write(self, heard: Heard, errors: Heard) -> None:
        """Write what claude said without a terminal, its secrets struck out, and cut at its limit."""
        assert self._record  # noqa: S101  (it went on)
        assert self._strike  # noqa: S101  (the same)
        said, _ = errors.struck(self._strike)
        self._strike.count = 0  # of the answer alone
        answer, self._cut = heard.struck(self._strike)
        console.show(said.decode(errors="replace"))
        try:
            self._record.write(ANSWER, answer)
        except OSError as error:  # the work is still to be brought back
            console.say(escape_control_chars(f"the answer is not kept: {machine_fault(error)}"))

    def _listen(self, plan: Plan, record: Record, context: SessionContext) -> None:
        with context.undo.shielded():
            made = StageDir.make(plan.session)  # the watchdog, or the next start, removes it as one
            context.undo.arm(_LAST, "terminal", made.remove)
        made.write("owner", str(plan.owner).encode())
        path = made.path / "terminal"
        self._listening = terminal_host.listen(path)
        record.write(TERMINAL, os.fsencode(path))

    def ended(self, code: int, error: str) -> None:
        """Write how it ended, if there is a record; whoever removed that does not want to know."""
        if not self._record or not self._record.folder.exists():
            return
        first, now = self._record.facts, self._record.read_facts()
        if first and now:  # what was added meanwhile is kept
            cut = now.cut or self._cut
            struck = now.struck or (self._strike.count if self._strike else 0)
            now = replace(now, name=first.name, detached=True, cut=cut, struck=struck, branch=self._branch())
            self._record.write_facts(replace(now, ended=records.now(), code=code, error=error))


def socket_of(record: Record) -> Path | None:
    """Return the path of the socket by which a session's terminal is joined; None if it has none."""
    path = record.read(TERMINAL)
    return Path(os.fsdecode(path)) if path else None
