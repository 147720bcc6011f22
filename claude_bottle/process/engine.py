"""Query the engine: whether it can be used, its version, what exists on it, which addresses are taken."""

import grp
import json
import socket
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from claude_bottle import PREFIX
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.errors import BottleError, DockerError, EngineError, ManifestError
from claude_bottle.process import command, endpoint
from claude_bottle.process.command import Result
from claude_bottle.process.endpoint import UNIX, Endpoint

Argv = tuple[str, ...]

CLAUDE_LABEL = f"{PREFIX}.claude-code"  # of an image, set by the Dockerfile
EGRESS = f"{PREFIX}-egress"  # the network of the sidecars' way out, unless the user chose another
_OLDEST = (20, 10)
_TIMEOUT = 30  # seconds for a query; an engine that hangs is one that cannot be reached
_COMPONENTS = "{{range .Server.Components}}{{.Name}} {{end}}"
_VERSIONS = ("docker", "version", "--format", "{{.Client.Version}} {{.Server.Version}} " + _COMPONENTS)
_PODMAN = "podman is not supported: bottles need Docker Engine, 20.10 or newer"
_INFO = ("docker", "info", "--format", "{{json .}}")
_DEBUG = ("docker", "info", "--format", "{{.Debug}} {{.ServerVersion}} {{.MemTotal}}")
_BOTTLES = (
    *("docker", "ps", "--filter", f"label={PREFIX}.role=agent"),
    *("--format", f'{{{{.Label "{PREFIX}.memory"}}}}'),
)
_MOST_MEMORY = 18  # digits of a number of bytes that is taken for one
DEBUG_LOG = "the engine runs in debug mode (dockerd --debug): its log gets the values of the bottle's variables"


@dataclass(frozen=True)
class Egress:
    """The network of the sidecar's way out; `subnet` and `gateway` are set if the user chose it."""

    name: str
    subnet: IPv4Network | None = None
    gateway: IPv4Address | None = None


@dataclass(frozen=True)
class EngineFacts:
    """What one engine says before a session, and what it has refused since: a plan is made from these.

    `present` names the images and networks that were queried and exist; `taken` are the subnets that a session cannot
    have, empty until one was refused; `icc_off` and `ipv6_off` are False if the engine's kernel cannot do that; an
    engine with `debug` writes the environment of each `docker exec` into its log. `memory` is what the engine has, in
    bytes, 0 if that is not known; `bottles` are the limits of the bottles that run and have one.
    """

    egress: Egress = Egress(EGRESS)
    present: frozenset[str] = frozenset()
    taken: tuple[IPv4Network, ...] = ()
    icc_off: bool = True  # needs br_netfilter; without it the gate alone keeps sidecars apart
    ipv6_off: bool = True  # False if there is no IPv6 to switch off
    debug: bool = False
    paths: Mapping[str, str] = field(default_factory=dict)  # PATH in the images that exist, by their names
    claude: Mapping[str, str] = field(default_factory=dict)  # the version of Claude Code in them, of those we built
    memory: int = 0
    bottles: tuple[int, ...] = ()


@dataclass(frozen=True)
class Versions:
    """The docker client's and the engine's versions, as they write them."""

    client: str
    engine: str


