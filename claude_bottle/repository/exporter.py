"""Export the work from a bottle: commit uncommitted changes, list the commits, bundle them, print a diff.

Runs in the bottle as the agent's user, while the agent's processes may still run. It is sent to Python over stdin, with
a command and its arguments: hence Python 3.9, the standard library alone, and no import of claude_bottle.

The agent may have left git in any state. A `.git` that is broken or read-only is not touched: a repository of our own,
without filters, borrows its objects. An index that is locked or broken is replaced by one of our own. No hooks, no
signatures, no file monitor.

`keep` prints JSON objects, one per line, each as soon as it is known, so that it survives a hang; `bundle` prints a git
bundle, `diff` a patch, `forget` nothing.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Callable  # noqa: UP035  (Python 3.9)

PART = 9  # exit status of an incomplete diff
_LARGE = 20  # large files listed, at most
_COMMITS = 100  # commits without a branch listed, at most, and as many branches
_PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds between attempts to fork at the process limit, as in bash
_NESTED = 1000  # nested repositories listed, at most
_TEXT = 1000  # characters of a printed field, at most
_BLOCK = 1 << 16  # bytes
_SETTINGS = (
    *("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=", "-c", "gc.auto=0"),
    *("-c", "advice.addEmbeddedRepo=false"),
)
_REDIRECTS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # variables that redirect git to our own repository
_COPIED = ("packed-refs", "refs", "logs")
_RAW = "-text -working-tree-encoding -ident"  # disables the attributes that can make git refuse a file
_UNDER_WAY = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "rebase-apply")
_MESSAGE = b"""Keep what was left uncommitted

Made by claude-bottle as the work was fetched out of the bottle: no commit of the agent's.
"""
_IDENTITY = (("NAME", "claude-bottle"), ("EMAIL", "claude-bottle@localhost"))
_CHECKOUT = re.compile(r"([0-9a-f]{40}|[0-9a-f]{64}) .*\tcheckout: moving from ([^ ]*) to .*")

Done = subprocess.CompletedProcess


@dataclass
class Git:
    """Git in one folder; `env` is its whole environment."""

    folder: str
    env: dict[str, str]

    def argv(self, *words: str) -> tuple[str, ...]:
        """Return a git command with the settings that disable hooks and file monitors."""
        return ("git", *_SETTINGS, *words)

    def run(self, *words: str, stdin: bytes = b"") -> Done[bytes]:
        """Run a command to its end; if it cannot start, as in a missing folder, the exit status is 127."""
        argv, pipe = self.argv(*words), subprocess.PIPE
        try:
            process = self._start(argv, stdin=pipe, stdout=pipe, stderr=pipe)
        except OSError as error:
            return Done(argv, 127, b"", f"{_permanent(error)}\n".encode("utf-8", "surrogateescape"))
        with process:
            out, err = process.communicate(stdin)
        return Done(argv, process.returncode, out, err)

    def _start(self, argv: Sequence[str], **pipes: int | None) -> subprocess.Popen[bytes]:
        """Start a command; retry while the bottle is at its process limit."""
        pauses = iter(_PAUSES)
        while True:
            try:
                return subprocess.Popen(argv, cwd=self.folder, env=self.env, **pipes)  # type: ignore[call-overload, no-any-return]
            except BlockingIOError:
                pause = next(pauses, None)
                if pause is None:
                    raise
            time.sleep(pause)

    def ok(self, *words: str) -> bool:
        """Return whether a command succeeds."""
        return self.run(*words).returncode == 0

    def text(self, *words: str) -> str:
        """Return a command's output without trailing newlines; "" if it fails."""
        done = self.run(*words)
        return _text(done.stdout).rstrip("\n") if done.returncode == 0 else ""

    def items(self, *words: str) -> Iterator[str]:
        """Yield the NUL-terminated items of a command's output as they arrive; there may be a million."""
        null, rest = subprocess.DEVNULL, b""
        try:
            process = self._start(self.argv(*words), stdin=null, stdout=subprocess.PIPE, stderr=null)
        except OSError as error:
            _permanent(error)
            return
        with process:
            for block in iter(lambda: process.stdout.read(_BLOCK), b""):  # type: ignore[union-attr]  # it is a pipe
                *whole, rest = (rest + block).split(b"\0")
                yield from map(_text, whole)

    def run_attached(self, *words: str) -> int:
        """Run a command with our own stdout and stderr; return its exit status."""
        with self._start(self.argv(*words), stdin=subprocess.DEVNULL) as process:
            return process.wait()

    def object_id(self, revision: str) -> str:
        """Return the full id of an object; "" if it does not exist."""
        return self.text("rev-parse", "--quiet", "--verify", revision)

    def toplevel(self) -> str:
        """Return the root of the work tree; "" without one."""
        return self.text("rev-parse", "--show-toplevel")

    def ignores(self, path: str) -> bool:
        """Return whether git does not look at a path: it is ignored, or within a submodule."""
        return (
            self.run("check-ignore", "--quiet", "--", f"./{path}").returncode != 1
        )  # "./" since a leading ":" is pathspec magic

    def in_folder(self, folder: str) -> Git:
        """Return git in another folder, with the repository found there."""
        env = {name: value for name, value in self.env.items() if name not in _REDIRECTS}
        return Git(folder, {**env, "PWD": folder})


