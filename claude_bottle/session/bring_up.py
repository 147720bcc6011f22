"""Run the steps before claude; where the engine refuses what the plan assumed, undo and plan again."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from claude_bottle.bottle import plan as planning
from claude_bottle.bottle.plan import Plan
from claude_bottle.cleanup.stack import Teardown
from claude_bottle.cleanup.watchdog import Watchdog
from claude_bottle.documents.escaping import harmless
from claude_bottle.errors import BottleError, DockerError, EngineError, IsolationError, RefusedError
from claude_bottle.host import console
from claude_bottle.host.stage_dir import StageDir
from claude_bottle.process import terminal
from claude_bottle.process.command import Result
from claude_bottle.process.engine import Engine
from claude_bottle.selftest.receipt import Receipt
from claude_bottle.session import steps
from claude_bottle.session.monitor import KEY_HOLDER_ENDED
from claude_bottle.session.runner import Runner, StepError

_CLASH = ("Pool overlaps", "conflicts with network")  # another network has the subnet
_NO_NETFILTER = "restrict inter-container communication"  # a kernel without br_netfilter
_NO_IPV6 = "disable_ipv6"  # a kernel booted with ipv6.disable=1 has no such setting
_FORMAT = "invalid format"  # of ssh-add, for an ed25519 key in OpenSSL's format
_NO_TARGET = ("non running container", "No such container")  # what was to be locked has ended
_KILLED = 128 + 9
_GRACE = 10.0  # seconds between the end of what ran in the key-holder and its own, where they end together
_STAGE = -1  # the stage dir's place in the order of teardown: last


@dataclass(frozen=True)
class Hands:
    """What a session works with."""

    env: Mapping[str, str] = field(repr=False)  # of docker's clients
    engine: Engine
    runner: Runner
    undo: Teardown
    watchdog: Watchdog


def uncork(plan: Plan, hands: Hands, done: frozenset[str]) -> tuple[Plan, dict[str, Result]]:
    """Run every step before those on the terminal that is not in `done`; return the plan that held and the results.

    Raises DockerError, EngineError or IsolationError, which say what to do.
    """
    others = _others(plan, hands.engine)
    while True:
        try:
            return plan, _attempt(plan, hands, done)
        except StepError as error:
            again = _replanned(plan, error, others)
            if again is None:
                raise _explained(plan, error, hands.engine) from None
        left = hands.undo.undo_all()
        if left:
            raise DockerError(f"cannot start again: {'; '.join(left)}")
        plan, done = again, hands.engine.present(steps.skips(steps.table(again)))


def unlock(plan: Plan, hands: Hands) -> None:
    """Have the key-holder ask for each encrypted key's passphrase, on the terminal.

    Raises RefusedError where none fits, DockerError where the key-holder ends meanwhile.
    """
    for step, key in zip((step for step in steps.table(plan) if step.asks), plan.locked_keys, strict=True):
        hands.undo.note(f"{step.name} ...")
        path = harmless(str(key.file.path))
        console.say(f"the key {path}, for {', '.join(host.alias for host in key.hosts)}, is encrypted")
        # Both ways on the terminal of stdin: stderr may lead into a file, where nobody would see the question.
        if code := terminal.run(step.argv, hands.env, shown=0, full_screen=False):
            # What ends the container ends everything in it, by SIGKILL.
            if hands.runner.client("key-holder").ended_within(_GRACE if code == _KILLED else 0):
                raise DockerError(KEY_HOLDER_ENDED)
            raise RefusedError(f"{path} was not unlocked; nothing ran in the bottle")


def stage(plan: Plan, undo: Teardown) -> None:
    """Write the stage dir; DockerError where the disk is full or not writable."""
    try:
        with undo.shielded():
            made = StageDir.make(plan.session)
            undo.arm(_STAGE, "stage dir", made.remove)
        made.write("owner", plan.owner.encode())
        made.write("pipelock.yaml", plan.config)
    except OSError as error:
        raise DockerError(f"cannot write the stage dir {error.filename or ''}: {error.strerror}") from None


def _attempt(plan: Plan, hands: Hands, done: frozenset[str]) -> dict[str, Result]:
    table = steps.table(plan)
    hands.watchdog.watch(plan.session, [step.undo for step in reversed(table) if step.undo])
    stage(plan, hands.undo)
    return hands.runner.run([step for step in table[:-1] if not step.asks], done)


def _others(plan: Plan, engine: Engine) -> Iterator[Plan]:
    """Yield the plan with every other address range that is free on the engine, asked once, when first needed."""
    taken = engine.subnets()
    start = int(plan.session[-8:], 16) + 1
    for addresses in planning.candidates(plan.range, start):
        if not any(addresses.overlaps(other) for other in taken):
            yield replace(plan, addresses=addresses)


def _replanned(plan: Plan, error: StepError, others: Iterator[Plan]) -> Plan | None:
    said = error.result.stderr
    if error.step.name == "network" and _clashes(error.result):
        again = next(others, None)
        if again is None:
            raise DockerError(f"no free /29 is left in {plan.range}: end a session, or set CLAUDE_BOTTLE_SUBNET")
        return replace(again, icc_off=plan.icc_off, ipv6_off=plan.ipv6_off)
    if _NO_NETFILTER in said.lower() and plan.icc_off:
        return replace(plan, icc_off=False)
    if _NO_IPV6 in said and plan.ipv6_off:
        return replace(plan, ipv6_off=False)
    return None


def unproven(plan: Plan, receipt: Receipt, engine: Engine) -> BottleError:
    """Return the error of a bottle whose self-test failed; where the sidecar has ended, that is why."""
    if _has_ended(engine, plan.sidecar):
        return _died(plan, "the sidecar has ended", engine)
    return IsolationError(f"the bottle is not as isolated as promised; nothing ran in it\n{receipt.line()}")


def _explained(plan: Plan, error: StepError, engine: Engine) -> BottleError:
    """Return the error that tells the user why a step failed."""
    step, result = error.step, error.result
    if result.unreachable or result.timed_out:
        return EngineError(f"{step.name}: {result.reason}")
    engine.versions()  # one that is too old is told as that
    if step.shown:
        return DockerError(f"{step.name}: {' '.join(step.argv[:2])} failed, see above")
    # A sidecar that dies at once takes the gate along, which may be the first to fail.
    if step.name == "sidecar-start" or (step.name == "gate" and _has_ended(engine, plan.sidecar)):
        return _died(plan, f"{step.name}: {result.reason}", engine)
    if step.name in ("lock", "gate") and not any(text in result.stderr for text in _NO_TARGET):
        return IsolationError(f"{step.name}: nft failed, does the engine's kernel have nf_tables? {result.reason}")
    if step.name in ("selftest", "inspect"):
        return IsolationError(f"{step.name}: the isolation could not be checked: {result.reason}")
    hint = "; set CLAUDE_BOTTLE_SUBNET to another range" if step.name == "egress" and _clashes(result) else ""
    paths = [harmless(str(key.file.path)) for key in plan.keys if key.step == step.name]
    if paths and _FORMAT in result.stderr:
        hint = f"; `ssh-keygen -p -f {shlex.quote(paths[0])}`, of OpenSSH 9.6 or newer, writes it as OpenSSH's own"
    return DockerError(f"{step.name}:{''.join(f' {path} cannot be used:' for path in paths)} {result.reason}{hint}")


def _died(plan: Plan, what: str, engine: Engine) -> DockerError:
    logs = engine.ask("logs", "--tail", "5", plan.sidecar).stderr.strip()
    return DockerError(what + (f"; its last words:\n{logs}" if logs else ""))


def _clashes(result: Result) -> bool:
    return any(text in result.stderr for text in _CLASH)


def _has_ended(engine: Engine, container: str) -> bool:
    return engine.ask("inspect", "--format", "{{.State.Running}}", container).stdout.strip() == b"false"