class Engine:
    """Queries one engine; `env` is the docker clients' environment."""

    def __init__(self, env: Mapping[str, str]) -> None:
        """Call nothing yet."""
        self._env = env

    def ask(self, *words: str, stdin: bytes = b"", timeout: float | None = None) -> Result:
        """Run one short docker command, of `timeout` seconds at most; EngineError if docker cannot be used."""
        return self._ask_all([("docker", *words)], stdin, timeout)[0]

    def checked(self, result: Result) -> Result:
        """Return the result of a docker command, which may have failed; EngineError if docker cannot be used at all.

        A failure without an answer of the engine says nothing about an object: its client may have met no engine. Each
        version of docker words that differently, so `docker version` is queried instead.
        """
        if not result.answered:
            self._versions()
        return result

    def _ask_all(self, questions: Iterable[Argv], stdin: bytes = b"", timeout: float | None = None) -> list[Result]:
        """Query side by side, without threads: a signal must end this at once, whether the engine answers or not."""
        results = self._run_all(questions, stdin, timeout)
        for result in results:
            if result.timed_out:
                raise unusable(result.reason)
        # The first is enough: there is one engine.
        self.checked(next((result for result in results if not result.answered), results[0]))
        return results

    def _run_all(self, questions: Iterable[Argv], stdin: bytes = b"", timeout: float | None = None) -> list[Result]:
        clients = [command.start(argv, self._env) for argv in questions]
        try:
            return [client.wait(stdin, timeout=timeout or _TIMEOUT) for client in clients]
        finally:
            for client in clients:
                client.terminate()

    def _versions(self) -> Versions:
        """Query the engine for what any engine can say; EngineError if that fails, or if it is podman."""
        [result] = self._run_all([_VERSIONS])
        words = result.stdout.decode(errors="replace").split()
        if result.timed_out:
            raise unusable(result.reason)
        if "Podman" in words[2:] or (not result.ok and self._is_podmans()):
            raise EngineError(_PODMAN)
        if not result.ok:
            raise unusable(result.reason + self._membership())
        if len(words) < 2:
            raise unusable(f"docker version names no engine: {escape_control_chars(' '.join(words))}")
        return Versions(*words[:2])

    def _is_podmans(self) -> bool:
        """Return whether the docker command is podman's own, which does not understand these queries."""
        return self._run_all([("docker", "--version")])[0].stdout.startswith(b"podman")

    def explained(self, error: BottleError) -> BottleError:
        """Return the error, or why docker cannot be used any more, which is then its cause."""
        try:
            self._versions()
        except EngineError as silent:
            return silent
        return error

    def versions(self) -> Versions:
        """Return client's and engine's versions; EngineError if the engine is none that works, or is not there."""
        versions = self._versions()
        if _numbers(versions.engine) < _OLDEST:
            raise EngineError(f"Docker Engine {versions.engine} is too old: 20.10 is the oldest that works")
        return versions

    def facts(self, images: Iterable[str], chosen: str | None = None) -> EngineFacts:
        """Return which of `images` exist, and the network of the sidecars' way out, `chosen` by the user or shared.

        Raises ManifestError if the chosen network does not exist, DockerError if the engine refuses to say what exists,
        EngineError as `versions` does.
        """
        names = tuple(dict.fromkeys(images))
        asked = [network_query(chosen or EGRESS), image_query(*names), _DEBUG, _BOTTLES]
        network, together, info, bottles = self._ask_all(asked)
        debug, version, memory = (*info.stdout.decode(errors="replace").split(), "", "", "")[:3]
        if _numbers(version) < _OLDEST:
            self.versions()  # says what it is
        # All in one query, as each costs a docker client; one by one only if something is missing.
        answers = [together] if together.ok else self._ask_all(map(image_query, names))
        found = [_exists(name, answer) for name, answer in zip(names, answers, strict=False)]
        present = names if together.ok else [name for name, exists in zip(names, found, strict=True) if exists]
        lines = [line for answer in answers if answer.ok for line in answer.stdout.splitlines()]
        configs = {name: _config(line) for name, line in zip(present, lines, strict=False)}
        paths = {name: path for name, (path, _) in configs.items() if path}
        claude = {name: version for name, (_, version) in configs.items() if version}
        limits = tuple(filter(None, map(_size, bottles.stdout.decode(errors="replace").split())))
        room = EngineFacts(memory=_size(memory), bottles=limits)
        facts = replace(room, present=frozenset(present), debug=debug == "true", paths=paths, claude=claude)
        if chosen:
            return replace(facts, egress=_egress(chosen, network))
        return replace(facts, present=facts.present | {EGRESS}) if _exists(EGRESS, network) else facts

    def room(self) -> int:
        """Return its memory less the limits of the bottles that run, in bytes; raises EngineError."""
        info, bottles = self._ask_all([_DEBUG, _BOTTLES])
        memory = (*info.stdout.decode(errors="replace").split(), "", "", "")[2]
        return _size(memory) - sum(map(_size, bottles.stdout.decode(errors="replace").split()))

    def info(self) -> dict[str, Any]:
        """Return what `docker info` says; DockerError if it cannot be read."""
        result = self.ask(*_INFO[1:])
        try:
            found = json.loads(result.stdout)
            if result.ok and isinstance(found, dict):
                return found
        except ValueError:
            pass
        raise DockerError(f"what docker info prints cannot be read: {result.reason}")

    def egress(self, chosen: str) -> Egress:
        """Return the network that the user chose for the sidecars' way out; ManifestError if it does not exist."""
        return _egress(chosen, self._ask_all([network_query(chosen)])[0])

    def endpoint(self, *, ask: bool = True) -> Endpoint:
        """Return the way to the engine; see `endpoint.read`."""
        return endpoint.read(self._env, ask=ask)

    def _membership(self) -> str:
        """Return what to do if this user may not write to the engine's socket; empty if that is not the reason."""
        path = Path(self.endpoint().url.removeprefix(UNIX))
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1)
                connection.connect(str(path))
        except PermissionError:
            return f"; {_how_to_join(path)}"
        except OSError:
            return ""
        return ""

    def subnets(self) -> tuple[IPv4Network, ...]:
        """Return the IPv4 subnets of every docker network; DockerError if they cannot be listed."""
        listed = self.ask("network", "ls", "--quiet")
        names = listed.stdout.decode(errors="replace").split()
        # One that vanishes meanwhile makes the exit status 1 and leaves the others' lines.
        shown = self.ask("network", "inspect", "--format", "{{json .IPAM.Config}}", *names)
        if not listed.ok or not shown.stdout:
            raise DockerError(f"the engine's networks cannot be listed: {(listed if not listed.ok else shown).reason}")
        return tuple(subnet for subnet, _ in _ipv4(shown))