class WorkTree:
    """A work tree, with as much of the agent's git as is usable."""

    def __init__(self, git: Git, git_dir: str, task: Task) -> None:
        """Use the agent's repository `git_dir` as it is; see `opened`."""
        self.git, self.git_dir, self.task = git, git_dir, task
        self.index = ""  # path of the agent's own index
        self.nested: list[str] = []  # nested repositories replaced by their files in the index
        self.stderr = self.error = ""  # git's output for the last and the first failed operation

    @classmethod
    def opened(cls, folder: str, task: Task) -> WorkTree | None:
        """Return the bottle's main work tree; None if it cannot be used at all."""
        git = Git(folder, {**os.environ, "PWD": folder})
        top = git.toplevel()
        if not top:  # the agent's own configuration may be the cause
            git.env.update(GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_NOSYSTEM="1")
            top = git.toplevel()
        tree = cls(git, os.path.join(folder, ".git"), task)
        if _same(top, folder):
            tree.git_dir = git.text("rev-parse", "--absolute-git-dir")
        elif not tree.use_own_repository():
            return None
        tree.index = os.path.join(folder, git.text("rev-parse", "--git-path", "index"))
        return tree

    def use_own_repository(self, at: str = "", attributes: str = "") -> bool:
        """Use a repository of our own from now on; return whether it could be created.

        `at` is the commit of its HEAD, by default the agent's; `attributes` are git attributes for all files, besides
        the one that disables filters.
        """
        made, env = os.path.join(_temporary(), ".claude-bottle.git"), self.git.env
        env.update(GIT_DIR=made, GIT_WORK_TREE=self.git.folder)
        form = "sha1" if len(self.task.start) == 40 else "sha256"
        done = self.git.run("init", "--quiet", f"--object-format={form}")
        if done.returncode != 0:
            print(_text(done.stderr), end="", file=sys.stderr)
            del env["GIT_DIR"], env["GIT_WORK_TREE"]
            return False
        self._fill(made, attributes)
        at = at or _read(os.path.join(self.git_dir, "HEAD"))
        at = self.git.object_id(f"{_head_target(at)}^{{commit}}") or self.task.start
        self.git.run("update-ref", "--no-deref", "HEAD", at)
        if not env.get("GIT_INDEX_FILE"):
            self.git.run("read-tree", "HEAD")  # else files that are tracked and ignored would be lost
        return True

    def _fill(self, made: str, attributes: str) -> None:
        """Borrow the objects of the agent's repository; copy its refs, logs and excludes, but no configuration."""
        with suppress(OSError):
            os.makedirs(f"{made}/info", exist_ok=True)
        _write(f"{made}/objects/info/alternates", f"{self.git_dir}/objects")
        for name in _COPIED:
            _remove(f"{made}/{name}")
            _copy(f"{self.git_dir}/{name}", f"{made}/{name}")
        if not self.git.ok("for-each-ref"):
            for name in _COPIED:
                _remove(f"{made}/{name}")
            with suppress(OSError):
                os.mkdir(f"{made}/refs")
        _copy(f"{self.git_dir}/info/exclude", f"{made}/info/exclude")
        _write(f"{made}/info/attributes", f"* -filter {attributes}")
        _copy(f"{self.git_dir}/shallow", f"{made}/shallow")

    def use_index_copy(self) -> bool:
        """Use a copy of the agent's index from now on; return True."""
        self.git.env["GIT_INDEX_FILE"] = self.task.index()
        with suppress(OSError):
            shutil.copy2(self.index, self.git.env["GIT_INDEX_FILE"])
        return True

    def use_new_index(self) -> bool:
        """Use a new index with the files of HEAD from now on; return True."""
        self.git.env["GIT_INDEX_FILE"] = self.task.index()
        self.git.run("read-tree", "HEAD")
        return True

    def has_readable_index(self) -> bool:
        """Return whether git can read the index."""
        return self.git.ok("ls-files")

    def has_operation_under_way(self) -> bool:
        """Return whether a merge, rebase or the like is under way, whose index must stay as it is."""
        return any(os.path.exists(os.path.join(os.path.dirname(self.index), name)) for name in _UNDER_WAY)

    def add_all(self) -> bool:
        """Add the whole work tree to the index, nested repositories included, as their files.

        Return whether everything was added; if not, `stderr` says why.
        """
        done = add(self.git, self.task.size)
        self.stderr = _text(done.stderr)
        if done.returncode != 0:
            return False
        self.nested, self.stderr, good, over = [], "", True, list[str]()
        for at in sorted(self._nested_folders(), key=os.fsencode):
            good = self._replace_nested(at, over) and good
        return good

    def _nested_folders(self) -> Iterator[str]:
        """Yield the folders of nested repositories and of submodules that are not checked out."""
        yield from nested(self.git.folder)
        for item in self.git.items("ls-files", "--stage", "-z"):
            mode, _, path = item.partition("\t")
            if mode.startswith("160000 ") and not os.path.exists(os.path.join(self.git.folder, path, ".git")):
                yield path

    def _replace_nested(self, at: str, over: list[str]) -> bool:
        """Replace the index entry of a nested repository or submodule by its files; return whether that worked.

        A known one (see `is_known`) stays, with everything below it, and is added to `over`.
        """
        path = os.path.join(self.git.folder, at)
        skipped = not os.path.isdir(path) or os.path.islink(path) or self.git.ignores(at)
        if skipped or any(at.startswith(f"{each}/") for each in over):
            return True
        if self.is_known(at):
            over.append(at)
            return True
        tree = self._write_nested_tree(at)
        if not tree:
            return False
        if tree == self.git.text("hash-object", "-t", "tree", "/dev/null"):
            return True
        tracked = self.git.items("--literal-pathspecs", "ls-files", "-z", "--", at)
        removed = self._ran("update-index", "-z", "--force-remove", "--stdin", stdin=_joined(tracked))
        if not removed or not self._ran("read-tree", f"--prefix={at}/", tree):
            return False
        self.nested.append(at)
        return True

    def _ran(self, *words: str, stdin: bytes = b"") -> bool:
        done = self.git.run(*words, stdin=stdin)
        self.stderr += _text(done.stderr)
        return done.returncode == 0

    def _write_nested_tree(self, at: str) -> str:
        """Write the tree of a folder, as if it were a work tree of its own; return the tree's id, "" on failure."""
        folder = os.path.join(self.git.folder, at)
        own = {
            "GIT_DIR": self.git.text("rev-parse", "--absolute-git-dir"),
            "GIT_WORK_TREE": folder,
            "GIT_INDEX_FILE": self.task.index(),
        }
        inner = Git(folder, {**self.git.env, **own, "PWD": folder})
        inner.run("read-tree", self.git.object_id(f"HEAD:{at}"))
        done = add(inner, self.task.size)
        self.stderr += _text(done.stderr)
        if done.returncode != 0:
            return ""
        written = inner.run("write-tree")
        self.stderr += _text(written.stderr)
        return _text(written.stdout).rstrip("\n") if written.returncode == 0 else ""

    def is_known(self, at: str) -> bool:
        """Return whether a folder is an unchanged submodule, or a linked work tree, which is exported separately."""
        path = os.path.join(self.git.folder, at)
        alone, link = self.git.in_folder(path), os.path.join(path, ".git")
        if not os.path.exists(link) or not _same(alone.toplevel(), path):
            return False
        if _same(alone.text("rev-parse", "--path-format=absolute", "--git-common-dir"), self.git_dir):
            own = alone.text("rev-parse", "--absolute-git-dir")
            if _same(_read(os.path.join(own, "gitdir")), link):
                return True
        came = self.git.object_id(f"{self.task.start}:{at}")
        if not came or came != alone.text("rev-parse", "HEAD"):
            return False
        status = alone.run("status", "--porcelain")
        return status.returncode == 0 and not status.stdout

    def add_all_to_own_repository(self, at: str) -> bool:
        """Add the whole work tree in a repository of our own, with HEAD `at`; return whether everything was added."""
        for attributes in ("", _RAW):
            if self.use_own_repository(at, attributes) and self.add_all():
                return True
        self.use_index_copy()
        if self.use_own_repository(at):
            self.add_all()
        return False

    def commit_changes(self) -> Kept:
        """Commit the uncommitted changes."""
        old = self.git.object_id("HEAD^{commit}")
        if not os.path.exists(self.index):
            self.use_new_index()
        elif self.has_operation_under_way():
            self.use_index_copy()
        good = self._add_or_rescue(old)
        tree, new = self._write_tree(old), ""
        if tree and tree != self.git.object_id(f"{old}^{{tree}}"):
            new = self._commit(old, tree) or (self.use_own_repository(old) and self._commit(old, tree)) or ""
            good = good and bool(new)
        why = "" if good and tree else (self.error.rstrip("\n") or "git cannot write").split("\n")[-1]
        return Kept(new, old, why)

    def _add_or_rescue(self, old: str) -> bool:
        if self.add_all():
            return True
        self.use_index_copy()
        if not self.has_readable_index():
            self.use_new_index()
        if self.add_all():
            return True
        self.error = self.stderr
        return self.add_all_to_own_repository(old)

    def _write_tree(self, old: str) -> str:
        """Write the index as a tree, by fallbacks if need be; return the tree's id, "" on failure."""
        ways: tuple[Callable[[], bool], ...] = (
            lambda: True,
            self.use_index_copy,
            lambda: self.use_own_repository(old),
            lambda: self.use_new_index() and (self.add_all() or True),
        )
        for ready in ways:
            if ready():
                done = self.git.run("write-tree")
                if done.returncode == 0:
                    return _text(done.stdout).rstrip("\n")
                self.error = self.error or _text(done.stderr)
        return ""

    def _commit(self, old: str, tree: str) -> str:
        """Commit a tree on top of `old`, if given; return the commit's id, "" if git fails.

        If the index is our own, the agent's HEAD does not move, and the same files always make the same commit.
        """
        env = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in _IDENTITY}
        apart = self.git.env.get("GIT_DIR") or self.git.env.get("GIT_INDEX_FILE")
        if apart:
            date = self.git.text(
                "log", "--max-count=1", "--no-show-signature", "--format=@%cd", "--date=raw", old or "HEAD"
            )
            env.update(GIT_AUTHOR_DATE=date, GIT_COMMITTER_DATE=date)
        git = Git(self.git.folder, {**self.git.env, **env})
        done = git.run("commit-tree", *(("-p", old) if old else ()), tree, stdin=_MESSAGE)
        if done.returncode != 0:
            return ""
        new = _text(done.stdout).rstrip("\n")
        if not apart:
            git.run("update-ref", "HEAD", new, *((old,) if old else ()))
        return new

    def large(self) -> Iterator[str]:
        """Yield the files that are too large, except ignored and unmodified ones."""
        for path in large(self.git.folder, self.task.size):
            if self.git.run("--literal-pathspecs", "status", "--porcelain", "--", path).stdout:
                yield path


