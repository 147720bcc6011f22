"""The story of a session: plan, ask, build, uncork, fill, lock, run, cork."""

import contextlib
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from claude_bottle.bottle import plan as plans
from claude_bottle.bottle.plan import Plan, Run
from claude_bottle.cleanup.stack import Teardown
from claude_bottle.cleanup.watchdog import Watchdog
from claude_bottle.egress import log
from claude_bottle.errors import BottleError, DockerError, EngineError, RefusedError, RepositoryError, TokenError
from claude_bottle.host import console
from claude_bottle.host.machine import TOKEN_VARIABLE, Machine
from claude_bottle.manifest.agent import Agent
from claude_bottle.process import command, terminal
from claude_bottle.process.engine import Engine
from claude_bottle.repository import source
from claude_bottle.repository.clone import Wanted
from claude_bottle.repository.fetch import Bottle, HandBack
from claude_bottle.selftest import receipt as selftest
from claude_bottle.selftest.receipt import Receipt
from claude_bottle.session import planning, preflight, steps
from claude_bottle.session.bring_up import SessionContext, bring_up, stage, unlock, unproven
from claude_bottle.session.monitor import Monitor
from claude_bottle.session.runner import Runner

_KILLED = 128 + 9
_LOST = (1, 255)  # of docker's client where the process, or the link to it, is gone; claude may end so by itself, too
_TIMEOUT = 10.0  # seconds for the engine to say whether the bottle lives
_GRACE = 10.0  # seconds between claude's end and that of the bottle, where they end together
_WORK, _FIRST, _LAST = 1 << 17, 1 << 16, -2  # places in the order of teardown
NO_TOKEN = (
    f"{TOKEN_VARIABLE} is not set: make a token with `claude setup-token`, then `export {TOKEN_VARIABLE}=<the token>`"
)
_NO_TERMINAL = "stdin is not a terminal"
_NOBODY = f"nobody can be asked, {_NO_TERMINAL}: give --yes to start without a question"


@dataclass(frozen=True)
class Options:
    """What the command line says of a start, beside the agent."""

    run: Run
    yes: bool = False
    verbose: bool = False
    wanted: Wanted | None = None  # the repository to be taken in


def dry_run(machine: Machine, agent: Agent, run: Run, wanted: Wanted | None = None) -> None:
    """Print the preflight and every command of a session, without calling docker."""
    env = planning.client_environment(machine)
    local = Engine(env).is_local(ask=False)
    taken = source.survey(wanted, env, None) if wanted else None
    plan = planning.offline_plan(planning.request(machine, agent, run, local=local, repository=taken))
    with Teardown() as undo:
        stage(plan, undo)
        console.show(preflight.summary(plan, "(built if absent)"))
        console.output(preflight.commands(steps.table(plan)))


def start(machine: Machine, agent: Agent, options: Options) -> int:
    """Run a session and return claude's exit code; whatever goes wrong is an error of `claude_bottle.errors`."""
    _refuse_what_cannot_work(machine, agent, options)
    with _context(machine, verbose=options.verbose) as context:
        plan = _agreed(machine, agent, options, context)
        plan, receipt = _proven(plan, context)
        if receipt.failed:
            raise unproven(plan, receipt, context.engine)
        console.show("".join(f"{line}\n" for line in (receipt.line(), *(receipt.lines() if options.verbose else ()))))
        monitor = _watched(plan, context)  # a prompt for a passphrase can take longer than a remote bottle waits
        unlock(plan, context)
        if monitor.ended:
            raise monitor.ended
        context.watchdog.reap()
        back = _handing_back(plan, context, monitor)
        context.undo.arm(_LAST, "report", functools.partial(_report, plan, monitor))
        context.undo.note("claude ...")
        code = _claude(plan, machine, agent)
        if error := _why_cut(code, plan, context):
            raise monitor.ended or error
    # Only the hand-back's own line says what went wrong: it has been printed by now.
    return RepositoryError.exit_code if back and back.failed and not code else code


def _refuse_what_cannot_work(machine: Machine, agent: Agent, options: Options) -> None:
    """Raise TokenError or RefusedError for a start that would fail only after minutes."""
    if not machine.has_token:
        raise TokenError(NO_TOKEN)
    if not (options.yes or machine.interactive):
        raise RefusedError(_NOBODY)
    locked = [host.key.path for host in agent.bottle.ssh if host.key.encrypted]
    if locked and not machine.interactive:
        raise RefusedError(f"{locked[0]} is encrypted, and nobody can be asked for its passphrase: {_NO_TERMINAL}")


