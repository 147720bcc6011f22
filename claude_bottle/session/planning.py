"""What a session will be: its plan, with the images it takes and what only the engine knows."""

import os
from dataclasses import replace
from pathlib import Path

from claude_bottle.bottle import image
from claude_bottle.bottle import plan as planning
from claude_bottle.bottle.image import Image
from claude_bottle.bottle.plan import Plan, Run
from claude_bottle.errors import ManifestError
from claude_bottle.host import addresses
from claude_bottle.host.machine import TOKEN_VARIABLE, Machine
from claude_bottle.manifest import git_identity
from claude_bottle.manifest.agent import Agent
from claude_bottle.manifest.git_identity import Identity
from claude_bottle.process.engine import EGRESS, Egress, Engine
from claude_bottle.repository.clone import Repository
from claude_bottle.session import steps


def client_environment(machine: Machine) -> dict[str, str]:
    """Return the environment of every docker client but claude's: the user's, without the token."""
    return {name: value for name, value in machine.environ.items() if name != TOKEN_VARIABLE}


def images(
    machine: Machine, dockerfile: Path | None, *, pull: bool = False, no_cache: bool = False
) -> tuple[Image, Image]:
    """Return the base image and the bottle's own, which is the base where the bottle has no Dockerfile."""
    file = machine.setting("BUILD_CA")
    try:
        ca = machine.path(file).read_bytes() if file else b""
    except OSError as error:
        raise ManifestError(f"CLAUDE_BOTTLE_BUILD_CA: {file}: {error.strerror}") from None
    base = image.base(base_image=machine.setting("BASE_IMAGE"), ca=ca, pull=pull, no_cache=no_cache)
    return base, image.for_bottle(dockerfile, base, no_cache=no_cache) if dockerfile else base


def draft(
    machine: Machine, agent: Agent, run: Run, egress: Egress, *, local: bool, taken: Repository | None = None
) -> Plan:
    """Plan with what can be known of this machine alone; raises ManifestError."""
    bottle = agent.bottle
    who = (bottle.git or Identity()).completed(taken.author if taken else Identity())
    plan = planning.make(
        machine,
        agent,
        run,
        images=images(machine, bottle.dockerfile),
        egress=egress,
        token=os.urandom(4).hex(),
        identity=git_identity.settled(who, client_environment(machine)),
    )
    return replace(plan, remote=not local, known=addresses.read(local), repository=taken)


def take(
    machine: Machine, agent: Agent, run: Run, engine: Engine, taken: Repository | None = None
) -> tuple[Plan, frozenset[str]]:
    """Plan with what only the engine knows; return which steps' products are there as well."""
    chosen = machine.setting("EGRESS_NETWORK")
    plan = draft(machine, agent, run, Egress(chosen or EGRESS), local=engine.is_local(), taken=taken)
    egress, done = engine.survey(steps.skips(steps.table(plan)), chosen)
    return replace(plan, egress=egress), done
