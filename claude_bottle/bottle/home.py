"""What is copied into the containers, as deterministic tar streams."""

import io
import json
import re
import stat
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from claude_bottle.bottle import state, trust
from claude_bottle.documents import files
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.errors import ManifestError
from claude_bottle.manifest import skill
from claude_bottle.manifest.skill import Part, Skill
from claude_bottle.repository.clone import WORKDIR

# Below the agent's home.
FOLDER = ".claude-bottle"
MEMORY = ".claude/CLAUDE.md"  # Claude's own; an image may have one
PROMPT = f"{FOLDER}/prompt"  # a file, since an argument must not be longer than 128 KiB
CA = f"{FOLDER}/{trust.PEM}"  # all certificates that are trusted
JAVA_CA = f"{FOLDER}/{trust.JAVA}"  # the same for Java
TRUST = f"{FOLDER}/trust.py"  # writes both
MORE_CA = f"{FOLDER}/{trust.MORE}"
UID = 1000
_SKILLS = ".claude/skills"
# Claude names a project by its folder, every character but letters and digits of ASCII a hyphen.
_PROJECT = f".claude/projects/{re.sub('[^A-Za-z0-9]', '-', WORKDIR)}"


@dataclass(frozen=True)
class Entry:
    """One file, folder (`data` is None) or symbolic link (`link` is set) of a tar stream."""

    name: str
    data: bytes | None = None
    mode: int = 0o600
    link: str | None = None


def archive(entries: Iterable[Entry], uid: int) -> bytes:
    """Pack entries into a tar stream, all owned by `uid`; equal entries give equal bytes."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.uid = info.gid = uid
            info.mode = entry.mode
            if entry.link is not None:
                info.type, info.linkname = tarfile.SYMTYPE, entry.link
            elif entry.data is None:
                info.type = tarfile.DIRTYPE
            else:
                info.size = len(entry.data)
            tar.addfile(info, io.BytesIO(entry.data or b""))
    return stream.getvalue()


def certificates(pem: bytes) -> bytes:
    """Return the certificates of a PEM file, and nothing else that it may hold: a key, a comment, a password."""
    blocks = re.findall(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----", pem)
    return b"".join(block + b"\n" for block in blocks)


def home(
    skills: Iterable[Skill],
    prompt: str | None,
    more: Iterable[Entry] = (),
    certificates: bytes = b"",
    *,
    idle: bool = False,
) -> bytes:
    """Return the tar stream that fills the agent's home: Claude's settings, the skills, the prompt, and `more`.

    `certificates`, in PEM, are to be trusted besides the image's own; the program that sees to it is in the stream.
    `idle` is whether Claude begins by waiting for its user.

    Raises ManifestError where a skill's folder cannot be read.
    """
    entries = [
        Entry(".claude", mode=0o700),
        Entry(".claude.json", _json(_state())),
        Entry(".claude/settings.json", _json(_settings(idle=idle))),
        Entry(FOLDER, mode=0o700),
        Entry(state.FILE, state.first()),
        Entry(TRUST, Path(trust.__file__).read_bytes()),
        Entry(MORE_CA, certificates),
    ]
    for each in skills:
        entries += _folder(each.folder, f"{_SKILLS}/{each.name}")
    if prompt is not None:
        entries.append(Entry(PROMPT, prompt.encode(errors="surrogateescape")))
    return archive((*entries, *more), UID)


def conversation(name: str, data: bytes) -> tuple[Entry, ...]:
    """Return what lets Claude go on with a conversation of this id: its one file, no setting and no memory."""
    folders = (".claude/projects", _PROJECT)
    return (*(Entry(folder, mode=0o700) for folder in folders), Entry(f"{_PROJECT}/{name}.jsonl", data))


def skill_contents(home: bytes) -> dict[str, list[tuple[str, int, str, bytes]]]:
    """Return what `home` made of each skill, by its name: each part's name, mode, target of a link, and content."""
    found = dict[str, list[tuple[str, int, str, bytes]]]()
    with tarfile.open(fileobj=io.BytesIO(home)) as tar:
        for part in tar:
            if part.name.startswith(f"{_SKILLS}/"):
                file = tar.extractfile(part) if part.isfile() else None
                entry = (part.name, part.mode, part.linkname, file.read() if file else b"")
                found.setdefault(part.name.split("/")[2], []).append(entry)
    return found


def _state() -> dict[str, object]:
    # Without these each start shows four dialogs before the first prompt (anthropics/claude-code #8938).
    project = {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}
    done = {"hasCompletedOnboarding": True, "theme": "dark", "bypassPermissionsModeAccepted": True}
    return done | {"projects": {WORKDIR: project}}


def _settings(*, idle: bool) -> dict[str, object]:
    return {"skipDangerousModePermissionPrompt": True, "hooks": state.hooks(idle=idle)}


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _folder(folder: Path, name: str) -> Iterator[Entry]:
    yield Entry(name, mode=0o755)
    try:
        for part in skill.parts(folder.resolve()):
            yield from _entry(part, f"{name}/{part.name}")
    except OSError as error:
        raise ManifestError(f"{escape_control_chars(str(error.filename))}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ManifestError(f"{escape_control_chars(str(folder))}: {error}") from None


def _entry(part: Part, name: str) -> Iterator[Entry]:
    """Yield a part of a skill; a link stays a link, so that nothing outside the folder is copied."""
    if part.target is not None:
        yield Entry(name, link=part.target)
    elif stat.S_ISDIR(part.mode):
        yield Entry(name, mode=0o755)
    elif stat.S_ISREG(part.mode):
        # The user's umask says nothing of the bottle's user: all may read.
        yield Entry(name, files.read(part.path, skill.MOST_BYTES), 0o755 if part.mode & 0o100 else 0o644)
    # Sockets, pipes and devices hold nothing that could be copied.
