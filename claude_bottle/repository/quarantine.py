"""The quarantine: unpack and check a bundle from a bottle before any of it enters the user's repository."""

import os
import re
import shutil
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.errors import RepositoryError
from claude_bottle.host.console import Progress
from claude_bottle.process import wording
from claude_bottle.process.command import Result
from claude_bottle.process.deadline import Deadline
from claude_bottle.repository import git, packfile
from claude_bottle.repository import source as repository
from claude_bottle.repository.clone import OUT, Work
from claude_bottle.repository.git import Git

MIB = 1 << 20
BUNDLE = 1024 * MIB  # bytes of all bundles from a bottle
_OBJECT = 1024 * MIB  # bytes of one object: ten gigabytes of zeros are ten megabytes in a bundle
_OBJECTS = 2_000_000  # of a bundle: each costs git and the disk more than its size
UNPACKED = 1024 * MIB  # bytes of all objects of a hand-back together
PATHS = 1_000_000  # changed by all commits of a hand-back together
_SECONDS = 300.0  # for each command on data from a bottle
_HEAD = 1 << 20  # bytes, at most, of a bundle's header
_NAMES = 40  # branches to try: the bottle's, then with -2, -3 ... if the agent rewrote fetched commits
_ATTEMPTS = 10  # to update a branch locked by another git
_PAUSE = 0.2  # seconds between two of them
_CHECKING = "checking what came back"
_STREAMED = "core.bigFileThreshold=64m"  # git streams larger files instead of loading them
_NAME = "quarantine"  # of its folder
_LANDED = "refs/heads/landed"  # exists once everything is checked
# Without any configuration that hides refs or adds a hook at the other end; git runs this in a shell.
_SERVED = (
    "--upload-pack=HOME=/nonexistent XDG_CONFIG_HOME=/nonexistent GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1"
    " git -c pack.threads=1 upload-pack"
)
# An agent's tag: enough for versions and words; a subset of git-check-ref-format(1).
_TAG = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._+-]*[A-Za-z0-9_+-])?(?<!\.lock)(?:/(?!$)|$))+")
_LONGEST_TAG = 100
# gitformat-bundle(5), without the filters of a partial clone; a prerequisite may be followed by its subject.
_BUNDLE = re.compile(
    rb"(?:# v2 git bundle\n|# v3 git bundle\n@object-format=(?:sha1|sha256)\n)"
    rb"(?:-[0-9a-f]{40,64}(?: [^\n]*)?\n)*([0-9a-f]{40}|[0-9a-f]{64}) ([^\n]*)\n\n"
)


@dataclass
class Room:
    """The remaining limits of one hand-back, for all its commits together."""

    unpacked: int  # bytes
    paths: int
    _widened: bool = False

    def take(self, size: int, theirs: Git) -> None:
        """Take room for an object of `size` bytes; raises RepositoryError if there is not enough.

        The total is UNPACKED bytes, or the unpacked size of the user's repository if that is larger.
        """
        self.unpacked -= size
        if self.unpacked < 0 and not self._widened:
            self._widened = True
            self.unpacked += max(0, _size(theirs) - UNPACKED)
        if self.unpacked < 0:
            raise RepositoryError(
                f"it unpacks to more than {UNPACKED // MIB} MiB, and to more than the whole repository"
            )


