"""Run a session from start to end: plan, confirm, bring up, prove, run claude, fetch the work, tear down."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from claude_bottle.bottle import docker_flags
from claude_bottle.bottle import plan as plans
from claude_bottle.bottle.plan import Plan, Run
from claude_bottle.cleanup.stack import Teardown
from claude_bottle.cleanup.watchdog import Watchdog
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.egress import log
from claude_bottle.errors import (
    BottleError,
    DockerError,
    EngineError,
    RefusedError,
    RepositoryError,
    TimeUpError,
    TokenError,
)
from claude_bottle.host import console, proof
from claude_bottle.host.machine import TOKEN_VARIABLE, Machine, MadeUp, machine_fault
from claude_bottle.manifest.agent import Agent
from claude_bottle.process import command, forward, terminal
from claude_bottle.process.engine import Engine
from claude_bottle.process.terminal import Tap
from claude_bottle.repository import source
from claude_bottle.repository.clone import Wanted
from claude_bottle.repository.fetch import Bottle, HandBack
from claude_bottle.selftest import receipt as selftest
from claude_bottle.selftest.evidence import Seen
from claude_bottle.selftest.receipt import Receipt
from claude_bottle.session import approvals, notify, planning, preflight, registries, steps, token_store
from claude_bottle.session.approvals import Approval, Entry
from claude_bottle.session.background import Apart
from claude_bottle.session.bring_up import (
    SessionContext,
    bring_up,
    build_shared,
    building_shared,
    stage,
    unlock,
    unproven,
)
from claude_bottle.session.building import Shown
from claude_bottle.session.keeping import Keeper
from claude_bottle.session.monitor import Heart, Monitor
from claude_bottle.session.resuming import Resumed
from claude_bottle.session.runner import Runner

_KILLED = 128 + 9
_LOST = (1, 255)  # exit codes of a docker client that lost its process or its engine; claude may exit with them, too
_TIMEOUT = 10.0  # seconds for the engine to report whether the bottle is running
_GRACE = 10.0  # seconds from the end of claude to the end of the bottle that caused it
# Places in the order of teardown. What is kept comes after the work, or with it, and before the bottle ends.
_WORK, _KEPT, _FIRST, _LAST, _NOTIFY = 1 << 17, (1 << 17) - 1, 1 << 16, -2, -3
_LINK_LOST = EngineError("the link to the engine was lost, which ended the session")
_NO_TERMINAL = "stdin is not a terminal"
NO_PROMPT = f"cannot prompt: {_NO_TERMINAL}; pass --yes to skip the prompt"


@dataclass(frozen=True)
class Options:
    """The options of a `start`, besides the agent."""

    run: Run
    yes: bool = False
    yes_if_unchanged: bool = False  # since the last answered yes
    verbose: bool = False
    wanted: Wanted | None = None  # the repository to clone into the bottle
    tap: Tap | None = None  # gets what a sign-in shows
    background: Apart | None = None  # what it has in the place of the user's terminal
    keep: bool = False  # the conversation and what came of it
    resumed: Resumed | None = None  # the session whose conversation goes on
    approved: Approval | None = None  # what was said yes to for this very session, whatever is recorded
    landed: Callable[[str], None] = lambda _: None  # called with each branch that came back
    show: Callable[[str], None] = console.show  # called with the summary of the work


def dry_run(
    machine: Machine, agent: Agent, run: Run, wanted: Wanted | None = None, resumed: Resumed | None = None
) -> None:
    """Print the preflight and every docker command of a session, without calling docker.

    Raises ManifestError, RepositoryError, EngineError without git, or DockerError if the stage dir is not writable.
    """
    machine = token_store.announced(machine)
    env = planning.client_environment(machine)
    endpoint = Engine(env).endpoint(ask=False)
    repository = source.survey(wanted, env, None) if wanted else None
    plan = planning.offline_plan(planning.request(machine, agent, run, endpoint=endpoint, repository=repository))
    with Teardown() as undo:
        stage(plan, undo)
        console.show(preflight.summary(plan, "(built if absent)"))
        _show_widened(plan, resumed)
        console.output(preflight.link(endpoint.url, env) + preflight.commands(steps.table(plan)))


def start(machine: Machine, agent: Agent, options: Options) -> int:
    """Run a session; return claude's exit code, or RepositoryError's if claude succeeded and its work was not fetched.

    Raises the errors of `claude_bottle.errors`, and SystemExit(128 + n) after signal n.
    """
    _refuse_what_cannot_work(machine, agent, options)
    notified = None if options.run.login else notify.program(machine)
    machine = with_key(machine if options.run.login else with_token(machine))
    with Keeper(machine, wanted=options.keep) as keeper:
        with _context(machine, verbose=options.verbose) as context:
            machine = context.machine
            plan = _agreed(machine, agent, options, context)
            plan, receipt = _proven(plan, context)
            if receipt.failed:
                raise unproven(plan, receipt, context.engine)
            lines = (receipt.line(), *(receipt.lines() if options.verbose else ()))
            console.show("".join(f"{line}\n" for line in lines))
            monitor = _watched(plan, context, detached=options.background is not None)
            unlock(plan, context)
            if monitor.ended:
                raise monitor.ended
            if options.background:
                options.background.go_on(machine, plan, receipt, context)
            context.watchdog.reap()
            keeper.begin(machine, plan, receipt, monitor.tally, context.watchdog.note)
            back = _handing_back(plan, context, monitor, keeper, options)
            if not plan.run.login:  # it has no manifest to name
                context.undo.arm(_LAST, "report", functools.partial(_report, plan, monitor))
            if notified:
                # What writes the record last; the program may look at it.
                (options.background or keeper).last = _notifying(notified, plan, context)
            context.undo.note("claude ...")
            code = _ran(plan, machine, options, keeper, monitor, context)
        # The hand-back has already printed its own error.
        return keeper.ended(RepositoryError.exit_code if back and back.failed and not code else code)


def _ran(
    plan: Plan, machine: Machine, options: Options, keeper: Keeper, monitor: Monitor, context: SessionContext
) -> int:
    """Run claude; return its exit code, or raise the error that cut it off."""
    try:
        code = _sign_in(plan, context, options.tap) if plan.run.login else _claude(plan, machine, options, keeper)
    finally:
        monitor.claude_ended()
    if isinstance(monitor.ended, TimeUpError):
        raise monitor.ended
    if error := _why_cut(code, plan, context):
        raise error if error is _LINK_LOST else monitor.ended or error
    return code


def _refuse_what_cannot_work(machine: Machine, agent: Agent, options: Options) -> None:
    """Raise TokenError or RefusedError at once for a start that would otherwise fail after minutes."""
    if not (options.run.login or machine.has_token or token_store.recorded(machine)):
        raise TokenError(token_store.NO_TOKEN)
    if not (options.yes or options.yes_if_unchanged or machine.interactive):
        raise RefusedError(NO_PROMPT)
    locked = [host.key.path for host in agent.bottle.ssh if host.key.encrypted]
    if locked and not machine.interactive:
        raise RefusedError(f"cannot prompt for the passphrase of {locked[0]}: {_NO_TERMINAL}")


def _agreed(machine: Machine, agent: Agent, options: Options, context: SessionContext) -> Plan:
    """Return the plan, once shown to the user and, without --yes, confirmed; raises RefusedError if it is not.

    Only an answer is recorded, and only without --yes is a record read.
    """
    repository = source.survey(options.wanted, context.env, machine.owner) if options.wanted else None
    endpoint = context.engine.endpoint()
    agent = registries.learned(machine, agent, context.engine)
    requested = planning.request(machine, agent, options.run, endpoint=endpoint, repository=repository)
    plan = planning.resolve(requested, context.engine)
    if not plan.run.login:
        console.show(preflight.summary(plan, "" if plan.image.tag in plan.facts.present else "(will be built)"))
    widened = _show_widened(plan, options.resumed)
    unbuilt = registries.unbuilt(machine, agent, plan.facts.present)
    if not options.yes or widened:
        # A script that is refused has had nothing built.
        asked = machine.interactive and not options.yes_if_unchanged
        with building_shared(plan, context) if asked else contextlib.nullcontext():
            _confirmed(machine, plan, options)
        plan = planning.refreshed(plan, context.engine)  # the engine may have changed while the user was reading
    if unbuilt:
        build_shared(plan, context)
        if registries.learned(machine, agent, context.engine) != agent:
            return _agreed(machine, agent, options, context)  # the user has not seen these hosts yet
        plan = planning.refreshed(plan, context.engine)
    return plan


def _show_widened(plan: Plan, resumed: Resumed | None) -> bool:
    """Show what a plan reaches and the session that goes on did not; return whether there is anything."""
    lines = resumed.widened(plan) if resumed else []
    if lines:
        what = "reached by this session, and not by the one whose conversation goes on:"
        console.show("".join(f"{line}\n" for line in (f"beware  {what}", *lines)))
    return bool(lines)


def _confirmed(machine: Machine, plan: Plan, options: Options) -> None:
    """Show what changed since the last yes, and ask for another one, or refuse; raises RefusedError without a yes.

    With --yes, which does not cover what an old conversation did not reach, only the terminal is asked.
    """
    if options.yes:
        if not machine.interactive:
            raise RefusedError(
                "not started: an old conversation would reach more, see above; --yes does not cover that"
            )
        preflight.ask("Start this session?")
        return
    path, now = plan.agent.path, approvals.entries(plan)
    before = options.approved or approvals.read(machine, path)
    console.show(approvals.compared(before, now))
    if options.yes_if_unchanged:
        _refuse_what_changed(before, now)
        return
    preflight.ask("Start this session?")
    try:
        approvals.write(machine, path, now)
    except OSError as error:
        console.say(escape_control_chars(f"your yes is not recorded: {machine_fault(error)}"))


def _refuse_what_changed(before: Approval | None, now: tuple[Entry, ...]) -> None:
    """Raise RefusedError unless the last yes was to the same."""
    if not before:
        raise RefusedError("not started: no approval of this agent is recorded; answer y to a start without --yes")
    if approvals.changes(before, now):
        raise RefusedError("not started: changed since you approved it, see above")


def _handing_back(
    plan: Plan, context: SessionContext, monitor: Monitor, keeper: Keeper, options: Options
) -> HandBack | None:
    """Arm the hand-back of the bottle's work, before every other undo, however the session ends.

    What is kept is taken out of the bottle as soon as the work is, and before the hand-back ends the bottle.
    """
    if keeper.wanted:
        context.undo.arm(_KEPT, "conversation", keeper.take)
    if not plan.repository:
        monitor.last = keeper.take
        return None

    def end() -> None:
        if context.link and not context.link.answers():
            return  # there is another attempt
        keeper.take()
        monitor.end_bottle()

    def last() -> None:
        back.run()
        keeper.take()  # if the work did not come back

    bottle = Bottle(plan.session, plan.owner, plan.name, plan.repository.work, context.env, context.watchdog.note)
    reached = functools.partial(context.reached, plan)
    back = HandBack(bottle, console.say, options.show, end, options.landed, reached)
    context.undo.arm(_WORK, "hand-back", back.run)
    monitor.last = last
    return back


def _why_cut(code: int, plan: Plan, context: SessionContext) -> BottleError | None:
    """Return the error if claude did not exit by itself but lost its bottle or its engine, else None."""
    # The end of the bottle kills claude with SIGKILL.
    killed = code == _KILLED and context.runner.client("bottle").ended_within(_GRACE)
    if code == _KILLED and not killed and plan.keeps_work and context.runner.client("reaper").ended_within(0):
        return _LINK_LOST  # which was silent, and is not any more
    if not killed and code not in _LOST:
        return None
    if context.link and (context.link.cuts or not context.link.answers()):
        return _LINK_LOST
    asked = ("inspect", "--format", "{{.State.Running}}", plan.name)
    try:
        result = context.engine.ask(*asked, timeout=_TIMEOUT)
    except EngineError as silent:
        return silent
    if not killed and result.stdout.strip() == b"true":
        return None
    return DockerError("the bottle was removed from outside, which ended the session")


def _watched(plan: Plan, context: SessionContext, *, detached: bool) -> Monitor:
    key_holder = context.runner.client("key-holder") if plan.keys else None
    bottle, note, ended = context.runner.client("bottle"), context.watchdog.note, docker_flags.ended(plan)
    monitor = Monitor(plan, context.env, bottle, note, context.heart, key_holder, ended, detached=detached)
    context.undo.arm(_FIRST, "monitor", monitor.stop)
    monitor.start()
    return monitor


def _notifying(program: notify.Program, plan: Plan, context: SessionContext) -> Callable[[], None]:
    """Have the user's program notified of the session from now on; return what notifies of its end."""
    notifier = notify.Notifier(program, plan.session)
    context.undo.arm(_NOTIFY, "notify", notifier.join)
    context.undo.arm(_FIRST, "notifier", notifier.stop)
    notifier.follow(plan.name, context.env, context.watchdog.note)
    return notifier.ended


