"""A task of `run`: a launcher that is given on stdin what its user said yes to, and tells its parent what comes of it.

Its command line is that of a `start`, by which `stop` knows a launcher. Nothing of the task is on it: other users can
read that.
"""

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, astuple, dataclass, field, replace
from pathlib import Path

from claude_bottle.bottle.plan import Plan, Run
from claude_bottle.errors import UsageError
from claude_bottle.host.machine import TOKEN_VARIABLE, Machine
from claude_bottle.manifest.agent import Agent
from claude_bottle.process import command
from claude_bottle.process.background import Back
from claude_bottle.repository.clone import Wanted
from claude_bottle.selftest.receipt import Receipt
from claude_bottle.session import engines, time_limit
from claude_bottle.session.approvals import Approval, Entry
from claude_bottle.session.background import Apart
from claude_bottle.session.bring_up import SessionContext
from claude_bottle.session.start import Options

_MOST = 1 << 26  # bytes of an order


@dataclass(frozen=True)
class Order:
    """What a launcher is to do; with `ref`, a commit, and `entries` it starts what was shown or nothing."""

    news: int  # the descriptor for its news
    prompt: str = field(repr=False)
    token: str = field(repr=False)
    token_source: str
    when: str
    entries: tuple[tuple[str, ...], ...]  # of the plan, each as `astuple` has it
    repo: str | None = None
    ref: str = ""
    branch: str = ""
    time: int | None = None  # seconds
    engine: str = ""  # the docker context to use, if not the one of docker's own settings

    @classmethod
    def of(cls, news: int, machine: Machine, prompt: str, approved: Approval, wanted: Wanted | None) -> "Order":
        """Return the order of a task, with the token that `machine` has."""
        token, entries = machine.environ.get(TOKEN_VARIABLE, ""), tuple(map(astuple, approved.entries))
        order = cls(news, prompt, token, machine.token_source, approved.when, entries)
        return replace(order, repo=str(wanted.path), ref=wanted.ref, branch=wanted.branch) if wanted else order

    def written(self) -> bytes:
        """Return it as the first line on stdin."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def read(cls) -> "Order":
        """Read it from stdin; raises UsageError if it is none."""
        data = bytearray()
        while not data.endswith(b"\n") and len(data) < _MOST and (more := os.read(0, 1 << 16)):
            data += more
        try:
            found = json.loads(data)
            return cls(**{**found, "entries": tuple(tuple(map(str, each)) for each in found["entries"])})
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UsageError("--task is for `run` alone, which writes on stdin what to start") from None


class Launcher(Apart):
    """The launcher of one task; its news are lines of JSON, each with what is known by then."""

    def __init__(self, order: Order) -> None:
        """Take stdin for the life of the parent: this process ends in order once that ends."""
        super().__init__()
        self._order = order
        life, null = os.dup(0), os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        Back(order.news, life).watch()
        self._branches: list[str] = []

    def options(self) -> Options:
        """Return the options of its start."""
        order = self._order
        entries = tuple(Entry(*each) for each in order.entries)
        wanted = Wanted(Path(order.repo), order.ref, branch=order.branch) if order.repo else None
        run = Run(terminal=False, question=order.prompt)
        return Options(
            run,
            yes_if_unchanged=True,
            wanted=wanted,
            background=self,
            approved=Approval(order.when, entries),
            landed=self._branches.append,
        )

    def prepared(self, machine: Machine, agent: Agent) -> tuple[Machine, Agent]:
        """Return the machine with the engine and the token, and the agent with the task's limit of time."""
        machine = engines.on(machine, self._order.engine) if self._order.engine else machine
        environ = {**machine.environ, TOKEN_VARIABLE: self._order.token}
        machine = replace(machine, environ=environ, token_source=self._order.token_source)
        return machine, time_limit.limited(agent, self._order.time) if self._order.time else agent

    def go_on(self, machine: Machine, plan: Plan, receipt: Receipt, context: SessionContext) -> None:
        """Tell that the session is proven."""
        del machine, receipt, context
        self._tell(session=plan.session)

    def claude(
        self, argv: tuple[str, ...], env: Mapping[str, str], heard: Callable[[bytes], None] | None = None
    ) -> int:
        """Run claude with nothing on stdin and the answer on stdout."""
        return command.attach(argv, env, silent=True, heard=heard)

    def ended(self, code: int, error: str) -> None:
        """Tell what came of it."""
        self._tell(code=code, error=error, branches=self._branches)

    def _tell(self, **news: object) -> None:
        with contextlib.suppress(OSError):  # nobody is there any more: see Back
            os.write(self._order.news, json.dumps(news).encode() + b"\n")
