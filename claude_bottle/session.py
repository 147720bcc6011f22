"""The story of a session: plan, ask, build, uncork, fill, lock, run, cork."""

import contextlib
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from claude_bottle import docker, image, preflight, steps, teardown, tty
from claude_bottle import plan as planning
from claude_bottle.engine import Engine
from claude_bottle.errors import DockerError, ManifestError, RefusedError, TokenError
from claude_bottle.host import TOKEN_VARIABLE, Host
from claude_bottle.image import Image
from claude_bottle.manifest import Agent
from claude_bottle.plan import Egress, Plan, Run
from claude_bottle.runner import Runner, StepError
from claude_bottle.steps import Step
from claude_bottle.teardown import Teardown
from claude_bottle.uncork import Hands, stage, uncork
from claude_bottle.watchdog import Watchdog

_NO_TOKEN = (
    f"{TOKEN_VARIABLE} is not set: make a token with `claude setup-token`, then `export {TOKEN_VARIABLE}=<the token>`"
)
_NOBODY = "nobody can be asked, stdin is not a terminal: give --yes to start without a question"


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
        stage(plan, undo)
        _show(preflight.summary(plan, "(built if absent)"))
        print(preflight.commands(steps.table(plan)), end="")


def start(host: Host, agent: Agent, options: Options) -> int:
    """Run a session and return claude's exit code; whatever goes wrong is an error of `claude_bottle.errors`."""
    if not host.has_token:
        raise TokenError(_NO_TOKEN)
    if not (options.yes or host.interactive):
        raise RefusedError(_NOBODY)
    env = _client_environment(host)
    with contextlib.ExitStack() as stack:
        watchdog = Watchdog(env, host.owner)
        undo = Teardown()
        stack.callback(lambda: watchdog.close(clean=undo.clean))
        stack.enter_context(undo)
        engine = Engine(env)
        plan = _plan(host, agent, options.run, engine.egress(host.setting("EGRESS_NETWORK")))
        done = engine.present(steps.table(plan))
        _show(preflight.summary(plan, _building(plan, done)))
        if not options.yes:
            preflight.ask("Start this session?")
        teardown.say(f"session {plan.session}")
        runner = Runner(undo, env, _noter(options), watchdog.note)
        plan, _ = uncork(plan, Hands(engine, runner, undo, watchdog), done)
        watchdog.tell("running")
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
