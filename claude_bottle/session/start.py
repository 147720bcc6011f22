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
from claude_bottle.host.machine import TOKEN_VARIABLE, Host
from claude_bottle.manifest.agent import Agent
from claude_bottle.process import command, engine, terminal
from claude_bottle.process.engine import Egress, Engine
from claude_bottle.repository import source
from claude_bottle.repository.clone import Wanted
from claude_bottle.repository.fetch import Bottle, HandBack
from claude_bottle.selftest import receipt as selftest
from claude_bottle.selftest.receipt import Receipt
from claude_bottle.session import planning, preflight, steps
from claude_bottle.session.bring_up import Hands, stage, uncork, unlock, unproven
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


def dry_run(host: Host, agent: Agent, run: Run, wanted: Wanted | None = None) -> None:
    """Print the preflight and every command of a session, without calling docker."""
    env = planning.client_environment(host)
    local = Engine(env).is_local(ask=False)
    taken = source.survey(wanted, env, None) if wanted else None
    egress = Egress(host.setting("EGRESS_NETWORK") or engine.EGRESS)
    plan = planning.draft(host, agent, run, egress, local=local, taken=taken)
    with Teardown() as undo:
        stage(plan, undo)
        console.show(preflight.summary(plan, "(built if absent)"))
        console.output(preflight.commands(steps.table(plan)))


def start(host: Host, agent: Agent, options: Options) -> int:
    """Run a session and return claude's exit code; whatever goes wrong is an error of `claude_bottle.errors`."""
    if not host.has_token:
        raise TokenError(NO_TOKEN)
    if not (options.yes or host.interactive):
        raise RefusedError(_NOBODY)
    locked = [host.key.path for host in agent.bottle.ssh if host.key.encrypted]
    if locked and not host.interactive:
        raise RefusedError(f"{locked[0]} is encrypted, and nobody can be asked for its passphrase: {_NO_TERMINAL}")
    with _hands(host, verbose=options.verbose) as hands:
        taken = source.survey(options.wanted, hands.env, host.owner) if options.wanted else None
        plan, done = planning.take(host, agent, options.run, hands.engine, taken)
        console.show(preflight.summary(plan, _building(plan, done)))
        if not options.yes:
            preflight.ask("Start this session?")
            done = hands.engine.present(steps.skips(steps.table(plan)))  # an answer can take its time
        plan, receipt = _proven(plan, done, hands)
        if receipt.failed:
            raise unproven(plan, receipt, hands.engine)
        console.show("".join(f"{line}\n" for line in (receipt.line(), *(receipt.lines() if options.verbose else ()))))
        monitor = _watched(plan, hands)  # who is asked for a passphrase can take longer than a remote bottle waits
        unlock(plan, hands)
        if monitor.ended:
            raise monitor.ended
        hands.watchdog.reap()
        back = _handing_back(plan, hands, monitor)
        hands.undo.arm(_LAST, "report", functools.partial(_report, plan, monitor))
        hands.undo.note("claude ...")
        code = _claude(plan, host, agent)
        if error := _why_cut(code, plan, hands):
            raise monitor.ended or error
    # Only the hand-back's own line says what went wrong: it has been told by now.
    return RepositoryError.exit_code if back and back.failed and not code else code


def _handing_back(plan: Plan, hands: Hands, monitor: Monitor) -> HandBack | None:
    """Have the bottle's work brought back before anything is undone, whatever ends the session."""
    if not plan.repository:
        return None
    bottle = Bottle(plan.session, plan.owner, plan.name, plan.repository.work, hands.env, hands.watchdog.note)
    back = HandBack(bottle, console.say, console.show)
    hands.undo.arm(_WORK, "hand-back", back.run)
    monitor.last = back.run
    return back


def _why_cut(code: int, plan: Plan, hands: Hands) -> BottleError | None:
    """Return why claude ended where it was not by itself: the bottle has ended, or the engine has."""
    error = DockerError("the bottle was removed from outside, and with it the session")
    # Whatever ends the bottle ends claude as well, by SIGKILL.
    if code == _KILLED:
        return error if hands.runner.client("bottle").ended_within(_GRACE) else None
    if code not in _LOST:
        return None
    result = command.run(
        ("docker", "inspect", "--format", "{{.State.Running}}", plan.name), hands.env, timeout=_TIMEOUT
    )
    if result.unreachable or result.timed_out:
        return EngineError(f"the Docker engine does not answer any more ({result.reason})")
    return None if result.stdout.strip() == b"true" else error


def _watched(plan: Plan, hands: Hands) -> Monitor:
    key_holder = hands.runner.client("key-holder") if plan.keys else None
    monitor = Monitor(plan, hands.env, hands.runner.client("bottle"), hands.watchdog.note, key_holder)
    hands.undo.arm(_FIRST, "monitor", monitor.stop)
    return monitor


def _report(plan: Plan, monitor: Monitor) -> None:
    monitor.join()
    console.show(log.report(monitor.tally, plan.agent.bottle.path))


def verify(host: Host, agents: Iterable[Agent], *, verbose: bool) -> Iterator[tuple[str, Receipt | BottleError]]:
    """Do all of a session but claude for each agent; yield its name and its receipt, or why there is none."""
    for agent in agents:
        try:
            yield agent.name, _verified(host, agent, verbose=verbose)
        except BottleError as error:
            yield agent.name, error


def _verified(host: Host, agent: Agent, *, verbose: bool) -> Receipt:
    with _hands(host, verbose=verbose) as hands:
        receipt = _proven(*planning.take(host, agent, Run(terminal=False), hands.engine), hands)[1]
    if hands.undo.late:  # there may be more agents to verify
        raise SystemExit(128 + hands.undo.late)
    return receipt


@contextlib.contextmanager
def _hands(host: Host, *, verbose: bool) -> Iterator[Hands]:
    """Yield what a session works with; at the end undo what it has made."""
    env = planning.client_environment(host)
    note = console.say if verbose else _quiet
    watchdog, undo = Watchdog(env, host.owner), Teardown(note)
    try:
        with undo:
            runner = Runner(undo, env, note, watchdog.note)
            yield Hands(env, Engine(env), runner, undo, watchdog)
    finally:
        watchdog.close(clean=undo.clean)


def _proven(plan: Plan, done: frozenset[str], hands: Hands) -> tuple[Plan, Receipt]:
    console.say(f"session {plan.session}")
    plan, results = uncork(plan, hands, done)
    probe, inspect = results["selftest"], results["inspect"]
    receipt = selftest.judge(plan, plan.known, probe.stdout, inspect.stdout, max(probe.seconds, inspect.seconds))
    return plan, receipt


def _claude(plan: Plan, host: Host, agent: Agent) -> int:
    step = steps.table(plan)[-1]
    env = planning.client_environment(host) | plans.environment(host, agent)
    if plan.run.terminal:
        return terminal.run(step.argv, env)
    # What is typed meanwhile is for the shell: --print on a terminal has no stdin.
    return command.attach(step.argv, env, silent=host.interactive)


def _building(plan: Plan, done: frozenset[str]) -> str:
    own = "image" if plan.image == plan.base else "bottle-image"
    return "" if own in done else "(will be built)"


def _quiet(message: str) -> None:
    del message
