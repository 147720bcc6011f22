"""Plan a session: a request from what this machine knows, then a plan from the request and the engine's facts."""

import os
from collections.abc import Iterable
from dataclasses import replace

from claude_bottle.bottle import image, passed_on, plan
from claude_bottle.bottle.image import Image
from claude_bottle.bottle.plan import Plan, Request, Run
from claude_bottle.documents import files
from claude_bottle.documents.escaping import is_utf8
from claude_bottle.errors import ManifestError, UsageError
from claude_bottle.host import addresses
from claude_bottle.host.addresses import Addresses
from claude_bottle.host.machine import TOKEN_VARIABLE, Machine
from claude_bottle.manifest import git_identity
from claude_bottle.manifest.agent import Agent
from claude_bottle.manifest.bottle import Bottle, version_problem
from claude_bottle.manifest.git_identity import Identity
from claude_bottle.process.endpoint import Endpoint
from claude_bottle.process.engine import EGRESS, Egress, Engine, EngineFacts
from claude_bottle.repository.clone import Repository

_NOT_ASKED = "the engine's host was not asked for its addresses"


def client_environment(machine: Machine) -> dict[str, str]:
    """Return the environment of every docker client except claude's: the user's environment without the token.

    Without content trust as well: images built here are not signed, and pulled ones are pinned by digest.
    """
    without = (TOKEN_VARIABLE, "DOCKER_CONTENT_TRUST")
    return {name: value for name, value in machine.environ.items() if name not in without}


def images(
    machine: Machine, bottle: Bottle | None = None, *, pull: bool = False, no_cache: bool = False
) -> tuple[Image, ...]:
    """Return the images of a bottle, each built on the one before: the base's, the presets', that of its Dockerfile.

    Without a bottle: the base's alone. The user's own setting of Claude Code's version overrides the manifest's. Raises
    ManifestError if that is no version, or if the file in CLAUDE_BOTTLE_BUILD_CA cannot be read.
    """
    chosen = machine.setting("CLAUDE_VERSION")
    if chosen and (problem := version_problem(chosen)):
        raise ManifestError(f"CLAUDE_BOTTLE_CLAUDE_VERSION: {problem}")
    file = machine.setting("BUILD_CA")
    try:
        ca = files.read(machine.path(file)) if file else b""
    except OSError as error:
        raise ManifestError(f"CLAUDE_BOTTLE_BUILD_CA: {file}: {error.strerror}") from None
    version = chosen or (bottle.claude if bottle else None)
    base_image = machine.setting("BASE_IMAGE")
    chain = [image.base(base_image=base_image, ca=ca, claude=version, pull=pull, no_cache=no_cache)]
    for preset in bottle.presets if bottle else ():
        chain.append(image.for_preset(preset, chain[-1], no_cache=no_cache))
    if bottle and bottle.dockerfile:
        chain.append(image.for_bottle(bottle.dockerfile, chain[-1], no_cache=no_cache))
    return tuple(chain)


def request(
    machine: Machine, agent: Agent, run: Run, *, endpoint: Endpoint, repository: Repository | None = None
) -> Request:
    """Return the inputs of a plan that need no engine.

    `endpoint` is the way to the engine; the addresses of this machine are its host's if it leads here. Raises
    ManifestError or, for words of the command line, UsageError.
    """
    check_values(machine, (TOKEN_VARIABLE, *passed_on.NAMES))
    _check_words(run)
    identity = (agent.bottle.git or Identity()).completed(repository.author if repository else Identity())
    return Request(
        machine=machine,
        agent=agent,
        run=run,
        images=images(machine, agent.bottle),
        token=os.urandom(4).hex(),
        digest_key=os.urandom(20),
        identity=identity if run.login else git_identity.completed_by_host(identity, client_environment(machine)),
        repository=repository,
        remote=endpoint.can_be_cut,
        known=addresses.read() if endpoint.is_here else Addresses(why=_NOT_ASKED),
        elsewhere=not endpoint.is_here,
    )


def check_values(machine: Machine, names: Iterable[str]) -> None:
    """Raise ManifestError if a variable's value is not UTF-8: docker would pass on another in silence."""
    wrong = [name for name in names if not is_utf8(machine.environ.get(name, ""))]
    if wrong:
        raise ManifestError("\n".join(f"{name}: not UTF-8 text, and docker passes on nothing else" for name in wrong))


def _check_words(run: Run) -> None:
    """Raise UsageError if a word of the command line that is for claude is not UTF-8."""
    words = {"--print": run.question or "", **{f"CLAUDE_ARGUMENTS {n}": a for n, a in enumerate(run.arguments, 1)}}
    for name, word in words.items():
        if not is_utf8(word):
            raise UsageError(f"{name}: not UTF-8 text, and docker passes on nothing else")


def offline_plan(requested: Request) -> Plan:
    """Return the plan of a session without querying the engine, for a dry run; raises ManifestError."""
    return plan.make(requested, EngineFacts(Egress(requested.chosen_network or EGRESS)))


def resolve(requested: Request, engine: Engine) -> Plan:
    """Query the engine and return the plan of a session on it; raises ManifestError or EngineError."""
    images = (*(each.tag for each in requested.images), requested.sidecar_image)
    return plan.make(requested, engine.facts(images, requested.chosen_network))


def refreshed(made: Plan, engine: Engine) -> Plan:
    """Return the plan with the images and networks that exist now; raises EngineError if the engine is unreachable."""
    images = (*(each.tag for each in made.images), made.sidecar_image)
    now = engine.facts(images, None if made.egress.name == EGRESS else made.egress.name)
    return made.on(replace(made.facts, egress=now.egress, present=now.present))
