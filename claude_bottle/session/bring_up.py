"""Run the steps before claude; if the engine refutes an assumption of the plan, undo the steps and plan again."""

import contextlib
import functools
import math
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from claude_bottle.bottle import agent, docker_flags
from claude_bottle.bottle.plan import Plan
from claude_bottle.cleanup.stack import Teardown
from claude_bottle.cleanup.watchdog import Watchdog
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.errors import BottleError, DockerError, EngineError, IsolationError, RefusedError
from claude_bottle.host import addresses, console
from claude_bottle.host.machine import Machine
from claude_bottle.host.stage_dir import StageDir
from claude_bottle.process import stream, terminal, wording
from claude_bottle.process.command import Result
from claude_bottle.process.engine import Engine, EngineFacts, unusable
from claude_bottle.process.forward import Forward
from claude_bottle.repository.fetch import BUDGET, Reached
from claude_bottle.selftest.receipt import Receipt
from claude_bottle.session import ahead, planning, steps
from claude_bottle.session.building import Shown
from claude_bottle.session.monitor import KEY_HOLDER_ENDED, Heart
from claude_bottle.session.runner import Runner, StepError
from claude_bottle.session.steps import Kind, Step

_KILLED = 128 + 9
_NOTICED = 60.0  # seconds from a cut until a bottle has noticed it: 52 of silence, and 5 to see that nothing runs
_UNSEEN = 40.0  # seconds from a cut until it is noticed here, at most
_LOOK, _PAUSE = 10.0, 1.0  # seconds for one look for that, and between two
_GRACE = 10.0  # seconds from the end of a process in the key-holder to the end of the key-holder that caused it
# Places in the order of teardown: before everything else, before every step's undo, and last.
_LINK, _HEART, _STAGE = 1 << 19, 1 << 15, -1


@dataclass(frozen=True)
class SessionContext:
    """The tools of one session: its engine, runner, teardown, watchdog and heart."""

    env: Mapping[str, str] = field(repr=False)  # of the docker clients
    engine: Engine
    runner: Runner
    undo: Teardown
    watchdog: Watchdog
    heart: Heart
    machine: Machine  # whose environment leads to the engine as `env` does
    shown: Shown = Shown.ALL  # of builds
    link: Forward | None = None  # the way to the engine, if it is one of the session's own

    def restore_link(self, plan: Plan) -> str | None:
        """Open the way to the engine again if it was cut, with patience if there is work; return why that fails."""
        if not self.link:
            return None
        if not plan.keeps_work:
            return self.link.restore()
        return self.link.restore(min(BUDGET, self._left), functools.partial(self._await_pause, plan))

    def reached(self, plan: Plan) -> Reached:
        """Do the same for a hand-back; return how the bottle is reached then."""
        self.restore_link(plan)
        return Reached(self.link.cuts, self._left) if self.link else Reached()

    @property
    def _left(self) -> float:
        """Return the seconds for which a bottle that keeps its work is surely there, after the first cut."""
        since = self.link.since if self.link else None
        return math.inf if since is None else max(0.0, since + docker_flags.PAUSE - _UNSEEN - time.monotonic())

    def _await_pause(self, plan: Plan, cut: float) -> None:
        """Wait until the bottle has noticed a cut, seen at the time `cut`: what runs in it before is ended with it.

        Docker's clients of before the cut are dead, so their lifelines are silent. Not every engine's ps knows the
        question: then all of the time passes.
        """
        asked, said = agent.processes(plan)[1:], False
        while time.monotonic() < cut + _NOTICED and not stream.heed(console.say):
            with contextlib.suppress(EngineError):  # it was cut again
                result = self.engine.ask(*asked, timeout=_LOOK)
                names = {line.split()[-1] for line in result.stdout.splitlines() if line.strip()}
                gone = result.absent or wording.says(wording.CONTAINER_ENDED, result.stderr)
                if docker_flags.PAUSED.encode() in names or gone:
                    return
            if not said:
                console.say("the link is there again: waiting for the bottle to notice the cut, for at most a minute")
                said = True
            time.sleep(_PAUSE)


