"""The story of a session: plan, ask, build, uncork, fill, lock, run, cork."""

import secrets
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from claude_bottle import docker, image, preflight, steps, teardown, tty
from claude_bottle import plan as planning
from claude_bottle.engine import Engine
from claude_bottle.errors import (
    BottleError,
    DockerError,
    EngineError,
    IsolationError,
    ManifestError,
    RefusedError,
    TokenError,
)
from claude_bottle.host import TOKEN_VARIABLE, Host
from claude_bottle.image import Image
from claude_bottle.manifest import Agent
from claude_bottle.plan import Egress, Plan, Run
from claude_bottle.runner import Runner, StepError
from claude_bottle.staging import StageDir
from claude_bottle.steps import Step
from claude_bottle.teardown import Teardown

_NO_TOKEN = (
    f"{TOKEN_VARIABLE} is not set: make a token with `claude setup-token`, then `export {TOKEN_VARIABLE}=<the token>`"
)
_NOBODY = "nobody can be asked, stdin is not a terminal: give --yes to start without a question"
_CLASH = ("Pool overlaps", "conflicts with network")  # another network has the subnet
_NO_IPV6 = "disable_ipv6"  # a kernel booted with ipv6.disable=1 has no such setting
_STAGE = -1  # the stage dir's place in the order of teardown: last


@dataclass(frozen=True)
class Options:
    """What the command line says of a start, beside the agent."""

    run: Run
    yes: bool = False
    verbose: bool = False


def dry_run(host: Host, agent: Agent, run: Run) -> None:
    """Print the preflight and every command of a session, without calling docker."""
    plan = _plan(host, agent, run, Egress(host.setting("EGRESS_NETWORK") or planning.EGRESS))
    with Teardown() as undo:
        _stage(plan, undo)
        _show(preflight.summary(plan, "(built if absent)"))
        print(preflight.commands(steps.table(plan)), end="")


def start(host: Host, agent: Agent, options: Options) -> int:
    """Run a session and return claude's exit code; whatever goes wrong is an error of `claude_bottle.errors`."""
    if not host.has_token:
        raise TokenError(_NO_TOKEN)
    if not (options.yes or host.interactive):
        raise RefusedError(_NOBODY)
    env = _client_environment(host)
    with Teardown() as undo:
        engine = Engine(env)
        plan = _plan(host, agent, options.run, engine.egress(host.setting("EGRESS_NETWORK")))
        done = engine.present(steps.table(plan))
        _show(preflight.summary(plan, _building(plan, done)))
        if not options.yes:
            preflight.ask("Start this session?")
        teardown.say(f"session {plan.session}")
        plan = _uncork(plan, engine, Runner(undo, env, _noter(options)), undo, done)
        claude, secret_env = steps.table(plan)[-1], env | planning.environment(host, agent)
        if plan.run.terminal:
            return tty.run(claude.argv, secret_env)
        # What is typed meanwhile is for the shell: --print on a terminal has no stdin.
        return docker.attach(claude.argv, secret_env, silent=host.interactive)


def _client_environment(host: Host) -> dict[str, str]:
    """Return the environment of every docker client but claude's: the user's, without the token."""
    return {name: value for name, value in host.environ.items() if name != TOKEN_VARIABLE}


def _plan(host: Host, agent: Agent, run: Run, egress: Egress) -> Plan:
    return planning.make(
        host,
        agent,
        run,
        images=images(host, agent.bottle.dockerfile),
        egress=egress,
        token=secrets.token_hex(4),
    )


def images(host: Host, dockerfile: Path | None, *, pull: bool = False, no_cache: bool = False) -> tuple[Image, Image]:
    """Return the base image and the bottle's own, which is the base where the bottle has no Dockerfile."""
    file = host.setting("BUILD_CA")
    try:
        ca = Path(file).expanduser().read_bytes() if file else b""
    except OSError as error:
        raise ManifestError(f"CLAUDE_BOTTLE_BUILD_CA: {file}: {error.strerror}") from None
    base = image.base(base_image=host.setting("BASE_IMAGE"), ca=ca, pull=pull, no_cache=no_cache)
    return base, image.for_bottle(dockerfile, base, no_cache=no_cache) if dockerfile else base


