"""The clone in a bottle, as data: its names, the commands that make it, the label that identifies its work."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from claude_bottle.documents.escaping import from_utf8, to_utf8
from claude_bottle.host import installation
from claude_bottle.manifest.git_identity import Identity
from claude_bottle.process.container import execute
from claude_bottle.process.stream import Feed

Argv = tuple[str, ...]

WORKDIR = "/work"  # the working directory in the bottle, and the clone's if the session has a repository
OUT = "refs/claude-bottle/out"  # the only ref in a bundle from a bottle
# For every git command on the host: no hook, no file monitor, no automatic maintenance. Each could run a program that
# came from a bottle, once its branch was merged. An empty core.fsmonitor disables it in old and new versions alike.
SETTINGS = (
    *("--no-optional-locks", "--no-replace-objects"),
    *("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=", "-c", "gc.auto=0", "-c", "maintenance.auto=false"),
)
# Packs the history of the commits on stdin.
PACK = ("pack-objects", "--revs", "--stdout", "--delta-base-offset", "--quiet")
_OID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_BRANCH = re.compile(r"bottle/[a-z0-9-]+/[a-z0-9-]+")


@dataclass(frozen=True)
class Wanted:
    """The user's choice: a repository, a revision of it, and whether to include uncommitted changes.

    `branch` is that of the work if it is not to have the session's name.
    """

    path: Path
    ref: str = "HEAD"
    with_changes: bool = False
    branch: str = ""


@dataclass(frozen=True)
class Work:
    """A bottle's work: the repository it returns to, the last commit in common, and the bottle's first commit.

    `commit` and `start` differ if uncommitted changes were included: `start` is then a commit of them. `branch` is as
    in `Wanted`.
    """

    repository: Path
    commit: str
    start: str
    branch: str = ""

    def back(self, session: str) -> str:
        """Return the name of the branch that the work of a session is on."""
        return self.branch or f"bottle/{session}"

    @property
    def label(self) -> str:
        """Return the value of the container label from which other commands read a session's work, as UTF-8."""
        mark = f":{self.branch}" if self.branch else ""  # no name of a commit or a branch has a colon
        return f"{self.commit} {self.start}{mark} {to_utf8(str(self.repository))}"

    @classmethod
    def of_label(cls, text: str) -> "Work | None":
        """Parse a label; return None if it is not one of `label`."""
        commit, _, rest = text.partition(" ")
        start, _, path = rest.partition(" ")
        start, mark, branch = start.partition(":")
        whole = is_oid(commit) and is_oid(start) and path and bool(_BRANCH.fullmatch(branch)) == bool(mark)
        return cls(Path(from_utf8(path)), commit, start, branch) if whole else None


@dataclass(frozen=True)
class Repository:
    """A user's repository at the time the session was planned."""

    work: Work
    ref: str  # for display: the branch or revision, and the abbreviated commit
    shallow: bytes = field(default=b"", repr=False)  # git's `shallow` file: the commits without parents here
    origin: str = ""
    author: Identity = field(default_factory=Identity)  # the repository's user.name and user.email
    notes: tuple[str, ...] = ()  # for the preflight: what is included, and what is not
    asked: str = "HEAD"  # the revision as the user named it
    with_changes: bool = False  # uncommitted changes are wanted, whether there are any or not


def is_oid(text: str) -> bool:
    """Return whether `text` is a full object id, SHA-1 or SHA-256."""
    return bool(_OID.fullmatch(text))


def command(container: str, repository: Repository, branch: str) -> Argv:
    """Return the command that makes the clone in a container; its stdin is `head`, then the output of `pack`."""
    words = (branch, repository.work.start, repository.origin)
    return execute(container, "/bin/bash", "-c", script("clone.sh"), "bash", *words)


def script(name: str) -> str:
    """Return a shell script for the bottle, without its leading comment."""
    return installation.text(Path(__file__).with_name(name))


def header(oid: str, branch: str) -> bytes:
    """Return the header of a bundle (gitformat-bundle(5)) that has a commit as a branch; what PACK prints follows."""
    version = "# v2 git bundle\n" if len(oid) == 40 else "# v3 git bundle\n@object-format=sha256\n"
    return f"{version}{oid} refs/heads/{branch}\n\n".encode()


def head(repository: Repository, branch: str) -> bytes:
    """Return the input before git's pack: the shallow file, and the header of a bundle."""
    return repository.shallow + b"\n" + header(repository.work.start, branch)


def pack(repository: Repository) -> Feed:
    """Return the git command that packs the history, the rest of the bundle."""
    argv = ("git", "-C", str(repository.work.repository), *SETTINGS, *PACK)
    return Feed(argv, f"{repository.work.start}\n".encode())


def without_secret(url: str) -> str:
    """Return a remote's URL without any password or token."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url  # host:path, or a path
    host, slash, path = rest.partition("/")
    user, _, name = host.rpartition("@")
    if scheme.lower() in ("http", "https"):
        return f"{scheme}://{name}{slash}{path.partition('?')[0]}"  # over HTTP the user name may be a token
    return f"{scheme}://{user.partition(':')[0]}{'@' if user else ''}{name}{slash}{path}"