@dataclass(frozen=True)
class Quarantine:
    """An empty repository with the user's objects as an alternate, and only its own configuration."""

    git: Git
    work: Work
    theirs: Git  # the user's repository

    @classmethod
    def make(cls, folder: Path, work: Work, env: Mapping[str, str], deadline: Deadline) -> "Quarantine":
        """Make it in `folder`; raises RepositoryError if the user's repository is unusable, EngineError without git."""
        opened = repository.opened(work.repository, env, deadline)
        theirs = replace(opened, what="fetching into the repository", bounded=True)
        own, lonely = folder / _NAME, git.nobodys(env)
        form = theirs.text("rev-parse", "--show-object-format")
        first = Git(folder, lonely, deadline=deadline, bounded=True)
        first.text("init", "--quiet", "--bare", "--template=", f"--object-format={form}", str(own))
        (own / "objects" / "info").mkdir(exist_ok=True)
        (own / "objects" / "info" / "alternates").write_bytes(bytes(repository.objects(theirs)) + b"\n")
        if cut := repository.shallow(theirs):
            (own / "shallow").write_bytes(cut)
        return cls(Git(own, lonely, _CHECKING, deadline, bounded=True), work, theirs)

    def admit(self, bundle: IO[bytes], room: Room) -> str:
        """Unpack and check a bundle; return its commit. Raises RepositoryError if any check fails.

        The bundle takes from `room`, and is not unpacked if that is not enough.
        """
        tip = opened(bundle)
        self._weigh(bundle, tip, room)
        words = ("-c", _STREAMED, "index-pack", "--stdin", "--fix-thin", "--strict", f"--max-input-size={BUNDLE}")
        unpacked = self.git.run(*words, source=bundle, timeout=_SECONDS)
        if not unpacked.ok:
            raise RepositoryError(f"git refuses the bundle: {git.reason(unpacked)}")
        if self.git.run("cat-file", "-t", tip).stdout != b"commit\n":
            raise RepositoryError("the bundle's branch has no commit")
        walked = self.git.run("rev-list", "--objects", "--quiet", tip, "--not", self.work.commit, timeout=_SECONDS)
        if not walked.ok:
            raise RepositoryError(f"the bundle is incomplete: {git.reason(walked)}")
        self._count(tip, room)
        self.git.text("update-ref", _LANDED, tip)
        return tip

    def land(self, tip: str, session: str, taken: Collection[str] = ()) -> str:
        """Fetch the admitted commit into a branch of the user's repository; return the branch's name.

        The branch is the work's, or `bottle/<session>`, which only moves forward; if it cannot, or is `taken` by
        another commit, the same with -2, -3 ... Raises RepositoryError if git refuses, or all of them are taken.
        """
        result, first = None, self.work.back(session)
        # Of a list of tasks another one may be called so: after a dot none is.
        mark = "." if self.work.branch else "-"
        for branch in (first, *(f"{first}{mark}{number}" for number in range(2, _NAMES + 1))):
            if branch in taken:
                continue
            before = self._there(f"refs/heads/{branch}")
            if before and self._leads(tip, before):  # the user has gone on from it
                return branch
            if before and not self._leads(before, tip):
                continue
            result = self._unlocked(f"refs/heads/{branch}")
            if result.ok:
                return branch
            # git fetch --quiet does not say so if the branch has moved meanwhile.
            if self._there(f"refs/heads/{branch}") == before and not wording.says(wording.CHECKED_OUT, result.stderr):
                break
        why = git.reason(result) if result else f"{first} and its successors are taken"
        raise RepositoryError(f"git cannot fetch: {why}")

    def require(self, tip: str, known: Iterable[str]) -> None:
        """Raise RepositoryError if a commit is in the history of none of `known`: a bottle may name any commit."""
        if not any(self._leads(tip, each) for each in known):
            raise RepositoryError("it has no commit that came out of the bottle")

    def mark(self, tip: str, tag: str) -> str:
        """Fetch a commit, admitted or already present, into a tag of the user's repository; return the tag's name.

        Raises RepositoryError if the tag exists at another commit, or git refuses.
        """
        ref = f"refs/tags/{tag}"
        before = self._there(ref)
        if before and before != tip:
            raise RepositoryError(f"{tag} exists already, at another commit")
        if not before:
            if self.git.run("cat-file", "-t", tip).stdout != b"commit\n":
                raise RepositoryError("it has no commit")
            self.git.text("update-ref", _LANDED, tip)
            result = self._unlocked(ref)
            if not result.ok:
                raise RepositoryError(f"git cannot fetch: {git.reason(result)}")
        return tag

    def _unlocked(self, ref: str) -> Result:
        """Fetch, with further attempts while another git has the ref locked."""
        for _ in range(_ATTEMPTS - 1):
            result = self._fetch(ref)
            if result.ok or not wording.says(wording.LOCKED, result.stderr):
                return result
            time.sleep(_PAUSE)
        return self._fetch(ref)

    def _fetch(self, ref: str) -> Result:
        words = ("fetch", "--quiet", "--no-tags", "--no-auto-gc", "--no-recurse-submodules", "--no-write-fetch-head")
        spec = f"{_LANDED}:{ref}"
        # Regardless of the user's configuration: this one branch, from this very folder.
        settings = ("protocol.file.allow=always", "fetch.prune=false", "fetch.fsckObjects=true", "fetch.unpackLimit=1")
        given = (word for setting in (*settings, _STREAMED) for word in ("-c", setting))
        folder = str(self.git.path)
        # No other url.*.insteadOf can match a longer part of the path than this one.
        itself = {"COUNT": "1", "KEY_0": f"url.{folder}.insteadOf", "VALUE_0": folder}
        more = {**git.WARY, **{f"GIT_CONFIG_{key}": value for key, value in itself.items()}}
        return self.theirs.run(*given, *words, _SERVED, folder, spec, timeout=_SECONDS, more=more)

    def _there(self, ref: str) -> str:
        """Return the commit of a ref in the user's repository; empty if there is none."""
        there = self.theirs.run("rev-parse", "--quiet", "--verify", f"{ref}^{{commit}}")
        return git.text(there.stdout) if there.ok else ""

    def _leads(self, before: str, after: str) -> bool:
        return self.git.run("merge-base", "--is-ancestor", before, after, timeout=_SECONDS).ok

    def _weigh(self, bundle: IO[bytes], tip: str, room: Room) -> None:
        """Raise RepositoryError for a bundle that would unpack to more than the limits, of one object or of all."""
        progress = Progress(_CHECKING)
        start = os.lseek(bundle.fileno(), 0, os.SEEK_CUR)
        try:
            for size in packfile.sizes(bundle.fileno(), start, len(tip) // 2):
                self.git.deadline.left()
                if size > _OBJECT:
                    raise RepositoryError(
                        f"an object in it unpacks to {size // MIB} MiB, more than the limit of {_OBJECT // MIB} MiB"
                    )
                room.take(size, self.theirs)
                progress.tick()
        finally:
            progress.close()

    def _count(self, tip: str, room: Room) -> None:
        """Raise RepositoryError for a commit that changes too many paths: a few objects can contain any number."""

        def take(_: bytes) -> None:
            room.paths -= 1
            if room.paths < 0:
                raise RepositoryError(f"it changes more than {PATHS} files")

        words = ("diff-tree", "-r", "-z", "--name-only", "--no-renames", "--no-ext-diff", self.work.commit, tip)
        listed = self.git.each(*words, take=take, end=b"\0", timeout=_SECONDS)
        if not listed.ok:
            raise RepositoryError(f"its files cannot be counted: {git.reason(listed)}")


def _size(theirs: Git) -> int:
    """Return the unpacked size of all objects of a repository in bytes, 0 if unknown."""
    total = 0

    def take(line: bytes) -> None:
        nonlocal total
        total += int(line) if line.isdigit() else 0

    words = ("cat-file", "--batch-all-objects", "--unordered", "--buffer", "--batch-check=%(objectsize)")
    return total if theirs.each(*words, take=take, timeout=_SECONDS).ok else 0


def tag_of(session: str, name: str) -> str:
    """Return the name of an agent's tag in the user's repository; raises RepositoryError for an odd one."""
    if not _TAG.fullmatch(name) or ".." in name or len(name) > _LONGEST_TAG:
        raise RepositoryError(
            "its name is not accepted: rename it in the bottle, to letters and digits with . _ + - / between them"
        )
    return f"bottle/{session}/{name}"


def admitted(folder: Path) -> bool:
    """Return whether the quarantine in `folder` contains a commit that passed all checks."""
    return (folder / _NAME / _LANDED).exists()


def discard(folder: Path) -> None:
    """Remove the quarantine in `folder`, if there is one."""
    shutil.rmtree(folder / _NAME, ignore_errors=True)


def opened(bundle: IO[bytes]) -> str:
    """Read a bundle's header and return the commit of its only ref; raises RepositoryError if it is not valid.

    The file's position is then the beginning of the pack.
    """
    bundle.seek(0)
    head = _BUNDLE.match(bundle.read(_HEAD))
    if not head:
        raise RepositoryError("the bottle's output is not a git bundle with one branch")
    if head[2] != OUT.encode():
        raise RepositoryError(
            f"the bundle has an unexpected ref, {escape_control_chars(head[2].decode(errors='replace'))}"
        )
    if (many := packfile.count(bundle.fileno(), head.end())) > _OBJECTS:
        raise RepositoryError(f"the bundle has {many} objects, more than the limit of {_OBJECTS}")
    os.lseek(bundle.fileno(), head.end(), os.SEEK_SET)  # of the descriptor, from which another process continues
    return head[1].decode()
