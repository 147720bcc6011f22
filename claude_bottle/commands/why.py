"""Explain whether an agent's bottle, or a running session, may reach a host, by which line, and what would allow it."""

import contextlib
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from claude_bottle.bottle import agent as bottles
from claude_bottle.bottle import reach
from claude_bottle.commands import allow, check
from claude_bottle.documents.escaping import escape_control_chars, from_utf8
from claude_bottle.documents.yaml_edit import scalar
from claude_bottle.egress import allowlist
from claude_bottle.egress.allowlist import HTTPS, Host
from claude_bottle.errors import ManifestError, UsageError
from claude_bottle.host.machine import Machine, MadeUp
from claude_bottle.manifest import agent as manifest
from claude_bottle.manifest import host_lines
from claude_bottle.manifest.host_lines import HostLine
from claude_bottle.manifest.registries import Registry
from claude_bottle.manifest.validation import nearest
from claude_bottle.process import liveness
from claude_bottle.session import engines
from claude_bottle.session.planning import client_environment
from claude_bottle.session.registry import Session


@dataclass(frozen=True)
class Answer:
    """Whether a host may be reached, and the lines that open it; `item` and `command` would allow it, if anything."""

    host: str
    allowed: bool
    reason: str
    lines: tuple[HostLine, ...] = ()
    manifest: Path | None = None  # that `item` would go into
    item: str = ""
    command: str = ""

    def __str__(self) -> str:
        """Return the text for people."""
        told = [f"{self.host}: {'allowed' if self.allowed else 'refused'}, {self.reason}", *map(str, self.lines)]
        if self.command:
            told.append(f"to allow it at once: {self.command}")
        if self.item:
            later = ", in later sessions" if self.command else ""
            told.append(f"to allow it{later}, in {escape_control_chars(str(self.manifest))}:")
            told += ["egress:", f"  allow: [{scalar(self.item)}]"]
        return "\n".join(told)

    def as_json(self) -> dict[str, object]:
        """Return the same as data for json.dumps."""
        places = [{"file": str(one.path), "line": one.line, "column": one.column, "key": one.key} for one in self.lines]
        known = {"host": self.host, "allowed": self.allowed, "reason": self.reason, "lines": places}
        saved = {"file": str(self.manifest), "egress.allow": self.item} if self.item else None
        return {**known, "to_allow": {"manifest": saved, "command": self.command or None}}


@dataclass(frozen=True)
class _Reach:
    """What is open: names, and ports on all of them. The lines explain it; of a session they are the file's of now."""

    names: tuple[str, ...]
    ports: tuple[int, ...]
    signed: tuple[str, ...]  # names of the hosts with credentials
    lines: tuple[HostLine, ...]
    manifest: Path | None = None
    session: str = ""
    since: tuple[Host, ...] = field(default=())  # allowed since the session's start


def why(machine: Machine, target: str, text: str, *, session: bool) -> Answer:
    """Explain whether the agent `target`, else the session, may reach `text`, a name or name:port.

    With `session`, it is no agent. Raises UsageError, ManifestError and, for a session, EngineError or DockerError.
    """
    host = _asked(text)
    found = _of_session(machine, target) if session or target not in _agents(machine) else _of_agent(machine, target)
    if isinstance(host, Host):
        return _answer(found, host)
    if _is_itself(text):
        return Answer(text, allowed=True, reason="the bottle itself, without the proxy; never this machine")
    return Answer(text, allowed=False, reason=_said(host))


def _asked(text: str) -> "Host | allowlist.NoNameError":
    try:
        host = allowlist.parse_host(text)
    except allowlist.NoNameError as error:
        return error
    except ValueError as error:
        raise UsageError(str(error)) from None
    if host.name.startswith("*."):
        raise UsageError(f'"{text}": name one host, not a pattern')
    return host


def _said(problem: object) -> str:
    """Return a message without the host in front."""
    return str(problem).partition('": ')[2] or str(problem)


def _is_itself(text: str) -> bool:
    """Return whether this is what a bottle's programs reach without the proxy."""
    name = text[1:].partition("]")[0] if text[0] == "[" else text if text.count(":") > 1 else text.partition(":")[0]
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(name).is_loopback or name in bottles.ITSELF
    return name.lower() in bottles.ITSELF