def bring_up(plan: Plan, context: SessionContext) -> tuple[Plan, dict[str, Result]]:
    """Run the set-up of a session; return the plan that succeeded and each step's result, by the step's name.

    Raises DockerError, EngineError or IsolationError with a hint at the remedy.
    """
    while True:
        try:
            return _attempt(plan, context)
        except StepError as error:
            facts = _learned(plan, error, context.engine)
            if facts is None:
                raise _explained(plan, error, context.engine) from None
            plan = plan.on(facts)
        if left := context.undo.undo_all():
            raise DockerError(f"cannot retry the start: {'; '.join(left)}")
        plan = planning.refreshed(plan, context.engine)


def build_shared(plan: Plan, context: SessionContext) -> None:
    """Build the images that a bottle's own is built on; raises DockerError if that fails, EngineError."""
    try:
        context.runner.run([step for step, _ in _shared(plan)])
    except StepError as error:
        raise _explained(plan, error, context.engine) from None


@contextlib.contextmanager
def building_shared(plan: Plan, context: SessionContext) -> Iterator[None]:
    """Build the same while the block runs, and wait for the end of that; if the block raises, nothing of it is left.

    Raises DockerError if that fails, EngineError.
    """
    missing = [(step, tag) for step, tag in _shared(plan) if not step.present]
    try:
        with ahead.building(missing, context.env, context.undo, context.watchdog, context.shown):
            yield
    except StepError as error:
        raise _explained(plan, error, context.engine) from None


def _shared(plan: Plan) -> Iterator[tuple[Step, str]]:
    """Yield the step of each image that does not depend on a Dockerfile of the user's, and the image's tag."""
    names = ("image", *(f"{preset}-image" for preset in plan.agent.bottle.presets))
    found = {step.name: step for step in steps.table(plan).setup}
    yield from ((found[name], image.tag) for name, image in zip(names, plan.images, strict=False))


def unlock(plan: Plan, context: SessionContext) -> None:
    """Prompt for the passphrase of each encrypted key, on the terminal, by ssh-add in the key-holder.

    Raises RefusedError if a key is not unlocked, DockerError if the key-holder exits meanwhile.
    """
    for key, step in steps.table(plan).unlocks:
        context.undo.note(f"{step.name} ...")
        path = escape_control_chars(str(key.file.path))
        console.say(f"the key {path}, for {', '.join(host.alias for host in key.hosts)}, is encrypted")
        # Prompt on the terminal of stdin: stderr may be redirected to a file, which would hide the prompt.
        if code := terminal.run(step.argv, context.env, shown=0, full_screen=False):
            # The end of a container kills its processes with SIGKILL.
            if context.runner.client("key-holder").ended_within(_GRACE if code == _KILLED else 0):
                raise context.engine.explained(DockerError(KEY_HOLDER_ENDED))
            raise RefusedError(f"{path} was not unlocked; nothing ran in the bottle")


def stage(plan: Plan, undo: Teardown) -> None:
    """Write the stage dir and arm its removal; raises DockerError if the disk is full or not writable."""
    try:
        with undo.shielded():
            made = StageDir.make(plan.session)
            undo.arm(_STAGE, "stage dir", made.remove)
        made.write("owner", str(plan.owner).encode())
        made.write("pipelock.yaml", plan.config)
    except OSError as error:
        raise DockerError(f"cannot write the stage dir {error.filename or ''}: {error.strerror}") from None


