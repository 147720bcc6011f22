"""A skill's folder: what of it goes into a bottle, what stays behind, and how much it may be."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from claude_bottle.documents.files import MIB

MOST_SKILLS = 100  # of one agent
MOST_BYTES = 64 * MIB  # of all skills of an agent together: they are held in memory
MOST_FILES = 1000  # of one skill, and as many folders
DEEPEST = 32  # folders in one another
_SHOWN = 3  # names in a note
_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


@dataclass(frozen=True)
class Skill:
    """A skill by name, and its real folder, which holds SKILL.md; `notes` say what of it stays behind."""

    name: str
    folder: Path
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """A file, folder, link or anything else in a skill; `name` is its path below the skill's folder."""

    name: str
    path: Path
    mode: int
    size: int  # bytes of a file, else 0

    @property
    def target(self) -> str | None:
        """Return a link's target, unresolved; None for anything else. Raises OSError."""
        return str(self.path.readlink()) if stat.S_ISLNK(self.mode) else None

    @property
    def kind(self) -> str | None:
        """Return what it is if it holds nothing that could be copied."""
        return _KINDS.get(stat.S_IFMT(self.mode))


def parts(folder: Path) -> Iterator[Part]:
    """Yield what is in a skill's folder, each folder before its content, sorted; links are not followed.

    Raises OSError, or ValueError, one line without a path, if a skill is too large.
    """
    files = folders = size = 0
    waiting = _listed(folder, "")
    while waiting:
        part = waiting.pop()
        is_folder = stat.S_ISDIR(part.mode)
        files, folders, size = files + (not is_folder), folders + is_folder, size + part.size
        if max(files, folders) > MOST_FILES:
            raise ValueError(f"has more than {MOST_FILES:,} {'files' if files > folders else 'folders'}")
        if size > MOST_BYTES:
            raise ValueError(f"is larger than {MOST_BYTES // MIB} MiB")
        if is_folder and part.name.count("/") >= DEEPEST:
            raise ValueError(f"has more than {DEEPEST} folders inside one another")
        yield part
        if is_folder:
            waiting += _listed(part.path, f"{part.name}/")


def survey(name: str, folder: Path) -> tuple[Skill, int]:
    """Return the skill in a folder and its size in bytes; raises OSError or ValueError as `parts` does."""
    found = tuple(parts(folder))
    left = [f"{part.name} ({part.kind})" for part in found if part.kind]
    links = [f"{part.name} -> {part.target}" for part in found if part.target and _leads_out(part.name, part.target)]
    notes = (
        *_note(name, "not copied", left),
        *_note(name, "links copied without their targets", links),
    )
    return Skill(name, folder, notes), sum(part.size for part in found)


def _listed(folder: Path, prefix: str) -> list[Part]:
    """Return what is in a folder, the last name first; no more than is needed to see that it is too much."""
    with os.scandir(folder) as entries:
        found = [_part(prefix + entry.name, Path(entry.path)) for entry in islice(entries, 2 * MOST_FILES + 1)]
    return sorted(found, key=lambda part: part.name, reverse=True)


def _part(name: str, path: Path) -> Part:
    status = path.lstat()
    return Part(name, path, status.st_mode, status.st_size if stat.S_ISREG(status.st_mode) else 0)


def _leads_out(name: str, target: str) -> bool:
    """Return whether a link leads out of its skill, as far as its text says: an absolute one always does."""
    where = os.path.normpath(Path(name).parent / target)
    return where.startswith(("/", "../")) or where == ".."


def _note(skill: str, what: str, names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return ()
    more = f", +{len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (f"skill {skill}: {what}: {', '.join(names[:_SHOWN])}{more}",)
