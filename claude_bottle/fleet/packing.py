"""Pack a start: its manifests with all the files that they name, and its repository's history; no secret."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from claude_bottle.bottle import home
from claude_bottle.documents import files, yaml_document
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.errors import ManifestError, RepositoryError
from claude_bottle.fleet import payload
from claude_bottle.fleet.payload import AGENTS, BUNDLE, Task
from claude_bottle.host.machine import TOKEN_VARIABLE, Machine
from claude_bottle.host.stage_dir import StageDir
from claude_bottle.manifest import git_identity, ssh_hosts
from claude_bottle.manifest.agent import Agent
from claude_bottle.manifest.git_identity import Identity
from claude_bottle.manifest.ssh_hosts import Key
from claude_bottle.manifest.validation import inside
from claude_bottle.repository import git, source
from claude_bottle.repository.clone import PACK, Repository, Wanted, header
from claude_bottle.repository.git import Git
from claude_bottle.session import planning, token_store
from claude_bottle.session.planning import client_environment

SETTINGS = ("BASE_IMAGE", "CLAUDE_VERSION", "PIPELOCK_IMAGE")  # those that choose the images
BUILD_CA = "BUILD_CA"
KEYS = "keys"  # below AGENTS: the launcher puts the private keys there
START = "start"  # the branch of the payload's repository
# Sources of variables by which programs of the other machine would be changed.
_ITS_OWN = re.compile(
    r"PATH|HOME|TMPDIR|SSH_AUTH_SOCK|DOCKER_(HOST|CONTEXT|CONFIG|CERT_PATH|TLS.*|API_VERSION)"
    r"|GIT_(CONFIG.*|EXEC_PATH|CEILING_DIRECTORIES)|(XDG|LD|CLAUDE_BOTTLE)_.*|PYTHON.*"
)
_ODD = re.compile("[\x7f-\x9f\u2028\u2029\ufeff]")  # what YAML reads as something else, and JSON as it is
_FILES, _CONTEXT = "files", "context"  # below AGENTS
_MOST = 8 << 30  # bytes of a repository's history


@dataclass(frozen=True)
class Options:
    """The options of a task, besides its agent."""

    question: str = field(repr=False)
    wanted: Wanted | None = None
    time: int | None = None  # seconds


def pack(machine: Machine, agent: Agent, options: Options, into: IO[bytes]) -> Repository | None:
    """Write the payload of a start; return its repository as it was then.

    Raises ManifestError for what only its user's own machine can do, RepositoryError, EngineError without git, OSError.
    """
    env, needed = client_environment(machine), names(agent)
    planning.images(machine, agent.bottle)  # checks the settings
    repository = source.survey(options.wanted, env, machine.owner) if options.wanted else None
    identity = (agent.bottle.git or Identity()).completed(repository.author if repository else Identity())
    packed = dict(_manifests(agent, git_identity.completed_by_host(identity, env)))
    settings = {name: value for name in SETTINGS if (value := machine.setting(name))}
    if chosen := machine.setting(BUILD_CA):
        settings[BUILD_CA] = f"{_FILES}/build-ca.pem"
        packed[f"{AGENTS}/{settings[BUILD_CA]}"] = files.read(machine.path(chosen))
    task = Task(agent.name, options.question, needed, settings, options.time)
    if not repository:
        payload.write(task, packed, into)
        return None
    task = replace(
        task,
        commit=repository.work.start,
        ref=repository.ref.rpartition(" ")[0],
        origin=repository.origin,
        shallow=repository.shallow.decode(),
    )
    with StageDir.held("task", machine.owner) as stage:
        _bundle(repository, env, stage.path / BUNDLE)
        payload.write(task, {**packed, BUNDLE: stage.path / BUNDLE}, into)
    return repository


def names(agent: Agent) -> tuple[str, ...]:
    """Return the names of the secrets that an agent needs; raises ManifestError if one cannot be handed over."""
    locked = [host.key.path for host in agent.bottle.ssh if host.key.encrypted]
    if locked:
        raise ManifestError(f"{locked[0]} has a passphrase, for which nobody can be asked there; use a key without one")
    signed = tuple(name for each in agent.bottle.credentials for name in each.sources)
    for name in (*_sources(agent), *signed):
        if _ITS_OWN.fullmatch(name):
            raise ManifestError(f"{agent.bottle.path}: ${{{name}}} cannot go along: the other machine has its own")
    keys = (key.step for key in _keys(agent))
    return tuple(dict.fromkeys((TOKEN_VARIABLE, *_sources(agent), *signed, *keys)))


def secrets(machine: Machine, agent: Agent) -> dict[str, str]:
    """Return the secrets that an agent needs, by name; raises ManifestError, or TokenError without a token."""
    environ = token_store.resolved(machine).environ
    keys = {key.step: key.private.decode("utf-8", "surrogateescape") for key in _keys(agent)}
    return {name: keys.get(name) or environ.get(name, "") for name in names(agent)}


def _sources(agent: Agent) -> Iterator[str]:
    return (variable.source for variable in agent.bottle.env if variable.source)


def _keys(agent: Agent) -> tuple[Key, ...]:
    try:
        return ssh_hosts.keys(agent.bottle.ssh)
    except OSError as error:
        raise ManifestError(f"{escape_control_chars(str(error.filename))}: {error.strerror}") from None


def _manifests(agent: Agent, identity: Identity) -> Iterator[tuple[str, bytes | Path]]:
    """Yield the agent's and its bottle's manifests, rewritten so that every path leads to a file of the payload."""
    bottle = agent.bottle
    top = _data(agent.path)
    top.pop("repo", None)
    yield f"{AGENTS}/{agent.name}.yaml", _written(top)
    for skill in agent.skills:
        yield f"{AGENTS}/skills/{skill.name}", skill.folder
    inner = _data(bottle.path)
    who = {"name": identity.name, "email": identity.email}
    inner["git"] = {key: value for key, value in who.items() if value}
    if bottle.ca_certs:
        inner["ca_certs"] = [f"../{_FILES}/ca-{number}.pem" for number, _ in enumerate(bottle.ca_certs, 1)]
    for number, path in enumerate(bottle.ca_certs, 1):
        yield f"{AGENTS}/{_FILES}/ca-{number}.pem", home.certificates(files.read(path))
    steps = {host: key.step for key in _keys(agent) for host in key.hosts}
    entries = inner.get("ssh") or ()
    if len(entries) != len(bottle.ssh):
        raise ManifestError(f"{bottle.path}: it has changed meanwhile; run this again")
    for host, entry in zip(bottle.ssh, entries, strict=True):
        entry |= {"key": f"../{KEYS}/{steps[host]}", "known_host": ssh_hosts.pinned(host)}
    if bottle.dockerfile:
        context = bottle.dockerfile.parent.resolve()
        _keep_out(context, (host.key.path for host in bottle.ssh))
        inner["image"]["dockerfile"] = f"../{_CONTEXT}/{bottle.dockerfile.name}"
        yield f"{AGENTS}/{_CONTEXT}", context
    yield f"{AGENTS}/bottles/{bottle.name}.yaml", _written(inner)


def _keep_out(context: Path, keys: Iterable[Path]) -> None:
    """Raise ManifestError if a private key lies in a build context, and would be packed with it."""
    for key in keys:
        if inside(key, context):
            raise ManifestError(f"{key} lies in {context}, which is packed for its Dockerfile; move one of them")


def _data(path: Path) -> dict[str, Any]:
    data = yaml_document.load(path).data
    return data if isinstance(data, dict) else {}


def _written(data: Mapping[str, Any]) -> bytes:
    """Return a manifest as JSON, which is YAML."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    return _ODD.sub(lambda match: f"\\u{ord(match[0]):04x}", text).encode()


def _bundle(repository: Repository, env: Mapping[str, str], path: Path) -> None:
    """Write the history of a repository's start as a bundle; raises RepositoryError."""
    git_ = Git(repository.work.repository, git.environment(env), what="packing the repository")
    with path.open("wb", buffering=0) as file:
        file.write(header(repository.work.start, START))
        packed = git_.run(*PACK, stdin=f"{repository.work.start}\n".encode(), into=file, limit=_MOST)
    if not packed.ok:
        raise RepositoryError(f"{git_.path}: {git.reason(packed)}")
