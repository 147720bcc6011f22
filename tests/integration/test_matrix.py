"""The fault matrix: each signal at every row of the table as it starts, at every undo, and in the session.

The rows are the table's own, so that a new one enters by itself. After each case nothing is left, by the session's
label. The matrix tells its size and its result in pytest's summary.
"""

import shlex
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from claude_bottle.bottle import plan
from claude_bottle.bottle.plan import Run
from claude_bottle.host.machine import Machine
from claude_bottle.manifest import agent as manifest
from claude_bottle.process.endpoint import Endpoint
from claude_bottle.process.engine import EngineFacts
from claude_bottle.process.liveness import this_process
from claude_bottle.repository import source
from claude_bottle.session import planning, steps
from claude_bottle.session.steps import Kind, Step
from tests.support.matrix import Case, Matrix, stays, write
from tests.support.sessions import Bench, Running

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("matrix")]

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGKILL)


def table(bench: Bench) -> tuple[Step, ...]:
    """Return the table of a session of the bench, the shared egress network included."""
    write(bench, "stay")
    machine = Machine(bench.environ, Path.home(), interactive=False, owner=this_process())
    agent = manifest.load_agent(bench.agents, bench.name, environ=machine.environ, home=machine.home)
    wanted = source.wanted(agent.repo, None, None, with_changes=False)
    assert wanted
    taken = source.survey(wanted, bench.environ, None)
    asked = planning.request(machine, agent, Run(terminal=False), endpoint=Endpoint(), repository=taken)
    # The shared egress network is one of the steps, whichever this bench has chosen.
    return tuple(steps.table(plan.make(replace(asked, token="0" * 8), EngineFacts())))


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_when_a_step_starts(matrix: Matrix, number: signal.Signals) -> None:
    def case(step: Step) -> Case:
        made = Case(step.name, matrix.bench(), number, (128 + number,), lambda run: run.until(f": {step.name} ..."))
        if step.skip_if:
            made.environ = {"PATH": lacking(made.bench, step), "CLAUDE_BOTTLE_EGRESS_NETWORK": ""}
        return made

    matrix.run([case(step) for step in table(matrix.bench())])


def lacking(bench: Bench, step: Step) -> str:
    """Return a PATH whose docker lacks what a step makes, and asks nobody outside for it: a build or pull lasts."""
    *question, name = step.skip_if[1:]
    asked, made = (shlex.quote(" ".join(words)) for words in (question, step.argv[1:]))
    making = "exec sleep 20" if step.kind is Kind.PROGRESS else "exec docker version"
    # It may be asked for among others of its kind.
    return bench.wrap(f"{asked}*{shlex.quote(name)}*) exit 1;;\n{made}) {making};;")


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_in_the_session(matrix: Matrix, number: signal.Signals) -> None:
    matrix.run([Case("session", matrix.bench(), number, (128 + number,), stays)])


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_at_an_undo(matrix: Matrix, number: signal.Signals) -> None:
    """At those of a session that ends by itself, and of one that is ended in a step that else leaves nothing."""
    plain = matrix.bench()
    write(plain, "hello")
    said = plain.start("--yes", "-v").err.splitlines()
    names = [line.split(": undo ")[1].removesuffix(" ...") for line in said if ": undo " in line]
    rows = {step.name: step for step in table(matrix.bench()) if step.undo}
    assert {name for name, step in rows.items() if step.kind is not Kind.UNTIL_READY} <= set(names)

    def case(name: str) -> Case:
        # The last ones, which are no rows, take so little time that the handlers may have gone, or Python has ended.
        codes = (0,) if name in rows else (0, -number, 128 + number)
        return Case(name, matrix.bench(), number, codes, lambda run: at_undo(run, name), "hello")

    transient = [in_flight(matrix.bench(), step, number) for step in rows.values() if step.kind is Kind.UNTIL_READY]
    matrix.run([*map(case, names), *transient])


def at_undo(run: Running, name: str) -> None:
    """Wait for an undo of a session that has run: one that starts again on other addresses undoes before."""
    run.until(": claude ...")
    run.until(f": undo {name} ...")


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

    return Case(step.name, bench, number, (128 + signal.SIGTERM,), moment, environ={"PATH": path})
