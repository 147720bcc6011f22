"""A repository on its way into a bottle, and what comes back from it: names and commands, as data."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from claude_bottle.manifest.git_identity import Identity
from claude_bottle.process.container import execute
from claude_bottle.process.stream import Feed

Argv = tuple[str, ...]

WORKDIR = "/work"  # the working directory in the bottle, and the repository there is one
OUT = "refs/claude-bottle/out"  # what comes back: the one ref of a bundle out of a bottle
# Whatever git is asked on the host, it starts no hook and no file monitor, and tidies nothing up: what it starts could
# be of a bottle's making, once its branch was merged. An empty core.fsmonitor is none to old and new versions alike.
SETTINGS = (
    *("--no-optional-locks", "--no-replace-objects"),
    *("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=", "-c", "gc.auto=0", "-c", "maintenance.auto=false"),
)
_OID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class Wanted:
    """What the user wants taken in: a repository, one of its revisions, and whether uncommitted changes come along."""

    path: Path
    ref: str = "HEAD"
    with_changes: bool = False


@dataclass(frozen=True)
class Work:
    """A bottle's work: the repository that it goes back to, the commit it has in common with it, and where it began.

    `commit` and `start` differ where uncommitted changes were taken along: `start` is then a commit of these.
    """

    repository: Path
    commit: str
    start: str

    @property
    def label(self) -> str:
        """Return the label by which another command finds the work of a session."""
        return f"{self.commit} {self.start} {self.repository}"

    @classmethod
    def of_label(cls, text: str) -> "Work | None":
        """Return the work that a label tells; None where it tells none."""
        commit, _, rest = text.partition(" ")
        start, _, path = rest.partition(" ")
        return cls(Path(path), commit, start) if is_oid(commit) and is_oid(start) and path else None


@dataclass(frozen=True)
class Repository:
    """A user's repository as it was found when the session was planned."""

    work: Work
    ref: str  # as a person knows it
    shallow: bytes = field(default=b"", repr=False)  # git's file of that name: where a history was cut off
    origin: str = ""
    author: Identity = field(default_factory=Identity)  # who commits there
    notes: tuple[str, ...] = ()  # what the user is to know of it: what stays behind


def is_oid(text: str) -> bool:
    """Tell whether `text` is the full name of an object."""
    return bool(_OID.fullmatch(text))


def command(container: str, repository: Repository, branch: str) -> Argv:
    """Return the command that makes the clone in a container."""
    words = (branch, repository.work.start, repository.origin)
    return execute(container, "/bin/bash", "-c", script("clone.sh"), "bash", *words)


def script(name: str) -> str:
    """Return a shell script for the bottle, less the comment that it begins with."""
    return "\n" + Path(__file__).with_name(name).read_text(encoding="utf-8").partition("\n\n")[2]


def head(repository: Repository, branch: str) -> bytes:
    """Return what goes in before git's pack: the shallow file, and the head of a bundle (gitformat-bundle(5))."""
    oid = repository.work.start
    version = "# v2 git bundle\n" if len(oid) == 40 else "# v3 git bundle\n@object-format=sha256\n"
    return repository.shallow + f"\n{version}{oid} refs/heads/{branch}\n\n".encode()


def pack(repository: Repository) -> Feed:
    """Return git's command that packs a history, the rest of the bundle."""
    words = ("pack-objects", "--revs", "--stdout", "--delta-base-offset", "--quiet")
    argv = ("git", "-C", str(repository.work.repository), *SETTINGS, *words)
    return Feed(argv, f"{repository.work.start}\n".encode())


def without_secret(url: str) -> str:
    """Return a remote's URL without a password or token that it may hold."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url  # host:path, or a path
    host, slash, path = rest.partition("/")
    user, _, name = host.rpartition("@")
    if scheme.lower() in ("http", "https"):
        return f"{scheme}://{name}{slash}{path.partition('?')[0]}"  # here the user may be the token
    return f"{scheme}://{user.partition(':')[0]}{'@' if user else ''}{name}{slash}{path}"
