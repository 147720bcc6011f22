"""Run a table of steps: whatever does not need each other side by side, each undo armed before its step starts."""

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from claude_bottle.cleanup.stack import Teardown
from claude_bottle.errors import BottleError
from claude_bottle.process import command, stream, wording
from claude_bottle.process.command import Client, Result
from claude_bottle.repository import git
from claude_bottle.session.steps import Kind, Step

_SETTLE = 30.0  # seconds that a failure waits for the steps beside it
_SILENCE = 120.0  # seconds without an answer after which the engine counts as gone; builds and pulls may take longer
_LONG = 7200.0  # seconds for a repository to go in
_PARTING = 5.0  # seconds for a step that held to end; its undo makes sure of it
_RACE = 5.0  # seconds from the refusal of a second network until the first one can be seen; 0.1 were


class StepError(Exception):
    """A step failed; `step` and `result` say which and how."""

    def __init__(self, step: Step, result: Result) -> None:
        """Keep what failed."""
        super().__init__(step.name, result.reason)
        self.step, self.result = step, result


class Runner:
    """Runs steps against one engine and arms their undos with `teardown`."""

    def __init__(
        self,
        teardown: Teardown,
        env: Mapping[str, str],
        note: Callable[[str], None],
        started: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Give docker clients `env`; `note` hears of each step's start and end, `started` of each client's pid."""
        self._teardown, self._env, self._note, self._started = teardown, env, note, started
        self._clients: dict[str, Client] = {}
        self._workers: dict[str, threading.Thread] = {}
        self._news = threading.Condition()  # of the next two
        self._ready: set[str] = set()
        self._stopping = False
        self._ended: queue.SimpleQueue[tuple[Step, Result | BottleError]] = queue.SimpleQueue()

    def run(self, steps: Sequence[Step]) -> dict[str, Result]:
        """Run every step whose product is not present; return the results by the steps' names.

        Raises StepError for the first one that fails, when those beside it have ended: a client in flight could still
        create what had just been undone.
        """
        places = {step.name: place for place, step in enumerate(steps)}
        waiting = [step for step in steps if not step.present]
        count = len(waiting)
        results: dict[str, Result] = {}
        self._ready, self._stopping = {step.name for step in steps if step.present}, False
        try:
            while len(results) < count:
                for step in [step for step in waiting if self._ready.issuperset(step.needs)]:
                    waiting.remove(step)
                    self._start(step, places[step.name])
                step, result = self._next()
                with self._news:
                    self._ready.add(step.name)
                    self._news.notify_all()
                results[step.name] = result
        except BaseException:
            with self._teardown.shielded():
                self._settle(steps)
            raise
        for client in [self._clients[step.name] for step in steps if step.kind is Kind.UNTIL_READY]:
            threading.Thread(target=client.close_stdin, args=(_PARTING,), daemon=True).start()
        return results

    def client(self, name: str) -> Client:
        """Return the docker client of a step that has started."""
        return self._clients[name]

    def _start(self, step: Step, place: int) -> None:
        self._note(f"{step.name} ...")
        with self._teardown.shielded():
            if step.undo:
                self._teardown.arm(place, step.name, lambda: self._undo(step))
            client = command.start(step.argv, self._env, shown=step.kind is Kind.PROGRESS)
            self._started(client.pid)
            self._clients[step.name] = client
            self._workers[step.name] = threading.Thread(target=self._work, args=(step, client), daemon=True)
            self._workers[step.name].start()

    def _given(self, step: Step) -> bool:
        """Wait until a step may have its stdin; False where it never may."""
        with self._news:
            self._news.wait_for(lambda: self._stopping or self._ready.issuperset(step.stdin_after))
        return not self._stopping

    def _work(self, step: Step, client: Client) -> None:
        """Wait for a step; in a thread, so that the main thread is free for signals."""
        started = time.monotonic()
        try:
            result = self._result(step, client)
        except BottleError as error:  # docker vanished meanwhile
            self._ended.put((step, error))
        else:
            self._ended.put((step, replace(result, seconds=time.monotonic() - started)))

    def _result(self, step: Step, client: Client) -> Result:
        if step.stdin_after and not self._given(step):
            client.terminate()
        if step.runs_long:
            return client.ready(step.stdin, _SILENCE)
        if step.stdin_from:
            fed = git.environment(self._env)
            return stream.piped(client, step.stdin, step.stdin_from, fed, what=step.name, seconds=_LONG)
        result = client.wait(step.stdin, None if step.kind is Kind.PROGRESS else _SILENCE)
        if step.skip_if and not result.ok and self._made_by_another(step, result):
            return Result(0)
        return result

    def _made_by_another(self, step: Step, result: Result) -> bool:
        """Tell whether what a step could not make is there: somebody else made it at the same moment."""
        end = time.monotonic() + (_RACE if wording.says(wording.MADE_MEANWHILE, result.stderr) else 0.0)
        while not command.run(step.skip_if, self._env, timeout=_SILENCE).ok:
            if time.monotonic() >= end or self._stopping:
                return False
            time.sleep(0.02)
        return True

    def _next(self) -> tuple[Step, Result]:
        step, result = self._ended.get()
        if isinstance(result, BottleError):
            raise result
        if not result.ok:
            raise StepError(step, result)
        self._note(f"{step.name} {result.seconds:.3f} s")
        return step, result

    def _settle(self, steps: Sequence[Step]) -> None:
        """Wait for the steps that still run, then end their clients; one that shows its progress is ended at once."""
        with self._news:
            self._stopping = True
            self._news.notify_all()
        shown = {step.name for step in steps if step.kind is Kind.PROGRESS or step.stdin_from}
        end = time.monotonic() + _SETTLE
        for name, worker in self._workers.items():
            if name in shown and worker.is_alive():
                self._clients[name].terminate()
        for name, worker in self._workers.items():
            worker.join(max(0.0, end - time.monotonic()))
            if worker.is_alive():
                self._clients[name].terminate()
        while not self._ended.empty():  # of what has ended meanwhile nobody wants to know
            self._ended.get()

    def _undo(self, step: Step) -> str | None:
        client = self._clients.get(step.name)
        if step.runs_long and client is not None:
            client.close_stdin()  # ends the container faster than `rm --force`
            if (
                client.process.returncode == 0
            ):  # all that run long have --rm, and docker's client has waited for the removal
                return None
        return self._teardown.remove(step.undo, self._env)