def _agents(machine: Machine) -> tuple[str, ...]:
    with contextlib.suppress(ManifestError):
        return manifest.names(machine.agents)
    return ()


def _of_agent(machine: Machine, name: str) -> _Reach:
    [agent] = check.check(machine, name, MadeUp())  # values of variables do not matter
    bottle = agent.bottle
    lines = _lines(bottle.path, bottle.registries)
    names, ports = allowlist.allowlist(bottle.reach), allowlist.ports(bottle.reach)
    return _Reach(names, ports, tuple(each.host.name for each in bottle.credentials), lines, bottle.path)


def _of_session(machine: Machine, name: str) -> _Reach:
    try:
        machine, session = engines.find(machine, name)
    except UsageError as error:
        raise UsageError(f"{error}{nearest(name, _agents(machine))}") from None
    env = client_environment(machine)
    config = allow.config_of(env, session)
    ports, since = reach.state(allow.reach_of(env, session))
    path = _manifest(machine, session)
    return _Reach(
        names=allowlist.configured(config),
        ports=(HTTPS, *ports),
        signed=allowlist.trusted(config),
        lines=_lines(path),
        manifest=path,
        session=session.id,
        since=since,
    )


def _manifest(machine: Machine, session: Session) -> Path | None:
    """Return the manifest of a session's bottle; None if it is another machine's, or nothing proves the label."""
    here = liveness.liveness(session.owner, machine.owner) != "elsewhere"
    return Path(from_utf8(session.manifest)) if here and session.is_proven(machine.key) else None


def _lines(path: Path | None, registries: tuple[Registry, ...] = ()) -> tuple[HostLine, ...]:
    own: tuple[HostLine, ...] = ()
    with contextlib.suppress(ValueError):  # a session's may have become no YAML; an agent's was checked
        own = host_lines.of_manifest(path, registries) if path else ()
    return (*host_lines.of_defaults(), *own)


def _answer(found: _Reach, host: Host) -> Answer:
    if problem := allowlist.further_problem(host):
        return Answer(str(host), allowed=False, reason=_said(problem))
    if not any(Host(name).covers(host.name) for name in found.names):
        what = "its session's list does not have it" if found.session else "no line allows it"
        return _refused(found, host, what)
    if host.port not in found.ports or _is_late(found, host):
        return _refused(found, host, f"port {host.port} is not open")
    return _allowed(found, host)


def _is_late(found: _Reach, host: Host) -> bool:
    """Return whether a port was opened after the session's start, when those of a host with credentials were fixed."""
    declared = any(line.host.port == host.port for line in found.lines)
    return host.name in found.signed and not declared and any(one.port == host.port for one in found.since)


def _refused(found: _Reach, host: Host, reason: str) -> Answer:
    now = found.session and not (host.name in found.signed and host.port != HTTPS)  # its ports are fixed at the start
    saved = any(line.host == host for line in found.lines) or found.manifest is None
    command = reach.allowing(found.session, str(host)) if now else ""
    return Answer(str(host), False, reason, (), found.manifest, "" if saved else str(host), command)


def _allowed(found: _Reach, host: Host) -> Answer:
    covering = [line for line in found.lines if line.host.covers(host.name)]
    named = sorted(covering, key=lambda line: (line.host.port != host.port, line.host.name != host.name))[:1]
    port = [line for line in found.lines if line.host.port == host.port][:1] if host.port != HTTPS else named
    lines = tuple(named if named and named[0].host.port == host.port else dict.fromkeys((*named, *port)))
    if named and port:
        reason = "by this line" if len(lines) == 1 else "by these lines: each port is open on every host"
    elif any(one.covers(host.name) or one.port == host.port != HTTPS for one in found.since):
        reason = f"by `{reach.allowing('', '').rstrip()}` since the session's start"
    else:
        reason = "by the manifest as it was at the session's start"
    # Not on its other ports, which are passed on unopened.
    own = any(line.key == "credentials" and line.host == host for line in found.lines)
    own = own or bool(found.session and host.port == HTTPS and host.name in found.signed)
    signed = "what Claude Code needs" if host in allowlist.defaults() else ""
    signed = "the methods and paths of its credential" if own else signed
    signed = "what Claude Code needs and api.paths" if host == Host(allowlist.API) else signed
    return Answer(str(host), True, f"{reason}{f'; of its requests, {signed}' if signed else ''}", lines)
