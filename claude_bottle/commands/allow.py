"""Allow a running session to reach more hosts, named or as they are refused, and write them into its manifest."""

import contextlib
import hashlib
import io
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from claude_bottle.bottle import docker_flags, firewall, home, reach
from claude_bottle.bottle.plan import SIDECAR_UID
from claude_bottle.commands import logs
from claude_bottle.documents import yaml_document, yaml_edit
from claude_bottle.documents.escaping import escape_control_chars, from_utf8
from claude_bottle.egress import allowlist
from claude_bottle.egress import log as events
from claude_bottle.egress.allowlist import Host
from claude_bottle.errors import BottleError, DockerError, ManifestError, RefusedError, UsageError
from claude_bottle.host import console, installation
from claude_bottle.host.machine import Machine
from claude_bottle.process import container, liveness
from claude_bottle.process.command import Result
from claude_bottle.process.engine import Engine
from claude_bottle.session import engines, registry
from claude_bottle.session.planning import client_environment
from claude_bottle.session.registry import Session

_ATTEMPTS = 3  # another `allow` can overwrite the list between its reading and its writing
_PATIENCE = 10.0  # seconds for the sidecar to take a new list; 0.2 were seen
_ASKED = 20  # hosts
_SEEN = 1000  # hosts that were refused, whether they are asked for or not
_RENEWAL = 10.0  # seconds to renew the file in the bottle, whose agent may hold that up
_TAIL = "5000"  # lines of the log that are looked at; a flood writes 1300 while the list is taken


@dataclass(frozen=True)
class Saving:
    """A manifest's text before and after."""

    path: Path
    before: str
    after: str

    def write(self) -> None:
        """Replace the file in one go; raises ManifestError if it cannot be written or has changed meanwhile."""
        try:
            if yaml_document.read(self.path) != self.before:
                raise ManifestError(f"{self.path}: not saved, the file has changed meanwhile; run this again")
            _replace(self.path, self.after)
        except (OSError, yaml_document.YamlError) as error:
            raise ManifestError(f"{self.path}: not saved, cannot write it: {error}") from None

    def __str__(self) -> str:
        """Return what writing does as a line."""
        return f"{'saved in' if self.after != self.before else 'already in'} {escape_control_chars(str(self.path))}"


@dataclass(frozen=True)
class Allowed:
    """What a session may reach now; `new` if it could not before, `saving` still to be written."""

    hosts: tuple[Host, ...]
    new: bool
    saving: Saving | None

    def __str__(self) -> str:
        """Return the outcome as a line."""
        named = ", ".join(map(str, self.hosts))
        if self.new:
            return f"now allowed: {named}"
        return f"{named} {'was' if len(self.hosts) == 1 else 'were'} already allowed; nothing changed"


def allow(machine: Machine, name: str, hosts: Sequence[Host], *, save: bool) -> Allowed:
    """Allow a running session to reach more hosts, at once; prepare to write them into its bottle's manifest if `save`.

    Raises ManifestError or UsageError, before anything is allowed, DockerError or EngineError.
    """
    machine, session = engines.find(machine, name)
    env = client_environment(machine)
    if save and liveness.liveness(session.owner, machine.owner) == "elsewhere":
        raise ManifestError(f"{_manifest(session)}: not saved, it is on another machine; nothing was allowed")
    if save and not session.is_proven(machine.key):
        why = registry.UNPROVEN.format(session.id)
        raise ManifestError(f"{_manifest(session)}: not saved, {why}; nothing was allowed")
    saving = _saving(session, hosts) if save else None
    new = _allow(env, session, hosts)
    opened = _renew(env, session, hosts)  # a further port of a host is new as well
    return Allowed(tuple(hosts), new or opened, saving)


