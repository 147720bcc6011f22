"""A task's payload: one start as a tar of plain files, which holds no secret, only the names of those it needs."""

import io
import json
import os
import shutil
import stat
import tarfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from claude_bottle.documents.files import opened
from claude_bottle.errors import UsageError

VERSION = 1
TASK, AGENTS, BUNDLE = "task.json", "agents", "repository.bundle"  # what a payload holds
_MOST = 8 << 30  # bytes of all files
_MOST_FILES = 200_000
_MOST_TASK = 1 << 20  # bytes of task.json


@dataclass(frozen=True)
class Task:
    """What is to be started, besides the manifests that come with it."""

    agent: str
    question: str = field(repr=False)
    secrets: tuple[str, ...] = ()  # names of variables, and of private keys
    settings: dict[str, str] = field(default_factory=dict)  # CLAUDE_BOTTLE_<name>
    time: int | None = None  # seconds
    commit: str = ""  # the bottle's first, in the repository's bundle; empty without a repository
    ref: str = ""  # the revision as its user named it
    origin: str = ""
    shallow: str = ""  # git's `shallow` file

    def as_json(self) -> bytes:
        """Return it as the content of task.json."""
        return json.dumps({"version": VERSION, **asdict(self)}, indent=2, ensure_ascii=False).encode()

    @classmethod
    def parse(cls, data: bytes) -> "Task":
        """Return the task in a task.json; raises UsageError if it is none of this version."""
        try:
            found = json.loads(data)
            version = found.pop("version")
            if version != VERSION:
                raise UsageError(f"the payload is of version {version!r}, and this launcher runs {VERSION}")
            return cls(**{**found, "secrets": tuple(found["secrets"])})
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UsageError(f"not a task's payload: {TASK} is damaged") from None


def write(task: Task, files: Mapping[str, bytes | Path], into: IO[bytes]) -> None:
    """Write a payload: the task first, then what the names in `files` stand for, a folder with all that is in it.

    Raises OSError.
    """
    with tarfile.open(fileobj=into, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for name, content in {TASK: task.as_json(), **files}.items():
            if isinstance(content, bytes):
                _add(tar, name, stat.S_IFREG | 0o644, io.BytesIO(content), len(content))
                continue
            _add_path(tar, name, content)
            for folder, folders, names in os.walk(content):
                folders.sort()  # in which order they are walked
                for each in sorted((*folders, *names)):
                    path = Path(folder, each)
                    _add_path(tar, f"{name}/{path.relative_to(content)}", path)


def read(source: IO[bytes], folder: Path) -> Task:
    """Unpack a payload into an empty folder of this user's own, and return its task.

    Raises UsageError if it is none, OSError if it cannot be written.
    """
    size = count = 0
    try:
        with tarfile.open(fileobj=source, mode="r|") as tar:
            for member in tar:
                size, count = size + member.size, count + 1
                if size > _MOST or count > _MOST_FILES:
                    raise UsageError("the payload is too large")
                _unpack(tar, member, folder)
    except tarfile.TarError as error:
        raise UsageError(f"not a task's payload: {error}") from None
    try:
        with (folder / TASK).open("rb") as file:
            return Task.parse(file.read(_MOST_TASK))
    except FileNotFoundError:
        raise UsageError(f"not a task's payload: it has no {TASK}") from None


def _add_path(tar: tarfile.TarFile, name: str, path: Path) -> None:
    status = path.lstat()
    if stat.S_ISREG(status.st_mode):
        with opened(path, _MOST, follow=False) as file:
            _add(tar, name, status.st_mode, file, os.fstat(file.fileno()).st_size)
    elif stat.S_ISLNK(status.st_mode):
        _add(tar, name, status.st_mode, link=str(path.readlink()))
    elif stat.S_ISDIR(status.st_mode):
        _add(tar, name, status.st_mode)


def _add(
    tar: tarfile.TarFile, name: str, mode: int, content: IO[bytes] | None = None, size: int = 0, link: str = ""
) -> None:
    """Add an entry with nothing of its user's; its mode is the one that the usual umask gives."""
    entry = tarfile.TarInfo(name)
    entry.mode = 0o755 if stat.S_ISDIR(mode) or mode & 0o111 else 0o644
    if stat.S_ISDIR(mode):
        entry.type = tarfile.DIRTYPE
    elif link:
        entry.type, entry.linkname = tarfile.SYMTYPE, link
    entry.size = size
    tar.addfile(entry, content)


def _unpack(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """Unpack a file, a folder or a link to below `folder`, through no link."""
    parts = PurePosixPath(member.name).parts
    if not parts or ".." in parts or member.name.startswith("/") or parts[0] not in (TASK, AGENTS, BUNDLE):
        raise UsageError(f"not a task's payload: it has {member.name!r}")
    path = folder.joinpath(*parts)
    above = [parent for parent in path.parents if parent.is_relative_to(folder)]
    if any(parent.is_symlink() for parent in above):
        raise UsageError(f"not a task's payload: {member.name!r} leads through a link")
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if member.isdir():
        path.mkdir(mode=0o755, exist_ok=True)
    elif member.issym():
        path.symlink_to(member.linkname)
    elif member.isreg() and (content := tar.extractfile(member)):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o755 if member.mode & 0o111 else 0o644)
        with os.fdopen(descriptor, "wb") as file:
            shutil.copyfileobj(content, file)
    else:
        raise UsageError(f"not a task's payload: {member.name!r} is no file")


def secrets(data: bytes) -> dict[str, str]:
    """Return the values of secrets by name, as `fleet secrets` prints them; raises UsageError."""
    try:
        found: Any = json.loads(data)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise UsageError("the secrets are not one JSON object of strings")
    return found
