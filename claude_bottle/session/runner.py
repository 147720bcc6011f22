"""Run a table of steps, independent ones in parallel; each undo is armed before its step starts."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from claude_bottle.cleanup.stack import Teardown
from claude_bottle.process import command, stream, wording
from claude_bottle.process.command import Client, Result
from claude_bottle.repository import git
from claude_bottle.session.building import Build, Shown
from claude_bottle.session.steps import Kind, Step

_SETTLE = 30.0  # seconds to wait, after a failure, for the steps that still run
_SILENCE = (
    120.0  # seconds for one docker command, after which the engine counts as hung; builds and pulls may take longer
)
_LONG = 7200.0  # seconds to copy a repository into the bottle
_PARTING = 5.0  # seconds for a long-running step to exit; its undo covers the rest
_RACE = 5.0  # seconds from the refusal of a second network until the first is listed; 0.1 measured


class StepError(Exception):
    """A step failed: `step`, with its `result`."""

    def __init__(self, step: Step, result: Result) -> None:
        """Store the step and its result."""
        super().__init__(step.name, result.reason)
        self.step, self.result = step, result


Ended = queue.SimpleQueue[tuple[Step, Result | Exception]]


class _Undoing:
    """An undo in a thread of its own."""

    def __init__(self, undo: Callable[[], str | None]) -> None:
        self._undo = undo
        self._ended: queue.SimpleQueue[str | Exception | None] = queue.SimpleQueue()

    def start(self) -> None:
        """Begin; raises RuntimeError if there can be no more threads."""
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._ended.put(self._undo())
        except Exception as error:  # whatever it is, it is the caller's
            self._ended.put(error)

    def result(self) -> str | None:
        """Wait for the end of the undo; return what it returns, or raise what it raises."""
        result = self._ended.get()
        if isinstance(result, Exception):
            raise result
        return result


class Runner:
    """Runs steps against one engine and arms their undos on `teardown`."""

    def __init__(
        self,
        teardown: Teardown,
        env: Mapping[str, str],
        note: Callable[[str], None],
        started: Callable[[int], None] = lambda _: None,
        *,
        one_line: bool = False,
    ) -> None:
        """Create a runner whose docker clients get `env`.

        `note` is called with a line at the start and the end of each step, `started` with the pid of each client. With
        `one_line` a build is shown as one line of the terminal, and its output only if it fails.
        """
        self._one_line = one_line
        self._teardown, self._env, self._note, self._started = teardown, env, note, started
        self._clients: dict[str, Client] = {}
        self._armed: dict[str, Step] = {}
        self._undoing: dict[str, _Undoing] = {}  # those that have begun before their turn
        self._workers: dict[str, threading.Thread] = {}
        self._news = threading.Condition()  # guards the next two
        self._ready: set[str] = set()
        self._said: dict[str, bytes] = {}  # the stdout of the steps that are ready
        self._stopping = False
        self._ended: Ended = queue.SimpleQueue()

    def run(self, steps: Sequence[Step], beat: Callable[[Client], None] | None = None) -> dict[str, Result]:
        """Run every step whose product does not exist yet; return each step's result, by the step's name.

        `beat` is called with the client of each container that gives up without a heartbeat, as soon as its stdin is
        free.
        Raises StepError for the first failure, once the steps in flight have ended: a docker client that still runs
        could create an object after its undo.
        """
        places = {step.name: place for place, step in enumerate(steps)}
        waiting = [step for step in steps if not step.present]
        count = len(waiting)
        results: dict[str, Result] = {}
        self._ready, self._stopping = {step.name for step in steps if step.present}, False
        self._ended = queue.SimpleQueue()  # a step of an earlier attempt that ends late puts its result elsewhere
        try:
            while len(results) < count:
                for step in [step for step in waiting if self._ready.issuperset(step.needs)]:
                    waiting.remove(step)
                    self._start(step, places[step.name], beat)
                step, result = self._next()
                if beat and step.kind is Kind.LONG_RUNNING and step.stdin:
                    beat(self._clients[step.name])  # before, a line of it would be in the midst of what the step reads
                with self._news:
                    self._ready.add(step.name)
                    self._said[step.name] = result.stdout
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
        """Return the docker client of a step that has started; raises KeyError if it has not."""
        return self._clients[name]

    def _start(self, step: Step, place: int, beat: Callable[[Client], None] | None) -> None:
        self._note(f"{step.name} ...")
        with self._teardown.shielded():
            if step.undo:
                self._teardown.arm(place, step.name, lambda: self._undo(step))
                self._armed[step.name] = step
            build = step.kind is Kind.PROGRESS
            client = command.start(
                step.argv, self._env, shown=build and not self._one_line, mixed=build and self._one_line
            )
            client.parting = step.parting
            self._started(client.pid)
            self._clients[step.name] = client
            self._workers[step.name] = threading.Thread(
                target=self._work, args=(step, client, self._ended), daemon=True
            )
            self._workers[step.name].start()
            if beat and step.kind is Kind.LONG_RUNNING and not step.stdin:
                beat(client)

    def _await(self, names: Sequence[str], client: Client) -> None:
        """Wait until the steps of these names are ready; terminate the client if the run is aborted first."""
        if not names:
            return
        with self._news:
            self._news.wait_for(lambda: self._stopping or self._ready.issuperset(names))
        if self._stopping:
            client.terminate()

    def _work(self, step: Step, client: Client, ended: Ended) -> None:
        """Wait for a step, in a thread so that the main thread can handle signals."""
        started = time.monotonic()
        try:
            result = self._result(step, client)
        except Exception as error:  # such as docker uninstalled meanwhile; the main thread waits for it
            ended.put((step, error))
        else:
            ended.put((step, replace(result, seconds=time.monotonic() - started)))

    def _result(self, step: Step, client: Client) -> Result:
        self._await(step.stdin_after, client)
        rest = step.stdin
        if step.quote:
            client.give(rest)
            self._await(step.quote_after, client)
            rest = step.quote.filled(self._said.get(step.quote.step, b""))
        if step.runs_long:
            return client.ready(rest, _SILENCE)
        if step.stdin_from:
            env = git.environment(self._env)
            return stream.piped(client, step.stdin, step.stdin_from, env, what=step.name, seconds=_LONG)
        if step.kind is Kind.PROGRESS and self._one_line:
            result = self._as_one_line(step, client)
        else:
            result = client.wait(rest, None if step.kind is Kind.PROGRESS else _SILENCE)
        if step.skip_if and not result.ok and self._made_by_another(step, result):
            return Result(0)
        return result

    def _as_one_line(self, step: Step, client: Client) -> Result:
        build = Build(step.name, Shown.LINE)
        result = build.run(client, step.stdin)
        if not (result.ok or self._stopping):
            build.tell()
        return result

    def _made_by_another(self, step: Step, result: Result) -> bool:
        """Return whether the object that a step failed to create exists, because another session created it first."""
        end = time.monotonic() + (_RACE if wording.says(wording.MADE_MEANWHILE, result.stderr) else 0.0)
        while not command.run(step.skip_if, self._env, timeout=_SILENCE).ok:
            if time.monotonic() >= end or self._stopping:
                return False
            time.sleep(0.02)
        return True

    def _next(self) -> tuple[Step, Result]:
        step, result = self._ended.get()
        if isinstance(result, Exception):
            raise result
        if not (result.ok or step.optional):
            raise StepError(step, result)
        self._note(f"{step.name} {result.seconds:.3f} s")
        return step, result

    def _settle(self, steps: Sequence[Step]) -> None:
        """Wait for the steps in flight, then end their clients; builds, pulls and clones are ended at once."""
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
        while not self._ended.empty():  # results after the failure are discarded
            self._ended.get()

    def _undo(self, step: Step) -> str | None:
        self._armed.pop(step.name, None)
        if begun := self._undoing.pop(step.name, None):
            return begun.result()
        if beside := self._armed.get(step.undone_beside):
            undoing = _Undoing(lambda: self._remove(beside))
            with contextlib.suppress(RuntimeError):  # no more threads, or the interpreter is about to end
                undoing.start()
                self._undoing[beside.name] = undoing
        return self._remove(step)

    def _remove(self, step: Step) -> str | None:
        client = self._clients.get(step.name)
        if step.runs_long and client is not None:
            if beside := self._clients.get(step.ends_beside):
                beside.let_go()
            client.close_stdin()  # stops the container faster than `rm --force`
        # With --rm, docker's client exits only after the removal.
        if step.removes_itself and client is not None and client.process.returncode == 0:
            return None
        return self._teardown.remove(step.undo, self._env)
