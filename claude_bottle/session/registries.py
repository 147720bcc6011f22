"""The hosts of package registries: the build of a preset asks its tools for them, and they are read from its image.

Never from a bottle's own image, which its Dockerfile could have say anything. What was read is kept in the user's state
folder, for what calls no docker.
"""

import contextlib
import socket
from collections.abc import Collection, Mapping
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from claude_bottle import PREFIX
from claude_bottle.bottle import docker_flags
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.egress import allowlist
from claude_bottle.egress.allowlist import Host
from claude_bottle.errors import DockerError, ManifestError
from claude_bottle.host import own_file
from claude_bottle.host.machine import Machine
from claude_bottle.manifest.agent import Agent
from claude_bottle.manifest.registries import PRESET
from claude_bottle.process import container
from claude_bottle.process.engine import Engine
from claude_bottle.session import planning

FILE = "/usr/local/share/claude-bottle/registries"  # each line the name of a registry and a host or a URL
_MOST = 900  # bytes of it, which fit into a file of the state folder with the id of their image
_PATIENCE = 120.0  # seconds, as for each step of a session: a container takes longer to start than a query to answer

Hosts = Mapping[str, tuple[Host, ...]]


def located(machine: Machine, agent: Agent) -> Agent:
    """Return an agent with the hosts of its registries as they were when a session last read them; calls no docker."""
    if not _asks(agent):
        return agent
    return _with(agent, _kept(machine, _tag(machine, agent))[1])


def learned(machine: Machine, agent: Agent, engine: Engine) -> Agent:
    """Return an agent with the hosts of its registries, read from its image if that is another than the last time.

    Without the image they are as they were. Raises ManifestError for a mirror with a private address, DockerError if
    the image has no list that can be used, EngineError.
    """
    _refuse_private(agent)
    if not _asks(agent):
        return agent
    tag = _tag(machine, agent)
    found = engine.ask("image", "inspect", "--format", "{{.Id}}", tag)
    if not found.ok:
        return located(machine, agent)
    image = found.stdout.decode(errors="replace").strip()
    kept, hosts = _kept(machine, tag)
    if kept != image:
        text = _read(machine, engine, image, tag)
        try:
            hosts = parse(text)
        except ValueError as error:
            raise DockerError(f"{tag}: its list of registries cannot be used: {error}") from None
        _keep(machine, tag, image, text)
    return _with(agent, hosts)


def unbuilt(machine: Machine, agent: Agent, present: Collection[str]) -> bool:
    """Return whether the image that the hosts come from is still to be built."""
    return _asks(agent) and _tag(machine, agent) not in present


def parse(text: bytes) -> dict[str, tuple[Host, ...]]:
    """Read the list of an image; raises ValueError with a one-line message for anything but hosts of registries."""
    if len(text) > _MOST:
        raise ValueError(f"more than {_MOST} bytes")
    found: dict[str, tuple[Host, ...]] = {}
    for line in text.decode("ascii").splitlines():
        name, _, url = line.partition(" ")
        if name not in PRESET:
            raise ValueError(f'"{escape_control_chars(line)}" names no registry')
        host = allowlist.parse_further(url.removeprefix("https://").partition("/")[0])
        if host.name.startswith("*."):
            raise ValueError(f'"{host}" is no single host')
        found[name] = tuple(dict.fromkeys((*found.get(name, ()), host)))
    return found


def _asks(agent: Agent) -> bool:
    """Return whether an agent's bottle has a registry that no mirror stands in for."""
    return not all(registry.mirrors for registry in agent.bottle.registries)


def _with(agent: Agent, hosts: Hosts) -> Agent:
    registries = tuple(registry.known(hosts) for registry in agent.bottle.registries)
    return replace(agent, bottle=replace(agent.bottle, registries=registries))


def _tag(machine: Machine, agent: Agent) -> str:
    return planning.images(machine, replace(agent.bottle, dockerfile=None))[-1].tag


def _read(machine: Machine, engine: Engine, image: str, tag: str) -> bytes:
    owned = docker_flags.owner_labels("", "registries", machine.owner)  # so that cleanup finds it
    result = engine.ask(
        *("run", "--rm", "--name", f"{PREFIX}-registries-{machine.owner.pid}", "--pull", "never", "--network", "none"),
        *("--user", container.GUARD, *docker_flags.unprivileged(), "--read-only", *docker_flags.label_flags(owned)),
        *("--entrypoint", "/usr/bin/head", image, "--bytes", str(_MOST + 1), FILE),
        timeout=_PATIENCE,
    )
    if not (result.ok and result.stdout):
        raise DockerError(f"{tag}: it has no list of its registries: {result.reason}")
    return result.stdout


def _file(machine: Machine, tag: str) -> Path:
    return machine.key_file.with_name("registries") / tag.rpartition(":")[2]


def _kept(machine: Machine, tag: str) -> tuple[str, Hosts]:
    """Return the id of the image that was read last, and its hosts; nothing if the file is not one that was kept."""
    try:
        image, _, text = own_file.read(_file(machine, tag), private=True).partition(b"\n")
        return image.decode("ascii", "replace"), parse(text)
    except (OSError, ValueError):
        return "", {}


def _keep(machine: Machine, tag: str, image: str, text: bytes) -> None:
    """Keep what was read; a state folder that cannot be written to only costs the next start the same query."""
    with contextlib.suppress(OSError):
        own_file.write(_file(machine, tag), f"{image}\n{text.decode('ascii').rstrip()}")


def _refuse_private(agent: Agent) -> None:
    """Raise ManifestError if a mirror has a private address, to which the sidecar would let nothing through."""
    for mirror in (mirror for registry in agent.bottle.registries for mirror in registry.mirrors):
        try:
            found = socket.getaddrinfo(mirror.host.name, mirror.host.port, type=socket.SOCK_STREAM)
        except OSError:  # it may have one where the engine is
            continue
        private = [str(address) for *_, (address, *_) in found if not ip_address(address).is_global]
        if private:
            what = f"{mirror.host} has a private address, {private[0]}, and a bottle reaches none"
            raise ManifestError(escape_control_chars(f"{agent.bottle.path}: {what}"))
