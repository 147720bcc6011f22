"""What is copied into the containers, as deterministic tar streams."""

import io
import json
import re
import stat
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from claude_bottle.documents.escaping import harmless
from claude_bottle.errors import ManifestError
from claude_bottle.manifest.agent import Skill
from claude_bottle.process.container import HOME
from claude_bottle.repository.clone import WORKDIR

# Below the agent's home.
PROMPT = ".claude-bottle/prompt"  # a file, since an argument must not be longer than 128 KiB
CA = ".claude-bottle/ca.pem"  # all certificates that are trusted, where a bottle has some of its own
MORE_CA = ".claude-bottle/more-ca.pem"  # its own
_UID = 1000


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


def home(skills: Iterable[Skill], prompt: str | None, more: Iterable[Entry] = (), certificates: bytes = b"") -> bytes:
    """Return the tar stream that fills the agent's home: Claude's settings, the skills, the prompt, and `more`.

    `certificates`, in PEM, are to be trusted besides the image's own.

    Raises ManifestError where a skill's folder cannot be read.
    """
    entries = [
        Entry(".claude", mode=0o700),
        Entry(".claude.json", _json(_state())),
        Entry(".claude/settings.json", _json({"skipDangerousModePermissionPrompt": True})),
    ]
    for skill in skills:
        entries += _folder(skill.folder, f".claude/skills/{skill.name}")
    if prompt is not None or certificates:
        entries.append(Entry(str(Path(PROMPT).parent), mode=0o700))
    if prompt is not None:
        entries.append(Entry(PROMPT, prompt.encode(errors="surrogateescape")))
    if certificates:
        # wget asks no variable for it.
        entries += [Entry(MORE_CA, certificates), Entry(".wgetrc", f"ca_certificate = {HOME}/{CA}\n".encode())]
    return archive((*entries, *more), _UID)


def _state() -> dict[str, object]:
    # Without these each start shows four dialogs before the first prompt (anthropics/claude-code #8938).
    project = {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}
    done = {"hasCompletedOnboarding": True, "theme": "dark", "bypassPermissionsModeAccepted": True}
    return done | {"projects": {WORKDIR: project}}


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _folder(folder: Path, name: str) -> Iterator[Entry]:
    try:
        yield from _walk(folder.resolve(), name)
    except OSError as error:
        raise ManifestError(f"{harmless(str(error.filename))}: cannot be read: {error.strerror}") from None


def _walk(path: Path, name: str) -> Iterator[Entry]:
    """Yield a folder and what is in it; a link stays a link, so that nothing outside the folder is copied."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        yield Entry(name, link=str(path.readlink()))
    elif stat.S_ISDIR(mode):
        yield Entry(name, mode=0o755)
        for child in sorted(path.iterdir()):
            yield from _walk(child, f"{name}/{child.name}")
    elif stat.S_ISREG(mode):
        yield Entry(name, path.read_bytes(), 0o755 if mode & 0o100 else 0o644)
    # Sockets, pipes and devices hold nothing that could be copied.
