"""What is kept of sessions that have ended: a folder each in the user's state folder, for this user alone to read.

A record holds what a bottle wrote, and anything may have become of its files since. So names are checked, no link is
followed, and what is not as it was written makes a record damaged, never a command fail.
"""

import contextlib
import json
import os
import re
import shutil
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.errors import UsageError
from claude_bottle.host import own_file
from claude_bottle.host.machine import Machine
from claude_bottle.host.owner import Owner
from claude_bottle.process.liveness import is_dead

MIB = 1 << 20
FACTS, MESSAGES, ANSWER, TRANSCRIPT = "session.json", "messages", "answer", "transcript.jsonl"
RECEIPT, PLAN, COUNTS, REFUSALS = "receipt.json", "plan.json", "counts.json", "refusals.json"
TERMINAL = "terminal"  # the path of the socket of one in the background
# The parts of a record, and the most bytes of each: 64 MiB together.
MOST: Mapping[str, int] = MappingProxyType(
    {
        FACTS: MIB // 2 - (1 << 13),
        MESSAGES: 6 * MIB,
        ANSWER: 8 * MIB,
        TRANSCRIPT: 46 * MIB,
        RECEIPT: MIB // 2,
        PLAN: MIB,
        COUNTS: MIB,
        REFUSALS: MIB,
        TERMINAL: 1 << 13,
    }
)
LIMIT = 1024 * MIB  # bytes of all records that `trim` counts
_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,29})-[0-9a-f]{8}")  # see `bottle.plan.session_id`
_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class Facts:
    """What is known of a session; times are in UTC, whole seconds. Texts are as they were: escape them to print them.

    `code` is None until the session has ended, and if it did not end in order.
    """

    session: str
    agent: str
    started: datetime
    owner: str = ""  # the launcher's `Owner`, while it runs
    agent_file: str = ""
    name: str = ""  # that the user gave it
    terminal: bool = False
    ended: datetime | None = None
    code: int | None = None
    error: str = ""  # the last one
    repository: str = ""
    branch: str = ""  # that came back
    conversation: str = ""  # Claude's id of it
    kept: bool = False
    detached: bool = False
    struck: int = 0  # places at which a secret was struck out
    cut: bool = False  # the answer was longer
    notes: tuple[str, ...] = ()  # what could not be kept, and why

    @property
    def is_bare(self) -> bool:
        """Return whether this is all that there is of a session in the background, which its user removes."""
        return self.detached and not self.kept

    def as_json(self) -> dict[str, object]:
        """Return the facts as data for json.dumps."""
        times = {name: value.isoformat() for name in ("started", "ended") if (value := getattr(self, name))}
        return {**asdict(self), **times}

    @classmethod
    def parse(cls, data: bytes) -> "Facts | None":
        """Return the facts of a file; None if it holds anything but what `as_json` makes, or some of that."""
        try:
            found = json.loads(data)
            known = {each.name: found[each.name] for each in fields(cls) if each.name in found}
            for name in ("started", "ended"):
                known[name] = datetime.fromisoformat(known[name]).astimezone(UTC) if known.get(name) else None
            known["notes"] = tuple(map(str, known.get("notes", ())))
            made = cls(**known)
        except (AttributeError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return None
        return made if all(map(made._is_right, fields(cls))) else None

    def _is_right(self, field: object) -> bool:
        name, kind = str(getattr(field, "name", "")), getattr(field, "type", "")
        right: dict[object, tuple[type, ...]] = {
            str: (str,),
            bool: (bool,),
            int: (int,),
            datetime: (datetime,),
            int | None: (int, type(None)),
            datetime | None: (datetime, type(None)),
            tuple[str, ...]: (tuple,),
        }
        value = getattr(self, name)
        return type(value) in right[kind]  # a bool is no int here


@dataclass(frozen=True)
class Record:
    """One session's folder; `facts` is None if it is damaged."""

    session: str
    folder: Path
    facts: Facts | None = None
    changed: float = 0.0  # seconds since 1970: of the folder, by which a damaged one is placed

    @property
    def size(self) -> int:
        """Return the bytes of all that is in the folder."""
        return _size(self.folder)

    @property
    def when(self) -> float:
        """Return when the session started, as far as is known, in seconds since 1970."""
        return self.facts.started.timestamp() if self.facts else self.changed

    def path(self, part: str) -> Path:
        """Return the path of a part, there or not."""
        assert part in MOST  # noqa: S101  (a name of this program's own)
        return self.folder / part

    def read(self, part: str) -> bytes | None:
        """Return a part; None if it is not there, or is no file of this user's alone, or too large."""
        try:
            return own_file.read(self.path(part), private=True, most=MOST[part])
        except OSError:
            return None

    def read_json(self, part: str) -> object:
        """Return a part as data; None if it is not there, or is not JSON."""
        try:
            return json.loads(self.read(part) or b"null")
        except (ValueError, RecursionError):
            return None

    def write(self, part: str, data: bytes) -> None:
        """Write a part, whole or not at all, in place of an older one; raises OSError, of one too large as well."""
        if len(data) > MOST[part]:
            raise OSError(f"{part} is larger than {MOST[part] / MIB:g} MiB")
        own_file.write_bytes(self.path(part), data)

    def write_json(self, part: str, data: object) -> None:
        """Write data as a part; raises OSError."""
        self.write(part, json.dumps(data, indent=1).encode() + b"\n")

    def write_facts(self, facts: Facts) -> "Record":
        """Write what is known of the session; return the record with it. Raises OSError."""
        self.write_json(FACTS, facts.as_json())
        return Record(self.session, self.folder, facts, self.changed)

    def read_facts(self) -> Facts | None:
        """Return what is known of the session now; None if that is damaged, or gone."""
        facts = Facts.parse(self.read(FACTS) or b"")
        return facts if facts and facts.session == self.session else None

    def opened(self, part: str) -> int:
        """Return a descriptor to which a part is appended as it comes, which a child may inherit; raises OSError."""
        path = self.path(part)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _FLAGS, 0o600)

    def tail(self, part: str, most: int) -> bytes:
        """Return the last `most` bytes of a part, which may be larger than it should be; nothing if there is none."""
        try:
            descriptor = os.open(self.path(part), os.O_RDONLY | _FLAGS)
        except OSError:
            return b""
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid():
                return b""
            return os.pread(descriptor, most, max(0, status.st_size - most))
        except OSError:
            return b""
        finally:
            os.close(descriptor)

    def is_running(self, observer: Owner) -> bool:
        """Return whether its session may still run, as seen from the process `observer`."""
        if not self.facts or self.facts.ended:
            return False
        owner = Owner.parse(self.facts.owner)
        return owner is not None and not is_dead(owner, observer)