def _report(plan: Plan, monitor: Monitor) -> None:
    monitor.join()
    console.show(log.report(monitor.tally, plan.agent.bottle.path, plan.agent.bottle.limits.requests))


def verify(machine: Machine, agents: Iterable[Agent], *, verbose: bool) -> Iterator[tuple[str, Receipt | BottleError]]:
    """Bring up, prove and remove the bottle of each agent; yield the agent's name and its receipt, or the error."""
    for agent in agents:
        try:
            yield agent.name, _verified(machine, agent, verbose=verbose)
        except BottleError as error:
            yield agent.name, error


def _verified(machine: Machine, agent: Agent, *, verbose: bool) -> Receipt:
    machine = with_key(machine)
    with _context(machine, verbose=verbose) as context:
        machine = context.machine
        endpoint = context.engine.endpoint()

        def planned() -> Plan:
            known = registries.learned(machine, agent, context.engine)
            requested = planning.request(_made_up(machine, agent), known, Run(terminal=False), endpoint=endpoint)
            return planning.resolve(requested, context.engine)

        plan = planned()
        if registries.unbuilt(machine, agent, plan.facts.present):
            build_shared(plan, context)
            plan = planned()
        receipt = _proven(plan, context)[1]
    if context.undo.late:  # a signal ends the whole loop, not only this agent
        raise SystemExit(128 + context.undo.late)
    return receipt


