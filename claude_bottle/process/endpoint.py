"""Where docker's commands lead: whose addresses the engine's host has, and whether the link to it can be cut."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from claude_bottle.process import command

SOCKET = "unix:///var/run/docker.sock"  # of docker's default context
UNIX = "unix://"
FORWARDED = "CLAUDE_BOTTLE_FORWARDED"  # names the endpoint that a forward of this launcher's own stands in for
_REMOTE = "CLAUDE_BOTTLE_REMOTE"
_TIMEOUT = 30  # seconds for docker to say where a context leads


@dataclass(frozen=True)
class Endpoint:
    """The way to the engine, as the user chose it: its URL, empty if docker cannot say.

    Only the user knows where a socket of their own leads, such as one that ssh forwards: such an engine is `declared`
    to be remote.
    """

    url: str = SOCKET
    declared: bool = False

    @property
    def is_here(self) -> bool:
        """Return whether the engine's host is this machine, whose addresses a bottle must not reach."""
        return self._is_local

    @property
    def can_be_cut(self) -> bool:
        """Return whether the link can end unnoticed, so that a bottle must miss its launcher by itself."""
        return not self._is_local

    @property
    def _is_local(self) -> bool:
        return self.url.startswith((UNIX, "npipe://")) and not self.declared


def read(env: Mapping[str, str], *, ask: bool = True) -> Endpoint:
    """Return the endpoint of docker's commands in an environment; without `ask` docker is not run for it.

    Raises EngineError if there is no docker command.
    """
    declared = env.get(_REMOTE, "") not in ("", "0")
    if chosen := env.get(FORWARDED) or env.get("DOCKER_HOST"):
        return Endpoint(chosen, declared)
    folder = Path(env.get("DOCKER_CONFIG") or Path(env.get("HOME", "/")) / ".docker")
    context = env.get("DOCKER_CONTEXT") or _text(folder / "config.json", "currentContext")
    if context in ("", "default"):
        return Endpoint(SOCKET, declared)
    if not ask:  # docker's own store, in a form that only docker knows for sure
        name = hashlib.sha256(context.encode(errors="replace")).hexdigest()
        url = _text(folder / "contexts" / "meta" / name / "meta.json", "Endpoints", "docker", "Host")
        return Endpoint(url or SOCKET, declared)
    argv = ("docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}", context)
    return Endpoint(command.run(argv, env, timeout=_TIMEOUT).stdout.decode(errors="replace").strip(), declared)


def _text(file: Path, *keys: str) -> str:
    """Return a text of a file of docker's, found by its keys; empty if it is not there."""
    try:
        found = json.loads(file.read_bytes())
        for key in keys:
            found = found.get(key, "")
    except (OSError, ValueError, AttributeError):
        return ""
    return found if isinstance(found, str) else ""