@dataclass
class Kept:
    """The commit of the uncommitted changes and the agent's own below it, "" if none; `why` it is incomplete."""

    new: str
    old: str
    why: str


class Task:
    """The parameters: the bottle's first commit, the size limit of a file in bytes, a folder for our own indexes."""

    def __init__(self, start: str, size: int, scratch: str) -> None:
        """Store the parameters; the folder `scratch` must exist."""
        self.start, self.size, self._scratch = start, size, scratch
        self._number = itertools.count()

    def index(self) -> str:
        """Return the path of a new index."""
        return os.path.join(self._scratch, f"index-{next(self._number)}")


class Commits:
    """The commits that HEAD does not contain: other branches, stashes, and commits on no branch."""

    def __init__(self, tree: WorkTree) -> None:
        """Read the agent's refs, through a repository of our own if git cannot use the agent's."""
        self.folder, self.start = tree.git_dir, tree.task.start
        self.old = tree.git.object_id("HEAD^{commit}")
        self._git, self._seen = tree.git, tree.git_dir
        if not self._ok("for-each-ref", "--count=1"):
            other = WorkTree(Git(tree.git.folder, dict(tree.git.env)), tree.git_dir, tree.task)
            self._seen = other.git.env["GIT_DIR"] if other.use_own_repository(self.old) else tree.git_dir

    def _words(self, *words: str) -> tuple[str, ...]:
        return (f"--git-dir={self._seen}", *words)

    def _ok(self, *words: str) -> bool:
        return self._git.ok(*self._words(*words))

    def _lines(self, *words: str) -> Iterator[tuple[str, str]]:
        """Yield the object id and the rest of each line of a command's output."""
        for line in _text(self._git.run(*self._words(*words)).stdout).split("\n"):
            oid, _, what = line.partition(" ")
            if oid:
                yield oid, what

    def is_unreachable(self, oid: str) -> bool:
        """Return whether a commit is reachable from none of HEAD, the start and the branches."""
        ancestor = ("merge-base", "--is-ancestor", oid)
        if not oid or self._ok(*ancestor, self.old or self.start) or self._ok(*ancestor, self.start):
            return False
        return not self._git.text(*self._words("for-each-ref", "--count=1", f"--contains={oid}", "refs/heads"))

    def unnamed(self) -> Iterator[tuple[str, str]]:
        """Yield stashes, and commits on no branch that a checkout left behind, each with a description."""
        yield from self._lines("reflog", "show", "--format=%H stash %gd", "refs/stash", "--")
        left = set[tuple[str, str]]()
        for log in (self.folder, *self.worktrees()):
            with suppress(OSError), open(os.path.join(log, "logs", "HEAD"), "rb") as file:
                found = (_CHECKOUT.match(_text(line.replace(b"\0", b""))) for line in file)
                left.update((each[1], each[2]) for each in found if each)
        for oid, branch in sorted(left):
            if not self._ok("show-ref", "--verify", "--quiet", f"refs/heads/{branch}") and self.is_unreachable(oid):
                yield oid, f"commit {oid[:12]}"

    def branches(self) -> Iterator[tuple[str, str]]:
        """Yield the branches not contained in HEAD or the start, those named bottle/... first."""
        merged = [self.old, self.start if self._ok("cat-file", "-e", self.start) else ""]
        known = [f"--no-merged={oid}" for oid in merged if oid]
        for under in ("refs/heads/bottle", "refs/heads"):
            yield from self._lines("for-each-ref", *known, "--format=%(objectname) branch %(refname:lstrip=2)", under)

    def worktrees(self) -> list[str]:
        """Return the git dirs of the linked work trees, which hold their index and HEAD."""
        folder = os.path.join(self.folder, "worktrees")
        with suppress(OSError):
            return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if not name.startswith(".")]
        return []