def with_token(machine: Machine) -> Machine:
    """Return the machine with a token, which `login` may have kept; raises TokenError without one that can be used."""
    machine = token_store.resolved(machine)
    if machine.token_problem:
        raise TokenError(machine.token_problem)
    return machine


def _made_up(machine: Machine, agent: Agent) -> Machine:
    """Return the machine with values that are nobody's in the place of the token and of the bottle's credentials."""
    values = MadeUp()
    names = (TOKEN_VARIABLE, *(source for each in agent.bottle.credentials for source in each.sources))
    return replace(machine, environ={**machine.environ, **{name: values[name] for name in names}})


def with_key(machine: Machine) -> Machine:
    """Return the machine with the user's key, made by the first start; without it, if it cannot be made."""
    try:
        return replace(machine, key=proof.make_key(machine.key_file))
    except OSError as error:
        why = f"{error.filename or machine.key_file}: {error.strerror}"
        lost = "`stop` loses a session's work, `fetch` refuses, and no yes is recorded"
        console.say(f"no key for proofs, {why}; without it {lost}")
        return machine


@contextlib.contextmanager
def _context(machine: Machine, *, verbose: bool) -> Iterator[SessionContext]:
    """Yield the context of a session; on exit, undo everything the session created."""
    note = console.say if verbose else _quiet
    shown = Shown.LINE if console.on_terminal() and not verbose else Shown.ALL
    with forward.opened(planning.client_environment(machine), machine.owner) as link:
        if link:
            machine = replace(machine, environ=link.environ(machine.environ))
        env = planning.client_environment(machine)
        watchdog = Watchdog.start(env, machine.owner, (link.held,) if link else ())
        undo = Teardown(note)
        try:
            with undo:
                runner = Runner(undo, env, note, watchdog.note, one_line=shown is Shown.LINE)
                yield SessionContext(env, Engine(env), runner, undo, watchdog, Heart(env), machine, shown, link)
        finally:
            watchdog.close(clean=undo.clean)