def _attempt(plan: Plan, context: SessionContext) -> tuple[Plan, dict[str, Result]]:
    table = steps.table(plan)
    context.watchdog.watch(plan.session, [step.undo for step in table.undos])
    stage(plan, context.undo)
    context.undo.arm(_HEART, "heartbeat", context.heart.stop)
    if context.link:
        context.undo.arm(_LINK, "link", functools.partial(context.restore_link, plan))
    if table.asking:
        told = context.runner.run(table.asking)[steps.ADDRESSES]
        built = replace(plan.facts, present=plan.facts.present | {plan.base.tag})
        plan = replace(plan, known=addresses.parse(told.stdout.decode(errors="replace")), facts=built)
        if plan.asks_addresses:
            raise DockerError(f"{steps.ADDRESSES}: the engine's host lists none")
        table = steps.table(plan)
    return plan, context.runner.run(table.setup, context.heart.beat if plan.remote else None)


def _learned(plan: Plan, error: StepError, engine: Engine) -> EngineFacts | None:
    """Return the engine's facts as corrected by a step's failure; None if a new plan would fail as well."""
    facts, stderr = plan.facts, error.result.stderr
    if error.step.name == "network" and _clashes(error.result):
        # The refused subnet as well: it may overlap with a route of the host, which is in no list of networks.
        return replace(facts, taken=(*facts.taken, *engine.subnets(), plan.addresses))
    if wording.says(wording.NO_BR_NETFILTER, stderr) and facts.icc_off:
        return replace(facts, icc_off=False)
    if wording.says(wording.NO_IPV6, stderr) and facts.ipv6_off:
        return replace(facts, ipv6_off=False)
    return None


def unproven(plan: Plan, receipt: Receipt, engine: Engine) -> BottleError:
    """Return the error for a failed self-test; if the sidecar has exited, that is the cause to report."""
    if _has_ended(engine, plan.sidecar):
        return _died(plan, "the sidecar has exited", engine)
    return IsolationError(f"the bottle is not as isolated as promised; nothing ran in it\n{receipt.line()}")


def _explained(plan: Plan, error: StepError, engine: Engine) -> BottleError:
    """Return the user-visible error for a failed step."""
    step, result = error.step, error.result
    if result.timed_out:
        return unusable(f"{step.name}: {result.reason}")
    engine.versions()  # raises if the engine is gone, or too old
    if step.kind is Kind.PROGRESS:
        return DockerError(f"{step.name}: {' '.join(step.argv[:2])} failed, see above")
    # The gate joins the sidecar's network namespace, so a sidecar that exits at once may make the gate fail first.
    if step.name == "sidecar-start" or (step.name == "gate" and _has_ended(engine, plan.sidecar)):
        return _died(plan, f"{step.name}: {result.reason}", engine)
    if step.name in ("lock", "gate") and not wording.says(wording.NO_TARGET, result.stderr):
        return IsolationError(f"{step.name}: failed; does the engine's kernel have nf_tables? {result.reason}")
    if step.name in ("selftest", "inspect"):
        return IsolationError(f"{step.name}: the isolation could not be checked: {result.reason}")
    hint = "; set CLAUDE_BOTTLE_SUBNET to another range" if step.name == "egress" and _clashes(result) else ""
    paths = [escape_control_chars(str(key.file.path)) for key in plan.keys if key.step == step.name]
    if paths and wording.says(wording.KEY_FORMAT, result.stderr):
        hint = f"; `ssh-keygen -p -f {shlex.quote(paths[0])}`, of OpenSSH 9.6 or newer, converts it"
    return DockerError(f"{step.name}:{''.join(f' {path} cannot be used:' for path in paths)} {result.reason}{hint}")


def _died(plan: Plan, what: str, engine: Engine) -> DockerError:
    logs = engine.ask("logs", "--tail", "5", plan.sidecar).stderr.strip()
    return DockerError(what + (f"; the end of its log:\n{logs}" if logs else ""))


def _clashes(result: Result) -> bool:
    return wording.says(wording.SUBNET_TAKEN, result.stderr)


def _has_ended(engine: Engine, container: str) -> bool:
    return engine.ask("inspect", "--format", "{{.State.Running}}", container).stdout.strip() == b"false"