# --- the commands -----------------------------------------------------------------------------------------------------


def keep(task: Task, folder: str) -> int:
    """Commit the uncommitted changes of each work tree, and print all commits."""
    tree = WorkTree.opened(folder, task)
    if not tree:
        return 1
    commits = Commits(tree)
    for some in (commits.unnamed(), commits.branches()):
        for oid, what in itertools.islice(some, _COMMITS):
            emit("commit", oid=oid, below="", what=what)
    kept = tree.commit_changes()
    emit("head", tip=kept.new or kept.old, before=kept.old)
    report(tree, kept)
    for each in commits.worktrees():
        try:
            keep_other(tree, commits, each)
        except OSError as error:  # for example deleted meanwhile; continue with the others
            emit("failed", why=f"in {each}: {error.strerror}")
    return 0


def keep_other(main_tree: WorkTree, commits: Commits, folder: str) -> None:
    """Commit the uncommitted changes of the linked work tree with the git dir `folder`, and print its commit."""
    at = _read(os.path.join(folder, "gitdir"))
    what = f"work tree {at[: -len('/.git')] if at.endswith('/.git') else at}"
    place = os.path.abspath(os.path.join(folder, os.path.dirname(at)))
    link = _read(os.path.join(place, ".git"))
    if not link.startswith("gitdir: ") or not _same(os.path.join(place, link[len("gitdir: ") :]), folder):
        head = main_tree.git.in_folder(folder).text(
            f"--git-dir={folder}", "rev-parse", "--quiet", "--verify", "HEAD^{commit}"
        )
        if commits.is_unreachable(head):
            emit("commit", oid=head, below="", what=what)
        return
    tree = WorkTree(main_tree.git.in_folder(place), main_tree.git_dir, main_tree.task)
    tree.index = os.path.join(folder, "index")
    if not _same(tree.git.toplevel(), place) and not tree.use_own_repository(
        _head_target(_read(os.path.join(folder, "HEAD")))
    ):
        emit("failed", why=f"in {place}: its repository cannot be used")
        return
    kept = tree.commit_changes()
    report(tree, kept, place)
    branch = tree.git.text("symbolic-ref", "--quiet", "--short", "HEAD")
    if kept.new or commits.is_unreachable(kept.old):
        below = kept.old if kept.new else ""
        emit("commit", oid=kept.new or kept.old, below=below, what=f"branch {branch}" if branch else what)


