"""Launchers side by side, some at a time, each a child that has an order and tells its news."""

import contextlib
import json
import os
import select
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import IO

from claude_bottle.cleanup.stack import Teardown
from claude_bottle.host import console, installation
from claude_bottle.process import command, stream
from claude_bottle.process.command import Client
from claude_bottle.session.conversation import Heard
from claude_bottle.session.records import ANSWER, MIB, MOST
from claude_bottle.session.task import Order

_LOOK = 0.5  # seconds between two looks for what no descriptor tells
_PARTING = 30.0  # seconds from the end of a launcher until the clients that it has left behind must have ended
_NEWS = MIB  # bytes of a launcher's news


@dataclass(frozen=True)
class Job:
    """A session that is to run; its order is made with the descriptor for its news."""

    name: str
    agent: str
    order: Callable[[int], Order] = field(repr=False)


class Running:
    """A launcher that runs, or has ended."""

    def __init__(self, job: Job, client: Client, news: int) -> None:
        """Hear what it says."""
        self.job = job
        self.client = client
        self.answer, self.log = Heard(MOST[ANSWER]), Heard(MIB)
        self.session, self.error, self.branches = "", "", list[str]()
        self.started, self._gone = time.monotonic(), 0.0
        self._news, self._said = news, bytearray()
        out, err = client.process.stdout, client.process.stderr
        self._open: dict[int, Callable[[bytes], None]] = {news: self._take}
        self._pipes: list[IO[bytes]] = []
        for pipe, heard in ((out, self.answer), (err, self.log)):
            if pipe:
                self._pipes.append(pipe)
                self._open[pipe.fileno()] = heard.add

    @property
    def descriptors(self) -> Iterable[int]:
        """Return what is to be read."""
        return self._open

    def read(self, descriptor: int) -> None:
        """Read what is there."""
        data = os.read(descriptor, 1 << 16)
        self._open[descriptor](data)
        if not data:
            del self._open[descriptor]

    def is_over(self) -> bool:
        """Return whether it has ended, and all that it has said is read."""
        if self.client.process.poll() is None:
            return False
        self._gone = self._gone or time.monotonic()
        return not self._open or time.monotonic() > self._gone + _PARTING

    def close(self) -> int:
        """Close all descriptors; return its exit code, as a shell has it."""
        self.client.let_go()
        os.close(self._news)
        for pipe in self._pipes:
            pipe.close()
        code = self.client.process.wait()
        return code if code >= 0 else 128 - code

    def ask_to_end(self) -> None:
        """Have it end in order; asked once more, it gives up bringing the work back."""
        self.client.process.terminate()

    def _take(self, data: bytes) -> None:
        self._said += data[: _NEWS - len(self._said)]
        while b"\n" in self._said:
            line, _, rest = bytes(self._said).partition(b"\n")
            self._said = bytearray(rest)
            with contextlib.suppress(ValueError):
                news = json.loads(line)
                self.session = news.get("session", self.session)
                self.error, self.branches = news.get("error", self.error), news.get("branches", self.branches)


class Crew:
    """Runs jobs, and ends them in order if `undo` says so.

    `changed` is called with each launcher that has started, or whose session is proven; `ended` with each that has
    ended, its exit code, and whether the crew was ended before.
    """

    def __init__(
        self,
        env: Mapping[str, str],
        undo: Teardown,
        changed: Callable[[Running], None],
        ended: Callable[[Running, int, bool], None],
    ) -> None:
        """Start nothing yet; `env` is the launchers' environment."""
        self._env, self._undo, self._changed, self._ended = env, undo, changed, ended
        self._waiting = deque[Job]()
        self._running: list[Running] = []
        self._ending = False
        undo.arm(0, "tasks", self._end)

    def run(self, jobs: Iterable[Job], at_once: int) -> None:
        """Run all, so many at a time; raises EngineError if a program cannot be started."""
        self._waiting.extend(jobs)
        while self._waiting or self._running:
            while self._waiting and len(self._running) < at_once:
                self._start(self._waiting.popleft())
            self._look()

    def _start(self, job: Job) -> None:
        news, telling = os.pipe()
        try:
            with self._undo.shielded():
                argv = (*installation.itself(), "start", job.agent, "--task")
                client = command.start(argv, self._env, inherited=(telling,))
                self._running.append(Running(job, client, news))
                client.give(job.order(telling).written())
        finally:
            os.close(telling)
        self._changed(self._running[-1])

    def _look(self) -> None:
        """Wait for news, a while at most, and act on them."""
        of = {descriptor: launcher for launcher in self._running for descriptor in launcher.descriptors}
        for descriptor in select.select(list(of), [], [], _LOOK)[0]:
            before = of[descriptor].session
            of[descriptor].read(descriptor)
            if of[descriptor].session != before:
                self._changed(of[descriptor])
        for launcher in [each for each in self._running if each.is_over()]:
            with self._undo.shielded():
                self._running.remove(launcher)
                self._ended(launcher, launcher.close(), self._ending)

    def _end(self) -> None:
        """End all in order, and wait until they have ended. Each further Ctrl-C is passed on: the second one counts."""
        self._ending = True
        self._waiting.clear()
        asked = stream.aborts()
        if count := len(self._running):
            console.say(f"ending {count} task{'' if count == 1 else 's'} in order, with the work")
        for launcher in self._running:
            launcher.ask_to_end()
        while self._running:
            self._look()
            if stream.aborts() > asked:
                console.say("bringing the work back; Ctrl-C again gives it up")
                asked = stream.aborts()
                for launcher in self._running:
                    launcher.ask_to_end()