def refused(machine: Machine, name: str) -> Generator[tuple[str, Host], None, None]:
    """Yield a session's id with each host that it was refused and may be allowed, as they come, each once.

    After _ASKED of them it says so, and ends.

    A host that is allowed meanwhile is left out. Raises RefusedError without a terminal, UsageError, EngineError or
    DockerError.
    """
    if not machine.interactive:
        raise RefusedError("cannot ask: stdin is not a terminal; name the hosts instead")
    machine, session = engines.find(machine, name)
    env, refusals, asked = client_environment(machine), events.Refusals(_SEEN), 0
    with contextlib.closing(logs.logs(machine, session.id, follow=True, blocked=True)) as found:
        for event in found:
            host = refusals.first(event)
            if host and not allowlist.further_problem(host) and not _reaches(env, session, host):
                yield session.id, host
                asked += 1
            if refusals.full or asked == _ASKED:
                console.say(f"stopped after {asked} questions; run it again for more")
                return


def _reaches(env: Mapping[str, str], session: Session, host: Host) -> bool:
    names, (ports, _) = allowlist.configured(config_of(env, session)), reach.state(reach_of(env, session))
    return host.port in (allowlist.HTTPS, *ports) and any(Host(name).covers(host.name) for name in names)


def _manifest(session: Session) -> Path:
    """Return the path of the manifest of a session's bottle, on its owner's machine."""
    return Path(from_utf8(session.manifest))


def _saving(session: Session, hosts: Sequence[Host]) -> Saving:
    """Prepare to write hosts into the manifest of a session's bottle; ManifestError if that cannot be done."""
    path = _manifest(session).resolve()  # a link stays a link
    if installation.shipped(path):
        raise ManifestError(
            f"{path}: not saved, it belongs to the program, whose next upgrade replaces it; nothing was allowed. Copy"
            f" {installation.DATA / 'agents'} to ~/.config/claude-bottle/agents first"
        )
    try:
        before = yaml_document.read(path)
        new = [host for host in hosts if host not in (*allowlist.defaults(), *_allowed(before))]
        items = [str(host) for host in new]
        after = yaml_edit.with_items(before, ("egress", "allow"), items) if items else before
    except ValueError as error:
        lines = f"egress:\n  allow: [{', '.join(yaml_edit.scalar(str(host)) for host in hosts)}]"
        raise ManifestError(f"{path}: not saved, {error}; nothing was allowed. Add by hand:\n{lines}") from None
    if after != before and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        raise ManifestError(f"{path}: not saved, it or its folder is not writable; nothing was allowed")
    return Saving(path, before, after)


def _allow(env: Mapping[str, str], session: Session, hosts: Sequence[Host]) -> bool:
    """Allow a running session to reach `hosts` too, and return when it can; False if its list had them all before.

    Raises UsageError, DockerError or EngineError; then the session reaches what it reached before.
    """
    names = {host.name for host in hosts}
    for attempt in range(_ATTEMPTS):
        config = config_of(env, session)
        _refuse_ports(config, hosts)
        new = allowlist.extended(config, names)
        if new == config:
            _open_ports(env, session, hosts)
            return attempt > 0
        archive = home.archive([home.Entry("pipelock.yaml", new)], SIDECAR_UID)
        _docker(env, "cp", "-", f"{session.sidecar}:/config", stdin=archive)
        if _in_force(env, session, hashlib.sha256(new).hexdigest()):
            _open_ports(env, session, hosts)
            return True
    raise DockerError(f"the sidecar did not load the new list; see `docker logs {session.sidecar}`")


def _renew(env: Mapping[str, str], session: Session, hosts: Sequence[Host]) -> bool:
    """Renew the file that tells the agent what it reaches; return whether that has changed.

    It is made from the sidecar's copy, nothing is read of the bottle's. If that fails, the hosts are allowed all the
    same: an older version started the session, the bottle is ending, or its agent is in the way.
    """
    data, new = reach_of(env, session), b""
    with contextlib.suppress(ValueError, BottleError):
        new = reach.widened(data, allowlist.configured(config_of(env, session)), hosts)
        if new != data:
            copies = [home.archive([home.Entry(reach.FILE, new)], uid) for uid in (SIDECAR_UID, home.UID)]
            _docker(env, "cp", "-", f"{session.sidecar}:/config", stdin=copies[0])
            # tar replaces what is there instead of opening it, which could be a pipe.
            untar = ("/usr/bin/tar", "--extract", "--file", "-", "--directory", f"{container.HOME}/{home.FOLDER}")
            argv = container.execute(session.container, *untar)
            Engine(env).ask(*argv[1:], stdin=copies[1], timeout=_RENEWAL)
    return new not in (b"", data)