def report(tree: WorkTree, kept: Kept, place: str = "") -> None:
    """Print what is not exported from a work tree, or changed; `place` is its folder unless it is the main one."""
    if kept.why:
        emit("failed", why=f"in {place}: {kept.why}" if place else kept.why)
    for path in tree.nested[:_NESTED]:
        emit("nested", path=os.path.join(place, path))
    for path in itertools.islice(tree.large(), _LARGE):
        emit("large", path=os.path.join(place, path))


def bundle(task: Task, folder: str, tip: str, out: str, *before: str) -> int:
    """Print a bundle with the one ref `out`, at `tip`, without the commits of the start and of the tips `before`."""
    tree = WorkTree.opened(folder, task)
    if not tree or (not tree.git.ok("cat-file", "-e", f"{tip}^{{commit}}") and not tree.use_own_repository()):
        return 1
    git = tree.git
    if not git.ok("update-ref", out, tip):
        done = git.run("update-ref", out, tip) if tree.use_own_repository() else None
        if not done or done.returncode != 0:
            print(_text(done.stderr) if done else "", end="", file=sys.stderr)
            return 1
    known = [task.start] if git.ok("cat-file", "-e", task.start) else []
    there = [each for each in before if git.ok("cat-file", "-e", f"{each}^{{commit}}")]
    known += [each for each in there if not git.ok("merge-base", "--is-ancestor", tip, each)]
    return git.run_attached("bundle", "create", "--quiet", "-", out, *(f"^{oid}" for oid in known))


