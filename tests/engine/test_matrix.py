"""The fault matrix: each signal at every row of the table as it starts, at every undo, and in the session.

The rows are the table's own, so that a new one enters by itself. After each case nothing is left, by the session's
label. The matrix tells its size and its result in pytest's summary.
"""

import shlex
import shutil
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from claude_bottle import manifest, session, steps
from claude_bottle import plan as planning
from claude_bottle.host import Host
from claude_bottle.plan import Egress, Run
from claude_bottle.steps import Step
from tests.engine.sessions import GUARD, PUPPET, Bench, Running, command_lines
from tests.world import World

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("matrix")]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGKILL)
SIDE_BY_SIDE = 6
KILLED_BOUND = 5  # seconds until nothing is left of a session whose launcher was killed


@dataclass
class Case:
    """One session that gets a signal at a moment; `code` is what it then ends with, unless the signal is KILL."""

    row: str
    bench: Bench
    number: signal.Signals
    code: int
    moment: Callable[[Running], None]
    prompt: str = "stay"
    environ: dict[str, str] = field(default_factory=dict)
    gone: float = 0  # seconds from KILL until nothing was left

    def run(self) -> str | None:
        """Run it; return what is wrong."""
        try:
            self._run()
        except AssertionError as error:
            self.bench.remove_left()
            return f"{self.row}: {error}"
        return None

    def _run(self) -> None:
        write(self.bench, self.prompt)
        with self.bench.running("--yes", "-v", **self.environ) as run:
            self.moment(run)
            run.process.send_signal(self.number)
            sent = time.monotonic()
            ended = run.end()
        killed = self.number == signal.SIGKILL
        assert ended.code == (-self.number if killed else self.code), ended
        if killed:
            self.gone = until_nothing_is_left(self.bench, sent)
            until_no_watchdog(run.process.pid)  # after its own two looks at the engine
        assert (things(self.bench) if killed else self.bench.left()) == [], ended


def write(bench: Bench, prompt: str) -> None:
    """Give an agent a bottle whose claude is the puppet, which is beside the manifests."""
    bench.write({"image": {"dockerfile": "../puppet/Dockerfile"}}, prompt=prompt)


def things(bench: Bench) -> list[str]:
    """Return what is left of a session, but for clients: one that KILL orphaned at its birth ends by itself."""
    kinds = ("ps ", "network ", "volume ", str(bench.stage))
    return [one for one in bench.left() if one.startswith(kinds)]


def until_nothing_is_left(bench: Bench, since: float) -> float:
    """Wait until nothing is left of a session; return the seconds that it took."""
    while left := things(bench):
        assert time.monotonic() < since + GUARD, left
        time.sleep(0.1)
    return time.monotonic() - since


def until_no_watchdog(launcher: int) -> None:
    """Wait until the watchdog of a launcher has ended."""
    end = time.monotonic() + GUARD
    while any(b"claude_bottle.watchdog" in line and b":%d:" % launcher in line for line in command_lines()):
        assert time.monotonic() < end, "the watchdog does not end"
        time.sleep(0.1)


class Matrix:
    """Makes the cases of one test, runs them side by side, and notes what came of them for the summary."""

    def __init__(self, world: World, agents: Path, folder: Path, note: Callable[[str, object], None]) -> None:
        self._world, self._agents, self._folder, self._note = world, agents, folder, note
        self._made = 0
        self.table = table(self.bench())

    def bench(self) -> Bench:
        """Return a place for one session: an agent and a temporary directory of its own."""
        self._made += 1
        folder = self._folder / str(self._made)
        folder.mkdir()
        return Bench(self._world, self._agents, folder)

    def run(self, cases: Sequence[Case]) -> None:
        """Run all cases; what is wrong with any is the test's failure."""
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            wrong = [each for each in pool.map(Case.run, cases) if each]
        gone = [case.gone for case in cases if case.gone]
        self._note("matrix", (len(cases), len(wrong), gone))
        assert not wrong, "\n".join(wrong)
        assert not gone or statistics.median(gone) < KILLED_BOUND, gone  # of so many one may wait for the machine


def table(bench: Bench) -> tuple[Step, ...]:
    """Return the table of a session of the bench, the shared egress network included."""
    write(bench, "stay")
    host = Host(bench.environ, Path.home(), interactive=False, owner="test")
    agent = manifest.load_agent(bench.agents, bench.name, environ=host.environ, home=host.home)
    images = session.images(host, agent.bottle.dockerfile)
    egress = Egress(planning.EGRESS)
    return steps.table(planning.make(host, agent, Run(terminal=False), images=images, egress=egress, token="0" * 8))


@pytest.fixture
def matrix(world: World, agents_dir: Path, tmp_path: Path, record_property: Callable[[str, object], None]) -> Matrix:
    """The cases of one test."""
    shutil.copytree(PUPPET, agents_dir / "puppet")
    return Matrix(world, agents_dir, tmp_path, record_property)


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_when_a_step_starts(matrix: Matrix, number: signal.Signals) -> None:
    def case(step: Step) -> Case:
        made = Case(step.name, matrix.bench(), number, 128 + number, lambda run: run.until(f": {step.name} ..."))
        if step.unless:
            made.environ = {"PATH": lacking(made.bench, step), "CLAUDE_BOTTLE_EGRESS_NETWORK": ""}
        return made

    matrix.run([case(step) for step in matrix.table])


def lacking(bench: Bench, step: Step) -> str:
    """Return a PATH whose docker lacks what a step makes, and asks nobody outside for it: a build or pull lasts."""
    asked, made = (shlex.quote(" ".join(argv[1:])) for argv in (step.unless, step.argv))
    making = "exec sleep 60" if step.shown else "exec docker version"
    return bench.wrap(f"{asked}) exit 1;;\n{made}) {making};;")


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_in_the_session(matrix: Matrix, number: signal.Signals) -> None:
    def works(run: Running) -> None:
        assert run.process.stdout
        assert run.process.stdout.read(9) == b"<staying>"

    matrix.run([Case("session", matrix.bench(), number, 128 + number, works)])


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_at_an_undo(matrix: Matrix, number: signal.Signals) -> None:
    """At those of a session that ends by itself, and of one that is ended in a step that else leaves nothing."""
    plain = matrix.bench()
    write(plain, "hello")
    said = plain.start("--yes", "-v").err.splitlines()
    names = [line.split(": undo ")[1].removesuffix(" ...") for line in said if ": undo " in line]
    assert {step.name for step in matrix.table if step.undo and not step.transient} <= set(names)

    def case(name: str) -> Case:
        return Case(name, matrix.bench(), number, 0, lambda run: run.until(f": undo {name} ..."), "hello")

    transient = [in_flight(matrix.bench(), step, number) for step in matrix.table if step.undo and step.transient]
    matrix.run([*map(case, names), *transient])


def in_flight(bench: Bench, step: Step, number: signal.Signals) -> Case:
    """Return the case of a step that is ended before it has succeeded, and whose undo is then interrupted."""
    told, go = bench.folder / "told", bench.folder / "go"
    name = step.undo[-1].rpartition("-")[2]
    held = f'*"run --name claude-bottle-{bench.name}-"*"-{name} "*'
    wait = f"until [ -e {go} ]; do sleep 0.01; done"
    path = bench.wrap(f'{held}) touch {told}; docker "$@"; code=$?; {wait}; exit $code;;')

    def moment(run: Running) -> None:
        bench.await_file(told)
        run.process.send_signal(signal.SIGTERM)
        go.touch()
        run.until(f": undo {step.name} ...")

    return Case(step.name, bench, number, 128 + signal.SIGTERM, moment, environ={"PATH": path})