def image_query(*names: str) -> Argv:
    """Return the command that succeeds if all these images exist, and prints variables and labels, a line of JSON each.

    The format is `_config`'s.
    """
    return ("docker", "image", "inspect", "--format", "[{{json .Config.Env}},{{json .Config.Labels}}]", *names)


def _config(line: bytes) -> tuple[str, str]:
    """Return PATH of an image's variables and the version of Claude Code in its labels; nothing for what is not there.

    Nothing, too, if they cannot be read.
    """
    try:
        variables, labels = json.loads(line)
        found = [str(pair) for pair in variables or ()]
        version = str((labels or {}).get(CLAUDE_LABEL, ""))
    except (ValueError, TypeError, AttributeError):
        return "", ""
    return next((pair.removeprefix("PATH=") for pair in found if pair.startswith("PATH=")), ""), version


def network_query(name: str) -> Argv:
    """Return the command that succeeds if a network exists, and prints its addresses."""
    return ("docker", "network", "inspect", "--format", "{{json .IPAM.Config}}", name)


def unusable(why: str) -> EngineError:
    """Return the error of a docker command that no engine answered."""
    return EngineError(f"docker cannot be used: {why}")


def _how_to_join(path: Path) -> str:
    """Return how a user comes to be allowed to use a socket."""
    try:
        status = path.stat()
        group = grp.getgrgid(status.st_gid).gr_name
    except (OSError, KeyError):
        status = None
    if not status or not status.st_mode & stat.S_IWGRP or not status.st_gid:
        return f"this user may not use {escape_control_chars(str(path))}"
    return f"this login is not in the group {group}: `sudo usermod -aG {group} $USER`, then log in again"


def _exists(name: str, found: Result) -> bool:
    """Return whether an object that was queried exists; DockerError if the engine answered something else."""
    if found.answered and not found.ok and not found.absent:
        raise DockerError(f"{name} cannot be inspected: {found.reason}")
    return found.ok


def _egress(name: str, found: Result) -> Egress:
    if not _exists(name, found):
        raise ManifestError(f"CLAUDE_BOTTLE_EGRESS_NETWORK: {name}: {found.reason}")
    for subnet, gateway in _ipv4(found):
        return Egress(name, subnet, gateway)
    raise ManifestError(f"CLAUDE_BOTTLE_EGRESS_NETWORK: {name} has no IPv4 subnet")


def _ipv4(shown: Result) -> list[tuple[IPv4Network, IPv4Address | None]]:
    """Return the IPv4 subnets, with their gateways, of networks' configurations, one list or null a line."""
    try:
        configs = [config for line in shown.stdout.splitlines() for config in json.loads(line) or ()]
        pairs = [(config.get("Subnet", ":"), config.get("Gateway")) for config in configs]
        return [
            (IPv4Network(net, strict=False), IPv4Address(gateway) if gateway else None)
            for net, gateway in pairs
            if ":" not in net
        ]
    except (ValueError, TypeError, AttributeError) as error:
        raise DockerError(f"what docker network inspect prints cannot be read: {error}") from None


def _size(text: str) -> int:
    """Return a number of bytes; 0 if it is none, as of a label that somebody else has written."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _MOST_MEMORY else 0


def _numbers(version: str) -> tuple[int, ...]:
    """Return major and minor; a version that is no number (a development build) counts as new."""
    parts = version.split(".")[:2]
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else (9999,)