def _agreed(machine: Machine, agent: Agent, options: Options, context: SessionContext) -> Plan:
    """Return the plan that the user has seen, and said yes to unless nobody was to be asked."""
    taken = source.survey(options.wanted, context.env, machine.owner) if options.wanted else None
    local = context.engine.is_local()
    asked = planning.request(machine, agent, options.run, local=local, repository=taken)
    plan = planning.resolve(asked, context.engine)
    console.show(preflight.summary(plan, "" if plan.image.tag in plan.facts.present else "(will be built)"))
    if options.yes:
        return plan
    preflight.ask("Start this session?")
    return planning.refreshed(plan, context.engine)  # an answer can take its time


def _handing_back(plan: Plan, context: SessionContext, monitor: Monitor) -> HandBack | None:
    """Have the bottle's work brought back before anything is undone, whatever ends the session."""
    if not plan.repository:
        return None
    bottle = Bottle(plan.session, plan.owner, plan.name, plan.repository.work, context.env, context.watchdog.note)
    back = HandBack(bottle, console.say, console.show)
    context.undo.arm(_WORK, "hand-back", back.run)
    monitor.last = back.run
    return back


def _why_cut(code: int, plan: Plan, context: SessionContext) -> BottleError | None:
    """Return why claude ended where it was not by itself: the bottle has ended, or the engine has."""
    error = DockerError("the bottle was removed from outside, and with it the session")
    # Whatever ends the bottle ends claude as well, by SIGKILL.
    if code == _KILLED:
        return error if context.runner.client("bottle").ended_within(_GRACE) else None
    if code not in _LOST:
        return None
    result = command.run(
        ("docker", "inspect", "--format", "{{.State.Running}}", plan.name), context.env, timeout=_TIMEOUT
    )
    if result.unreachable or result.timed_out:
        return EngineError(f"the Docker engine does not answer any more ({result.reason})")
    return None if result.stdout.strip() == b"true" else error


def _watched(plan: Plan, context: SessionContext) -> Monitor:
    key_holder = context.runner.client("key-holder") if plan.keys else None
    monitor = Monitor(plan, context.env, context.runner.client("bottle"), context.watchdog.note, key_holder)
    context.undo.arm(_FIRST, "monitor", monitor.stop)
    monitor.start()
    return monitor


def _report(plan: Plan, monitor: Monitor) -> None:
    monitor.join()
    console.show(log.report(monitor.tally, plan.agent.bottle.path))


def verify(machine: Machine, agents: Iterable[Agent], *, verbose: bool) -> Iterator[tuple[str, Receipt | BottleError]]:
    """Do all of a session but claude for each agent; yield its name and its receipt, or why there is none."""
    for agent in agents:
        try:
            yield agent.name, _verified(machine, agent, verbose=verbose)
        except BottleError as error:
            yield agent.name, error


def _verified(machine: Machine, agent: Agent, *, verbose: bool) -> Receipt:
    with _context(machine, verbose=verbose) as context:
        asked = planning.request(machine, agent, Run(terminal=False), local=context.engine.is_local())
        receipt = _proven(planning.resolve(asked, context.engine), context)[1]
    if context.undo.late:  # there may be more agents to verify
        raise SystemExit(128 + context.undo.late)
    return receipt


@contextlib.contextmanager
def _context(machine: Machine, *, verbose: bool) -> Iterator[SessionContext]:
    """Yield what a session works with; at the end undo what it has made."""
    env = planning.client_environment(machine)
    note = console.say if verbose else _quiet
    watchdog, undo = Watchdog.start(env, machine.owner), Teardown(note)
    try:
        with undo:
            runner = Runner(undo, env, note, watchdog.note)
            yield SessionContext(env, Engine(env), runner, undo, watchdog)
    finally:
        watchdog.close(clean=undo.clean)


def _proven(plan: Plan, context: SessionContext) -> tuple[Plan, Receipt]:
    console.say(f"session {plan.session}")
    plan, results = bring_up(plan, context)
    probe, inspect = results["selftest"], results["inspect"]
    receipt = selftest.judge(plan, plan.known, probe.stdout, inspect.stdout, max(probe.seconds, inspect.seconds))
    return plan, receipt


def _claude(plan: Plan, machine: Machine, agent: Agent) -> int:
    step = steps.table(plan).claude
    env = planning.client_environment(machine) | plans.environment(machine, agent)
    if plan.run.terminal:
        return terminal.run(step.argv, env, stops=True)
    # What is typed meanwhile is for the shell: --print on a terminal has no stdin.
    return command.attach(step.argv, env, silent=machine.interactive)


def _quiet(message: str) -> None:
    del message
