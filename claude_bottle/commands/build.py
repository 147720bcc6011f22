"""Build the images of bottles."""

from collections.abc import Sequence

from claude_bottle.cleanup.stack import Teardown
from claude_bottle.errors import DockerError
from claude_bottle.host.machine import Machine
from claude_bottle.manifest.agent import Agent
from claude_bottle.process.engine import Engine
from claude_bottle.session import planning, registries
from claude_bottle.session.runner import Runner, StepError
from claude_bottle.session.steps import Kind, Step


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