def _refuse_ports(config: bytes, hosts: Sequence[Host]) -> None:
    """Raise UsageError if a host that the credential proxy answers for shall get a port of its own.

    The proxy forwards only the ports that were declared at the start.
    """
    trusted = allowlist.trusted(config)
    for host in hosts:
        if host.name in trusted and host.port != allowlist.HTTPS:
            raise UsageError(
                f"{host}: the ports of a host with credentials are fixed at a session's start; nothing was allowed. Add"
                " it to egress.allow in the bottle's manifest, and start again"
            )


def _allowed(text: str) -> list[Host]:
    """Return the hosts that a manifest's text allows; ValueError if it is none."""
    document = yaml_document.parse(text)
    egress = document.data.get("egress") if isinstance(document.data, dict) else None
    items = egress.get("allow") if isinstance(egress, dict) else None
    return [allowlist.parse_host(str(item)) for item in items] if isinstance(items, list) else []


def _replace(path: Path, text: str) -> None:
    """Write a file beside the old one and rename it, so that nobody ever reads half of it."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        shutil.copymode(path, name)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise


def config_of(env: Mapping[str, str], session: Session) -> bytes:
    """Return the sidecar's own configuration, as it lies in its volume; raises DockerError or EngineError."""
    stdout = _docker(env, "cp", f"{session.sidecar}:/config/pipelock.yaml", "-").stdout
    try:
        config = _only_file(stdout)
        allowlist.configured(config)
    except (tarfile.TarError, ValueError) as error:
        raise DockerError(f"cannot read the sidecar's configuration: {error}") from None
    return config


def reach_of(env: Mapping[str, str], session: Session) -> bytes:
    """Return the sidecar's copy of what its bottle reaches; nothing if it has none. Raises EngineError."""
    result = Engine(env).ask("cp", f"{session.sidecar}:/config/{reach.FILE}", "-")
    with contextlib.suppress(tarfile.TarError):
        return _only_file(result.stdout) if result.ok else b""
    return b""


def _only_file(data: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        member = tar.next()
        file = tar.extractfile(member) if member else None
        return file.read() if file else b""


def _in_force(env: Mapping[str, str], session: Session, digest: str) -> bool:
    """Wait until the sidecar says that it has taken the configuration with this SHA-256."""
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        log = _docker(env, "logs", "--tail", _TAIL, session.sidecar).stdout
        if any(digest.encode() in line and events.reloaded(line) == digest for line in log.split(b"\n")):
            return True
        time.sleep(0.02)
    return False


def _open_ports(env: Mapping[str, str], session: Session, hosts: Sequence[Host]) -> None:
    """Have the gate let more ports out. Adding to its set replaces no rule: there is no moment without a gate."""
    ports = sorted({host.port for host in hosts} - {allowlist.HTTPS})
    if ports:
        owned, rules = docker_flags.owner_labels(session.id, "allow", session.owner), firewall.more_ports(ports)
        argv = docker_flags.nft(
            f"{session.container}-allow", f"container:{session.sidecar}", session.base, owned, rules
        )
        _docker(env, *argv[1:], stdin=rules)


def _docker(env: Mapping[str, str], *words: str, stdin: bytes = b"") -> Result:
    result = Engine(env).ask(*words, stdin=stdin)
    if not result.ok:
        raise DockerError(f"docker {words[0]} failed: {result.reason}")
    return result
