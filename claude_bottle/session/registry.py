"""The sessions on an engine, read from their containers' labels, the only record of them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from claude_bottle import PREFIX
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.egress.log import Tally
from claude_bottle.errors import DockerError, UsageError
from claude_bottle.host import proof
from claude_bottle.host.owner import Owner
from claude_bottle.process import command
from claude_bottle.process.engine import Engine
from claude_bottle.repository.clone import Work

# In the order of the fields of `Session`.
_KEYS = (
    *("session", "owner", "agent", "bottle", "mode", "manifest", "base", "repository", "signs", "time"),
    *("name", "proof"),
    "role",
)
_UNKNOWN = "-"  # while a session has no agent container: not yet, or no longer
UNPROVEN = "no label proves that this user started {}"
_READERS = 8  # logs read in parallel
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


@dataclass(frozen=True)
class Session:
    """One session that has containers; `manifest` is the path of the bottle's manifest there, as `to_utf8` has it."""

    id: str
    owner: Owner
    started: datetime
    agent: str = _UNKNOWN
    bottle: str = _UNKNOWN
    mode: str = _UNKNOWN
    manifest: str = _UNKNOWN
    base: str = _UNKNOWN
    repository: str = _UNKNOWN  # `Work.label`
    signs: str = _UNKNOWN  # the hosts whose TLS its credential proxy ends, joined by commas
    time: str = _UNKNOWN  # its limit, in seconds
    called: str = _UNKNOWN  # the name that its user gave it
    proof: str = _UNKNOWN
    role: str = "agent"  # of the labelled container
    name: str = ""  # of that container
    roles: frozenset[str] = field(default=frozenset(), kw_only=True)  # of all its containers

    @property
    def container(self) -> str:
        """Return the name of the agent's container."""
        return f"{PREFIX}-{self.id}"

    @property
    def sidecar(self) -> str:
        """Return the name of the sidecar's container."""
        return f"{self.container}-sidecar"

    @property
    def gate(self) -> str:
        """Return the name of the credential proxy's container."""
        return f"{self.container}-gate"

    @property
    def branch(self) -> str:
        """Return the name of the branch that its work is on; nothing without a repository."""
        if self.repository == _UNKNOWN:
            return ""
        work = Work.of_label(self.repository)
        return work.back(self.id) if work else f"bottle/{self.id}"

    @property
    def ended(self) -> tuple[str, ...]:
        """Return the hosts whose TLS the credential proxy ends; none if an older version, without one, started it."""
        return () if self.signs == _UNKNOWN else tuple(self.signs.split(","))

    @property
    def logged(self) -> tuple[str, ...]:
        """Return the names of the containers whose logs have the session's requests."""
        return (self.sidecar, *((self.gate,) if self.ended else ()))

    def is_proven(self, key: bytes) -> bool:
        """Return whether the user who has `key` started it, with this owner, manifest and repository.

        Labels can be set by whoever uses the engine: nothing is signalled or written on their word alone.
        """
        stated = ("" if value == _UNKNOWN else value for value in (self.repository, self.manifest))
        return proof.is_proof(self.proof, key, self.id, self.role, self.name, str(self.owner), *stated)

    def left(self, age: int) -> int | None:
        """Return the seconds until its limit of time, at least 0, at an `age`; None without a limit."""
        known = self.time.isascii() and self.time.isdigit() and len(self.time) < 9
        return max(0, int(self.time) - age) if known else None

    def age(self) -> int:
        """Return the session's age in seconds, at least 0, as the engine's clock may be ahead of this machine's."""
        return max(0, int((datetime.now(UTC) - self.started).total_seconds()))


def listed(env: Mapping[str, str]) -> tuple[Session, ...]:
    """Return the sessions on the engine, the oldest first; raises EngineError or DockerError."""
    labels = (f'{{{{json (.Label "{PREFIX}.{key}")}}}}' for key in _KEYS)
    words = ("ps", "--all", "--no-trunc", "--filter", f"label={PREFIX}.session")
    result = Engine(env).ask(*words, "--format", "\t".join(("{{.CreatedAt}}", *labels, "{{json .Names}}")))
    if not result.ok:
        raise DockerError(f"cannot list the engine's containers: {result.reason}")
    found: dict[str, Session] = {}
    roles: dict[str, set[str]] = {}
    for session in _parsed(result.stdout):
        roles.setdefault(session.id, set()).add(session.role)
        if session.id not in found or _rank(session) > _rank(found[session.id]):
            found[session.id] = session
    all_roles = (replace(session, roles=frozenset(roles[session.id])) for session in found.values())
    return tuple(sorted(all_roles, key=lambda session: (session.started, session.id)))


def find(sessions: Sequence[Session], prefix: str) -> Session:
    """Return the session with the id `prefix`, that of this name, or the only one whose id begins with it.

    Raises UsageError, which lists the candidates.
    """
    found = [session for session in sessions if prefix and session.id.startswith(prefix)]
    exact = [session for session in found if session.id == prefix]
    exact = exact or [session for session in sessions if session.called == prefix != _UNKNOWN]
    found = exact or found
    if len(exact or found) == 1:
        return (exact or found)[0]
    names = ", ".join(escape_control_chars(session.id) for session in found or sessions)
    if found:
        raise UsageError(f'"{escape_control_chars(prefix)}" is ambiguous: {names}; type more of the id')
    raise UsageError(
        f'no session "{escape_control_chars(prefix)}"; {f"sessions: {names}" if names else "none is running"}'
    )


def egress(env: Mapping[str, str], session: Session) -> Tally:
    """Return the tally of a session's logs so far, those of containers that do not exist being empty.

    Raises EngineError.
    """
    tally = Tally(session.ended)
    for container in session.logged:
        tally.add_all(command.lines(("docker", "logs", container), env))
    return tally


def all_egress(env: Mapping[str, str], sessions: Sequence[Session]) -> list[Tally]:
    """Return the tally of each session, in order."""
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(lambda session: egress(env, session), sessions))


def duration(seconds: int) -> str:
    """Return a number of seconds in one unit, rounded down, such as "2 h"."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _rank(session: Session) -> int:
    """Return how much the labels count: by the name of their container, which no two have, unlike its labels."""
    return {session.sidecar: 1, session.container: 2}.get(session.name, 0)


def _parsed(stdout: bytes) -> Iterator[Session]:
    for line in stdout.decode(errors="replace").split("\n"):
        created, *labels = line.split("\t")
        if len(labels) != len(_KEYS) + 1:
            continue
        session, label, *more = (json.loads(value) or _UNKNOWN for value in labels)
        owner = Owner.parse(label)
        if owner and session != _UNKNOWN:  # else a container of `doctor`
            # strptime cannot parse the name of the time zone, which follows the offset.
            started = datetime.strptime(created[:25], "%Y-%m-%d %H:%M:%S %z")
            yield Session(session, owner, started, *more)