def _building(plan: Plan, done: frozenset[str]) -> str:
    own = "image" if plan.image == plan.base else "bottle-image"
    return "" if own in done else "(will be built)"


def _uncork(plan: Plan, engine: Engine, runner: Runner, undo: Teardown, done: frozenset[str]) -> Plan:
    """Run every step before claude; where the engine refuses what the plan assumed, undo and plan again."""
    others = _others(plan, engine)
    while True:
        try:
            _stage(plan, undo)
            runner.run(steps.table(plan)[:-1], done)
        except StepError as error:
            again = _replanned(plan, error, others)
            if again is None:
                raise _explained(plan, error, engine) from None
            left = undo.undo_all()
            if left:
                raise DockerError(f"cannot start again: {'; '.join(left)}") from None
            plan = again
        else:
            return plan


def _others(plan: Plan, engine: Engine) -> Iterator[Plan]:
    """Yield the plan with every other address range that is free on the engine, asked once, when first needed."""
    taken = engine.subnets()
    candidates = planning.candidates(plan.range, plan.egress, int(plan.session[-8:], 16) + 1)
    for addresses in candidates:
        if not any(addresses.overlaps(other) for other in taken):
            yield replace(plan, addresses=addresses)


def _replanned(plan: Plan, error: StepError, others: Iterator[Plan]) -> Plan | None:
    said = error.result.stderr
    if error.step.name == "network" and any(text in said for text in _CLASH):
        again = next(others, None)
        if again is None:
            raise DockerError(
                f"no free /29 is left in {plan.range}: end a session, or set CLAUDE_BOTTLE_SUBNET"
            ) from None
        return replace(again, ipv6_off=plan.ipv6_off)
    if _NO_IPV6 in said and plan.ipv6_off:
        return replace(plan, ipv6_off=False)
    return None


def _explained(plan: Plan, error: StepError, engine: Engine) -> BottleError:
    """Return the error that tells the user why a step failed."""
    step, result = error.step, error.result
    if result.unreachable:
        return EngineError(f"{step.name}: {result.reason}")
    if step.shown:
        return DockerError(f"{step.name}: {' '.join(step.argv[:2])} failed, see above")
    if step.name in ("lock", "gate"):
        return IsolationError(f"{step.name}: nft failed, does the engine's kernel have nf_tables? {result.reason}")
    if step.name in ("sidecar-start", "sidecar-ready"):
        logs = engine.ask("logs", "--tail", "5", f"{plan.name}-sidecar").stderr.strip()
        return DockerError(f"{step.name}: {result.reason}" + (f"; its last words:\n{logs}" if logs else ""))
    return DockerError(f"{step.name}: {result.reason}")


def _stage(plan: Plan, undo: Teardown) -> None:
    try:
        with undo.shielded():
            stage = StageDir.make(plan.session, plan.owner)
            undo.arm(_STAGE, "stage dir", stage.remove)
        stage.write("pipelock.yaml", plan.config)
    except OSError as error:
        raise DockerError(f"cannot write the stage dir {error.filename or ''}: {error.strerror}") from None


def _noter(options: Options) -> Callable[[str], None]:
    return teardown.say if options.verbose else _quiet


def _quiet(message: str) -> None:
    del message


def _show(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def build(host: Host, agents: tuple[Agent, ...], *, pull: bool, no_cache: bool) -> None:
    """Build the base image and every bottle's own, whether they are there or not; DockerError where a build fails."""
    pairs = [images(host, agent.bottle.dockerfile, pull=pull, no_cache=no_cache) for agent in agents]
    every = {one.tag: one for base, own in pairs for one in (base, own)}
    with Teardown() as undo:
        runner = Runner(undo, _client_environment(host), _quiet)
        for one in every.values():
            try:
                runner.run((Step("image", one.argv, stdin=one.context, shown=True),))
            except StepError as error:
                raise DockerError(f"{one.tag}: docker build failed, see above") from error