def diff(task: Task, folder: str) -> int:
    """Print the diff from the start to the work tree; return PART if it is incomplete."""
    tree = WorkTree.opened(folder, task)
    if not tree:
        return 1
    tree.use_index_copy()
    if not tree.has_readable_index() or not os.path.exists(tree.index):
        tree.use_new_index()
    part = 0 if tree.add_all() or tree.add_all_to_own_repository(tree.git.object_id("HEAD")) else PART
    settings = ("-c", "core.quotePath=false", "-c", "color.ui=false")
    return (
        tree.git.run_attached(*settings, "diff", "--cached", "--no-ext-diff", "--no-textconv", task.start, "--") or part
    )


def forget(folder: str, kept: str, before: str) -> int:
    """Reset HEAD from our commit `kept` to the agent's `before`, in each work tree whose HEAD it is."""
    git = Git(folder, {**os.environ, "PWD": folder})
    for item in git.items("worktree", "list", "--porcelain", "-z"):
        kind, _, path = item.partition(" ")
        if kind == "worktree":
            git.run("-C", path, "update-ref", "HEAD", before, kept)
    return 0


def emit(kind: str, **fields: str) -> None:
    """Print one JSON object; long fields are truncated."""
    print(json.dumps({"kind": kind, **{name: text[:_TEXT] for name, text in fields.items()}}), flush=True)


# --- files ------------------------------------------------------------------------------------------------------------