class Records:
    """The records of one user."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, there or not."""
        self.folder = folder

    @classmethod
    def of(cls, machine: Machine) -> "Records":
        """Return the records of a machine's user."""
        return cls(machine.key_file.with_name("sessions"))

    def create(self, facts: Facts) -> Record:
        """Make the record of a session, or open the one that is there; raises OSError."""
        folder = self.folder / facts.session
        if not _ID.fullmatch(facts.session):
            raise OSError(0, "no id of a session", facts.session)
        for path in (self.folder, folder):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not own_file.owns_folder(path):
                raise PermissionError(0, "not a folder of this user's own", str(path))
            path.chmod(0o700)
        return Record(facts.session, folder).write_facts(facts)

    def all(self) -> tuple[Record, ...]:
        """Return every record, the newest first; names that are no session's are left out."""
        try:
            names = [each.name for each in self.folder.iterdir() if _ID.fullmatch(each.name)]
        except OSError:
            return ()
        found = [record for record in map(self._read, names) if record]
        return tuple(sorted(found, key=lambda record: (record.when, record.session), reverse=True))

    def find(self, prefix: str) -> Record:
        """Return the record of a session by its id, its name, or the unambiguous beginning of its id.

        Of more sessions of one name the newest counts. Raises UsageError.
        """
        kept = self.all()
        exact = [each for each in kept if each.session == prefix]
        named = [each for each in kept if prefix and each.facts and each.facts.name == prefix]
        begun = [each for each in kept if prefix and each.session.startswith(prefix)]
        found = exact or named[:1] or begun
        if len(found) == 1:
            return found[0]
        text = escape_control_chars(prefix)
        if found:
            raise UsageError(f'"{text}" is ambiguous: {", ".join(each.session for each in found)}; type more of the id')
        raise UsageError(f'nothing is kept of a session "{text}"')

    def remove(self, record: Record) -> None:
        """Remove a record, damaged or not, without following a link; absence is success. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISDIR(record.folder.lstat().st_mode):
                shutil.rmtree(record.folder)
            else:
                record.folder.unlink()

    def size(self) -> int:
        """Return the bytes of all records."""
        return sum(record.size for record in self.all())

    def trim(self, observer: Owner, spared: str = "") -> tuple[Record, ...]:
        """Remove the oldest records until all others are within LIMIT; return those that are gone.

        That of the session `spared`, those that still run, and those that cannot be removed are left. Those of sessions
        in the background of which nobody asked to keep more are left, too, and do not count.
        """
        kept = [record for record in self.all() if not (record.facts and record.facts.is_bare)]
        sizes = {record.session: record.size for record in kept}
        over, gone = sum(sizes.values()) - LIMIT, list[Record]()
        for record in reversed(kept):
            if over <= 0:
                break
            if record.session == spared or record.is_running(observer):
                continue
            with contextlib.suppress(OSError):
                self.remove(record)
                over -= sizes[record.session]
                gone.append(record)
        return tuple(gone)

    def _read(self, name: str) -> Record | None:
        folder = self.folder / name
        try:
            status = folder.lstat()
        except OSError:
            return None  # just removed
        bare = Record(name, folder, None, status.st_mtime)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            return bare
        facts = Facts.parse(bare.read(FACTS) or b"")
        return Record(name, folder, facts if facts and facts.session == name else None, status.st_mtime)


def now() -> datetime:
    """Return the time, in UTC and whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def _size(folder: Path) -> int:
    """Return the bytes of all files below a folder; a link counts as nothing, and leads nowhere."""
    total = 0
    for where, _, files in () if folder.is_symlink() else os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                status = (Path(where) / name).lstat()
                total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total