def _proven(plan: Plan, context: SessionContext) -> tuple[Plan, Receipt]:
    console.say(f"session {plan.session}")
    plan, results = bring_up(plan, context)
    names = ("selftest", "inspect", "processes", "home", *(("key-holder",) if plan.keys else ()))
    steps_seen = [results[name] for name in names]
    seconds = max(result.seconds for result in steps_seen[:3])
    return plan, selftest.judge(plan, plan.known, Seen(*(result.stdout for result in steps_seen)), seconds)


def _claude(plan: Plan, machine: Machine, options: Options, keeper: Keeper) -> int:
    step = steps.table(plan).claude
    env = planning.client_environment(machine) | plans.environment(machine, plan.agent)
    if options.background:
        return options.background.claude(step.argv, env, keeper.heard)
    if plan.run.terminal:
        return terminal.run(step.argv, env, stops=True, drops_hint=True)
    # --print on a terminal gets no stdin: what the user types meanwhile is for the shell.
    return command.attach(step.argv, env, silent=machine.interactive, heard=keeper.heard)


def _sign_in(plan: Plan, context: SessionContext, tap: Tap | None) -> int:
    """Run `claude setup-token` on the terminal of stdin: stdout may be a file, which would then have the token.

    It does not heed Ctrl-C while it waits for its code.
    """
    argv = steps.table(plan).claude.argv
    return terminal.run(argv, context.env, shown=0, stops=True, ctrl_c_ends=True, tap=tap)


def _quiet(message: str) -> None:
    del message