def walk(folder: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield each entry below a folder with its relative path, without the contents of a `.git`."""
    folders = [""]
    while folders:
        at = folders.pop()
        with suppress(OSError), os.scandir(os.path.join(folder, at)) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = os.path.join(at, entry.name)
                yield path, entry
                if entry.name != ".git" and entry.is_dir(follow_symlinks=False):
                    folders.append(path)


def large(folder: str, size: int) -> Iterator[str]:
    """Yield the files of more than `size` bytes."""
    for path, entry in walk(folder):
        with suppress(OSError):  # deleted meanwhile
            wanted = entry.name != ".git" and entry.is_file(follow_symlinks=False)
            if wanted and entry.stat(follow_symlinks=False).st_size > size:
                yield path


def nested(folder: str) -> Iterator[str]:
    """Yield the folders below that contain a `.git`."""
    for path, entry in walk(folder):
        if entry.name == ".git" and path != ".git":
            yield os.path.dirname(path)


def add(git: Git, size: int) -> Done[bytes]:
    """Add a work tree to the index, except files of more than `size` bytes and nested repositories."""
    unhide(git)
    # Git fails on an excluded path that is ignored or within a submodule.
    apart = [path for path in (*large(git.folder, size), *nested(git.folder)) if not git.ignores(path)]
    paths = _joined([".", *(f":(exclude,literal){path}" for path in apart)])
    return git.run("add", "--all", "--ignore-errors", "--pathspec-from-file=-", "--pathspec-file-nul", stdin=paths)


def unhide(git: Git) -> None:
    """Clear the assume-unchanged and skip-worktree flags of existing files, which hide changes."""
    assumed = [item[2:] for item in git.items("ls-files", "-v", "-z") if item[:1].islower()]
    if assumed:
        git.run("update-index", "--no-assume-unchanged", "-z", "--stdin", stdin=_joined(assumed))
    skipped = [item[2:] for item in git.items("ls-files", "-t", "-z") if item.startswith("S ")]
    there = [path for path in skipped if os.path.lexists(os.path.join(git.folder, path))]
    if there:
        git.run("update-index", "--no-skip-worktree", "-z", "--stdin", stdin=_joined(there))


def _permanent(error: OSError) -> OSError:
    """Return the error of a failed start; raise it if the bottle was at its limit of processes or memory."""
    if error.errno in (errno.EAGAIN, errno.ENOMEM):
        raise error
    return error


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _joined(items: Iterable[str]) -> bytes:
    return b"".join(item.encode("utf-8", "surrogateescape") + b"\0" for item in items)


def _temporary() -> str:
    return os.environ.get("TMPDIR") or "/tmp"  # noqa: S108  (as mktemp does)


def _same(one: str, other: str) -> bool:
    """Return whether two paths lead to the same existing file."""
    with suppress(OSError, ValueError):
        return os.path.samefile(one, other)
    return False


def _head_target(head: str) -> str:
    """Return the ref or commit in the text of a HEAD file."""
    return head[len("ref: ") :] if head.startswith("ref: ") else head


def _read(path: str) -> str:
    """Return a file's text without NULs and trailing newlines; "" if it cannot be read."""
    with suppress(OSError, ValueError), open(path, "rb") as file:
        return _text(file.read().replace(b"\0", b"")).rstrip("\n")  # a crash may leave a file of zeros
    return ""


def _write(path: str, line: str) -> None:
    with suppress(OSError), open(path, "wb") as file:
        file.write(_joined([line]).replace(b"\0", b"\n"))


def _remove(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)
    with suppress(RecursionError):
        shutil.rmtree(path, ignore_errors=True)


def _copy(source: str, target: str) -> None:
    """Copy a file or folder, links as links, as completely as possible."""
    with suppress(OSError, RecursionError):  # shutil.Error is an OSError
        if os.path.islink(source):
            os.symlink(os.readlink(source), target)
        elif os.path.isdir(source):
            shutil.copytree(source, target, symlinks=True, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(source, target)


def main(words: list[str]) -> int:
    """Run a command: keep, bundle, diff or forget; return the exit status."""
    command, folder, *rest = words
    if command == "forget":
        return forget(folder, *rest)
    try:
        scratch = tempfile.mkdtemp(prefix="claude-bottle-", dir=_temporary())
    except OSError:
        scratch = "/nonexistent"  # only operations with an index of our own fail
    try:
        if command == "bundle":
            return bundle(Task(rest[0], 0, scratch), folder, *rest[1:])
        return {"keep": keep, "diff": diff}[command](Task(rest[0], int(rest[1]), scratch), folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except OSError as reason:
        sys.exit(f"cannot work in the bottle: {reason}")
