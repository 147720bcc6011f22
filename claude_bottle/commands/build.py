"""Build the images of bottles, and send them to another engine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from claude_bottle.cleanup.stack import Teardown
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.egress import allowlist
from claude_bottle.errors import DockerError, UsageError
from claude_bottle.host.machine import Machine
from claude_bottle.manifest.agent import Agent
from claude_bottle.process import command, stream
from claude_bottle.process.engine import Engine
from claude_bottle.process.stream import Feed
from claude_bottle.session import engines, planning, registries
from claude_bottle.session.runner import Runner, StepError
from claude_bottle.session.steps import Kind, Step

_LONGEST = 7200.0  # seconds to send images


def build(machine: Machine, agents: Sequence[Agent], *, pull: bool, no_cache: bool) -> None:
    """Build the base image and every bottle's own, whether they exist or not, and read the hosts of their registries.

    Raises EngineError, before any build, if docker cannot be used, and DockerError if a build fails or an image has no
    list of registries that can be used.
    """
    bottles = [agent.bottle for agent in agents]
    chains = [planning.images(machine, bottle, pull=pull, no_cache=no_cache) for bottle in bottles]
    every = {one.tag: one for chain in chains for one in chain}
    env = planning.client_environment(machine)
    engine = Engine(env)
    with Teardown() as undo:
        engine.versions()
        runner = Runner(undo, env, lambda _: None)
        for one in every.values():
            try:
                runner.run((Step("image", one.argv, Kind.PROGRESS, stdin=one.context),))
            except StepError as error:
                engine.checked(error.result)
                raise DockerError(f"{one.tag}: docker build failed, see above") from error
        for agent in agents:
            registries.learned(machine, agent, engine)  # for a dry run and `check`, which call no docker


def build_presets(machine: Machine, agents: Sequence[Agent]) -> None:
    """Build the images that the hosts of registries are read from, which no Dockerfile of the user's is part of."""
    shared = [replace(agent, bottle=replace(agent.bottle, dockerfile=None)) for agent in agents]
    build(machine, shared, pull=False, no_cache=False)


def target(machine: Machine, name: str) -> Machine:
    """Return the machine with the engine to which images are to be sent; raises UsageError if it is not one."""
    if name == engines.ANY:
        raise UsageError("--to takes the name of one engine")
    return engines.chosen(machine, name)


def send(machine: Machine, agents: Sequence[Agent], place: Machine, notify: Callable[[str], None]) -> None:
    """Send the images of bottles, and the sidecar's if it is here, to the engine of `place`, as far as it lacks them.

    One that is named by its digest is not sent. `notify` is called with what was done. Raises EngineError, or
    DockerError if an image cannot be sent.
    """
    chains = [planning.images(machine, agent.bottle) for agent in agents]
    tags = {one.tag for chain in chains for one in chain} | {machine.setting("PIPELOCK_IMAGE") or allowlist.image()}
    env, its = planning.client_environment(machine), planning.client_environment(place)
    here, there = (Engine(each).facts(sorted(tags)).present for each in (env, its))
    shown = escape_control_chars(place.engine)
    unnamed = sorted(tag for tag in tags - there if "@" in tag)  # `docker save` loses such a name
    missing = sorted(tags & here - there - set(unnamed))
    if missing:
        _sent(missing, env, its, shown)
    for tag in missing:
        notify(f"sent {tag} to {shown}")
    for tag in unnamed:
        notify(f"{tag} is named by its digest, and not sent: {shown} pulls it at the first start")
    if not missing and not unnamed:
        notify(f"{shown} has all images")


def _sent(missing: Sequence[str], env: Mapping[str, str], its: Mapping[str, str], shown: str) -> None:
    with Teardown(stoppable=False):
        client = command.start(("docker", "load", "--quiet"), its)
        feed, what = Feed(("docker", "save", *missing), b""), f"sending images to {shown}"
        result = stream.piped(client, b"", feed, env, what=what, seconds=_LONGEST)
    if not result.ok:
        raise DockerError(f"the images cannot be sent to {shown}: {result.reason}")
