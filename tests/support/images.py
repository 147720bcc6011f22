"""The images that the tests start sessions from."""

import fcntl
import subprocess
from pathlib import Path

from claude_bottle.bottle import image as bottle_image
from claude_bottle.host.machine import Machine
from claude_bottle.process.liveness import this_process
from claude_bottle.session.planning import images
from tests.support.sessions import PUPPET
from tests.world import World, api, base, certificates, git


def ensure(world: World) -> tuple[str, str]:
    """Return the tags of the agent's image and the puppet's; they are built by one process, and not by four at once."""
    agent, *_ = images(Machine(world.environ(Path()), Path.home(), interactive=False, owner=this_process()))
    puppet = bottle_image.for_bottle(PUPPET / "Dockerfile", agent)
    with (certificates.cache() / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for one in (agent, puppet):
            if subprocess.run(("docker", "image", "inspect", one.tag), capture_output=True, check=False).returncode:
                subprocess.run(one.argv, input=one.context, capture_output=True, check=True)
    return agent.tag, puppet.tag


def of_the_tests(world: World) -> tuple[str, ...]:
    """Return the tags of all images that the tests and their world need; those that are not there are built."""
    servers = (
        base.built("claude-bottle-world-api", api.DOCKERFILE),
        base.built("claude-bottle-world-git", git.DOCKERFILE),
    )
    return (world.base_image, world.pipelock_image, *servers, *ensure(world))
