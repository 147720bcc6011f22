"""Export the work from a bottle: commit uncommitted changes, list the commits, bundle them, print a diff.

Runs in the bottle as the agent's user, beside the agent's processes. Python gets it on stdin, with a command and its
words as arguments, so it needs only Python 3.9 and the standard library, and imports nothing of claude_bottle.

Git may be in any state. A `.git` that is unusable or read-only is left as it is, and a repository of our own, without
filters, is put on top of its objects; an index that is locked or broken is replaced by one of our own. No hook, no
signature, no file monitor.

`keep` prints one JSON object a line, each as soon as it is known, so that it counts if the rest hangs; `bundle` prints
a git bundle, `diff` a patch, `forget` nothing.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Callable  # noqa: UP035  (Python 3.9)

PART = 9  # the exit status of a diff that does not show everything
_LARGE = 20  # files to list, at most
_COMMITS = 100  # commits without a branch to list, at most, and as many branches and tags
_PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds between attempts to start a process in a full bottle, as in bash
_NESTED = 1000  # nested repositories to list, at most
_WHYS = 20  # reasons of one kind to print, at most
_TEXT = 1000  # characters of a name to print, at most
_EVERY_TIME = "fatal: adding files failed"  # git's last line, after those about the files
_BLOCK = 1 << 16  # bytes
_SETTINGS = (
    *("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=", "-c", "gc.auto=0"),
    # In a sparse checkout git would leave out files outside of it, silently if they are tracked.
    *("-c", "advice.addEmbeddedRepo=false", "-c", "core.sparseCheckout=false"),
)
# For `git status`, overriding the agent's settings.
_EVERYTHING = ("--untracked-files=all", "--ignore-submodules=none")
_REFS = ("for-each-ref", "--format=%(objectname)")  # a missing object of one must not hide the others
_OWN = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # redirect git from the agent's repository
_COPIED = ("packed-refs", "refs", "logs")
_HELD = (stat.S_ISREG, stat.S_ISDIR, stat.S_ISLNK)  # the kinds of file that git can store
_RAW = "-text -working-tree-encoding -ident"  # git refuses a file that contradicts these
_UNDER_WAY = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "rebase-apply")
_MESSAGE = b"""Keep what was left uncommitted

Made by claude-bottle as the work was fetched out of the bottle: no commit of the agent's.
"""
_LAST = "refs/claude-bottle/last"  # per work tree: the last commit made beside its HEAD
_IDENTITY = (("NAME", "claude-bottle"), ("EMAIL", "claude-bottle@localhost"))
# Git's errors for something that no longer exists, which is no loss.
_GONE = {os.strerror(code) for code in (errno.ENOENT, errno.ENOTDIR)}
_BARRED = {os.strerror(code) for code in errno.errorcode} - _GONE
_BROKEN = re.compile("^warning: ignoring broken ref .*$", re.MULTILINE)
_UNOPENED = "warning: could not open directory "
_LEFT = re.compile(r"([0-9a-f]{40}|[0-9a-f]{64}) .*\tcheckout: moving from ([^ ]*) to .*")

Done = subprocess.CompletedProcess  # of bytes


@dataclass
class Git:
    """Git in a folder; `env` is its whole environment."""

    folder: str
    env: dict[str, str]

    def argv(self, *words: str) -> tuple[str, ...]:
        """Return a git command without hooks, file monitor and sparse checkout."""
        return ("git", *_SETTINGS, *words)

    def run(self, *words: str, stdin: bytes = b"") -> Done[bytes]:
        """Run a command to its end; if it cannot be started, such as for a missing folder, the result is status 127."""
        argv, pipe = self.argv(*words), subprocess.PIPE
        try:
            process = self._started(argv, stdin=pipe, stdout=pipe, stderr=pipe)
        except OSError as error:
            return Done(argv, 127, b"", f"{_lasting(error)}\n".encode("utf-8", "surrogateescape"))
        with process:
            out, err = process.communicate(stdin)
        return Done(argv, process.returncode, out, err)

    def _started(self, argv: Sequence[str], **pipes: int | None) -> subprocess.Popen[bytes]:
        """Start a command, with further attempts if the bottle has no room for a process."""
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
        """Return a command's output without its last newlines; empty if it fails."""
        done = self.run(*words)
        return _text(done.stdout).rstrip("\n") if done.returncode == 0 else ""

    def items(self, *words: str) -> Iterator[str]:
        """Yield the NUL-terminated items of a command's output, one by one: there may be a million files."""
        null, rest = subprocess.DEVNULL, b""
        try:
            process = self._started(self.argv(*words), stdin=null, stdout=subprocess.PIPE, stderr=null)
        except OSError as error:
            _lasting(error)
            return
        with process:
            for block in iter(lambda: process.stdout.read(_BLOCK), b""):  # type: ignore[union-attr]  # it is a pipe
                *whole, rest = (rest + block).split(b"\0")
                yield from map(_text, whole)

    def shown(self, *words: str) -> int:
        """Run a command on our own stdout and stderr; return its exit status."""
        with self._started(self.argv(*words), stdin=subprocess.DEVNULL) as process:
            return process.wait()

    def name(self, revision: str) -> str:
        """Return the full object id of a revision; empty if there is none."""
        return self.text("rev-parse", "--quiet", "--verify", revision)

    def toplevel(self) -> str:
        """Return the root of git's work tree; empty if it finds none."""
        return self.text("rev-parse", "--show-toplevel")

    def ignores(self, path: str) -> bool:
        """Return whether a path is ignored, or within a submodule, which git skips."""
        return self.run("check-ignore", "--quiet", "--", f"./{path}").returncode != 1  # "./" since : may begin magic

    def alone(self, folder: str) -> Git:
        """Return git in another folder, with the repository found there."""
        env = {name: value for name, value in self.env.items() if name not in _OWN}
        return Git(folder, {**env, "PWD": folder})


class WorkTree:
    """A work tree, and the usable parts of its git."""

    def __init__(self, git: Git, theirs: str, task: Task) -> None:
        """Use the agent's repository `theirs` as it is; see `opened`."""
        self.git, self.theirs, self.task = git, theirs, task
        self.index = ""  # the agent's own
        self.nested: list[str] = []  # nested repositories, replaced by their files in the index
        self.said = self.why = ""  # git's messages: of the last command, and of the first failure
        self.refless = False  # the agent's refs are unreadable
        self.barred: list[str] = []  # git's warnings about files left out of a successful command

    @classmethod
    def opened(cls, folder: str, task: Task) -> WorkTree | None:
        """Return the bottle's main work tree; None if it cannot be used at all."""
        permit(folder)
        permit(_gitdir(folder))
        git = Git(folder, _english({**os.environ, "PWD": folder}))
        top = git.toplevel()
        if not top:  # the agent's own settings may be at fault
            git.env.update(GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_NOSYSTEM="1")
            top = git.toplevel()
        tree = cls(git, os.path.join(folder, ".git"), task)
        if _same(top, folder):
            tree.theirs = git.text("rev-parse", "--absolute-git-dir")
        elif not tree.own():
            return None
        tree.index = os.path.join(folder, git.text("rev-parse", "--git-path", "index"))
        return tree

    def own(self, at: str = "", attributes: str = "") -> bool:
        """Use a repository of our own from here on; return whether it could be made.

        `at` is its HEAD, by default the agent's; `attributes` are unset, and so are filters.
        """
        made, env = _own(), self.git.env
        env.update(GIT_DIR=made, GIT_WORK_TREE=self.git.folder)
        form = "sha1" if len(self.task.start) == 40 else "sha256"
        done = self.git.run("init", "--quiet", f"--object-format={form}")
        if done.returncode != 0:
            print(_text(done.stderr), end="", file=sys.stderr)
            del env["GIT_DIR"], env["GIT_WORK_TREE"]
            return False
        kept = self.git.text("for-each-ref", "--format=%(refname) %(objectname)", _LAST).splitlines()
        self._fill(made, attributes)
        for ref in kept:
            self.git.run("update-ref", *ref.split(), "")  # unless it exists already, from the agent's repository
        at = at or _read(os.path.join(self.theirs, "HEAD"))
        at = self.git.name(f"{_unref(at)}^{{commit}}") or self.task.start
        self.git.run("update-ref", "--no-deref", "HEAD", at)
        if not env.get("GIT_INDEX_FILE"):
            self.git.run("read-tree", "HEAD")  # files that are both tracked and ignored are nowhere else
        return True

    def _fill(self, made: str, attributes: str) -> None:
        """Copy what is needed of the agent's repository, without its settings, and use its objects."""
        with suppress(OSError):
            os.makedirs(f"{made}/info", exist_ok=True)
        _write(f"{made}/objects/info/alternates", f"{self.theirs}/objects")
        for name in _COPIED:
            _remove(f"{made}/{name}")
            _copy(f"{self.theirs}/{name}", f"{made}/{name}")
        if not self.git.ok(*_REFS):
            self.refless = True
            for name in _COPIED:
                _remove(f"{made}/{name}")
            with suppress(OSError):
                os.mkdir(f"{made}/refs")
        _copy(f"{self.theirs}/info/exclude", f"{made}/info/exclude")
        _write(f"{made}/info/attributes", f"* -filter {attributes}")
        _copy(f"{self.theirs}/shallow", f"{made}/shallow")

    def copied(self) -> bool:
        """Use a copy of the agent's index from here on."""
        self.git.env["GIT_INDEX_FILE"] = self.task.index()
        with suppress(OSError):
            shutil.copy2(self.index, self.git.env["GIT_INDEX_FILE"])
        return True

    def fresh(self) -> bool:
        """Use a new index of HEAD from here on."""
        self.git.env["GIT_INDEX_FILE"] = self.task.index()
        self.git.run("read-tree", "HEAD")
        return True

    def readable(self) -> bool:
        """Return whether git can read the index."""
        return self.git.ok("ls-files")

    def busy(self) -> bool:
        """Return whether a merge, rebase or the like is in progress; it is left alone."""
        return any(os.path.exists(os.path.join(os.path.dirname(self.index), name)) for name in _UNDER_WAY)

    def whole(self) -> bool:
        """Put the whole work tree into the index, the files of nested repositories last.

        Return whether git added everything; if not, `said` is the reason.
        """
        self.barred = []
        if not self._added(self.git):
            return False
        self.nested, self.said, good, over = [], "", True, list[str]()
        for at in sorted(self._folders(), key=os.fsencode):
            good = self._plain(at, over) and good
        return good

    def _added(self, git: Git) -> bool:
        """Put a work tree into its index; return whether git succeeded. Its warnings are added to `barred`."""
        done = add(git, self.task.size)
        self.said = _text(done.stderr)
        self.barred += barred(self.said)
        return done.returncode == 0

    def _folders(self) -> Iterator[str]:
        """Yield the folders of nested repositories, and of submodules that are not checked out."""
        yield from nested(self.git.folder)
        for item in self.git.items("ls-files", "--stage", "-z"):
            mode, _, path = item.partition("\t")
            if mode.startswith("160000 ") and not os.path.exists(os.path.join(self.git.folder, path, ".git")):
                yield path

    def _plain(self, at: str, over: list[str]) -> bool:
        """Replace a nested repository or a submodule in the index by its files; return whether that succeeded.

        A `known` one is added to `over` and stays as it is, with everything below it.
        """
        path = os.path.join(self.git.folder, at)
        skipped = not os.path.isdir(path) or os.path.islink(path) or self.git.ignores(at)
        if skipped or any(at.startswith(f"{each}/") for each in over):
            return True
        if self.known(at):
            over.append(at)
            return True
        tree = self._tree_of(at)
        if not tree:
            return False
        if tree == self.git.text("hash-object", "-t", "tree", "/dev/null"):
            return True
        tracked = self.git.items("--literal-pathspecs", "ls-files", "-z", "--", at)
        removed = self._did("update-index", "-z", "--force-remove", "--stdin", stdin=_joined(tracked))
        if not removed or not self._did("read-tree", f"--prefix={at}/", tree):
            return False
        self.nested.append(at)
        return True

    def _did(self, *words: str, stdin: bytes = b"") -> bool:
        done = self.git.run(*words, stdin=stdin)
        self.said += _text(done.stderr)
        return done.returncode == 0

    def _tree_of(self, at: str) -> str:
        """Write a tree of a folder's files, as of a separate work tree; return its object id, empty if git fails."""
        folder = os.path.join(self.git.folder, at)
        own = {
            "GIT_DIR": self.git.text("rev-parse", "--absolute-git-dir"),
            "GIT_WORK_TREE": folder,
            "GIT_INDEX_FILE": self.task.index(),
        }
        inner = Git(folder, {**self.git.env, **own, "PWD": folder})
        inner.run("read-tree", self.git.name(f"HEAD:{at}"))
        before, good = self.said, self._added(inner)
        self.said = before + self.said
        if not good:
            return ""
        written = inner.run("write-tree")
        self.said += _text(written.stderr)
        return _text(written.stdout).rstrip("\n") if written.returncode == 0 else ""

    def known(self, at: str) -> bool:
        """Return whether a folder is an unchanged submodule, or another work tree, which is exported separately."""
        path = os.path.join(self.git.folder, at)
        alone, link = self.git.alone(path), os.path.join(path, ".git")
        if not os.path.exists(link) or not _same(alone.toplevel(), path):
            return False
        if _same(alone.text("rev-parse", "--path-format=absolute", "--git-common-dir"), self.theirs):
            own = alone.text("rev-parse", "--absolute-git-dir")
            if _same(_read(os.path.join(own, "gitdir")), link):
                return True
        came = self.git.name(f"{self.task.start}:{at}")
        if not came or came != alone.text("rev-parse", "HEAD"):
            return False
        if any(hidden(alone)):
            return False
        status = alone.run("status", "--porcelain", *_EVERYTHING)
        return status.returncode == 0 and not status.stdout and not barred(_text(status.stderr))

    def rescued(self, at: str) -> bool:
        """Put everything into the index of a repository of our own, with HEAD `at`; return whether that succeeded."""
        for attributes in ("", _RAW):
            if self.own(at, attributes) and self.whole():
                return True
        self.copied()
        if self.own(at):
            self.whole()
        return False

    def kept(self) -> Kept:
        """Commit the uncommitted changes."""
        old = self.git.name("HEAD^{commit}")
        if not os.path.exists(self.index):
            self.fresh()
        elif self.busy():
            self.copied()
        good = self._gathered(old)
        tree, new = self._written(old), ""
        if tree and (tree != self.git.name(f"{old}^{{tree}}") or self._parents(old)[1:]):
            new = self._commit(old, tree) or (self.own(old) and self._commit(old, tree)) or ""
            good = good and bool(new)
        why = () if good and tree else reasons(self.why) or ("git cannot write",)
        return Kept(new, old, tuple(dict.fromkeys((*why, *self.barred))))

    def _gathered(self, old: str) -> bool:
        if self.whole():
            return True
        self.copied()
        if not self.readable():
            self.fresh()
        if self.whole():
            return True
        self.why = self.said
        return self.rescued(old)

    def _written(self, old: str) -> str:
        """Write the index as a tree, if need be from another index; return its object id, empty if git fails."""
        ways: tuple[Callable[[], bool], ...] = (
            lambda: True,
            self.copied,
            lambda: self.own(old),
            lambda: self.fresh() and (self.whole() or True),
        )
        for ready in ways:
            if ready():
                done = self.git.run("write-tree")
                if done.returncode == 0:
                    return _text(done.stdout).rstrip("\n")
                self.why = self.why or _text(done.stderr)
        return ""

    def _commit(self, old: str, tree: str) -> str:
        """Commit a tree on top of `old`, if there is one; return the commit, empty if git fails.

        If the index is not the agent's own, its HEAD does not move, and the same files result in the same commit.
        """
        env = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in _IDENTITY}
        apart = self.git.env.get("GIT_DIR") or self.git.env.get("GIT_INDEX_FILE")
        if apart:
            date = self.git.text(
                "log", "--max-count=1", "--no-show-signature", "--format=@%cd", "--date=raw", old or "HEAD"
            )
            env.update(GIT_AUTHOR_DATE=date, GIT_COMMITTER_DATE=date)
        git = Git(self.git.folder, {**self.git.env, **env})
        parents = self._parents(old) if apart else (old,)
        if parents[0] != old and tree == git.name(f"{parents[0]}^{{tree}}"):
            return parents[0]
        words = [word for parent in parents if parent for word in ("-p", parent)]
        done = git.run("commit-tree", *words, tree, stdin=_MESSAGE)
        if done.returncode != 0:
            return ""
        new = _text(done.stdout).rstrip("\n")
        if apart:
            git.run("update-ref", self._last(), new)
        else:
            git.run("update-ref", "HEAD", new, *((old,) if old else ()))
        return new

    def _last(self) -> str:
        return f"{_LAST}/{hashlib.sha256(self.git.folder.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"

    def _parents(self, old: str) -> tuple[str, ...]:
        """Return the parents of a commit beside HEAD, so that one branch can contain it and the last such commit.

        They are the last one, if only commits of ours are between it and `old`; while a rebase moves HEAD, both.
        """
        last = self.git.name(f"{self._last()}^{{commit}}")
        if not old or not last or self.git.ok("merge-base", "--is-ancestor", last, old):
            return (old,)
        if self.git.ok("merge-base", "--is-ancestor", old, last):
            made = self.git.text("log", "--no-show-signature", "--format=%ce", f"{old}..{last}").split("\n")
            return (last,) if set(made) == {_IDENTITY[1][1]} or self.busy() else (old,)
        return (old, last) if self.busy() else (old,)

    def large(self) -> Iterator[str]:
        """Yield the files that are too large, unless ignored or unchanged since their commit."""
        for path in large(self.git.folder, self.task.size):
            if self.git.run("--literal-pathspecs", "status", "--porcelain", *_EVERYTHING, "--", path).stdout:
                yield path

    def special(self) -> Iterator[str]:
        """Yield sockets, FIFOs and devices, which git skips, unless ignored."""
        for path, entry in walk(self.git.folder):
            with suppress(OSError):  # it is gone
                mode = entry.stat(follow_symlinks=False).st_mode
                if not any(is_it(mode) for is_it in _HELD) and not self.git.ignores(path):
                    yield path


@dataclass
class Kept:
    """A commit of uncommitted changes, if any, and the agent's own last one; `why` some changes are missing."""

    new: str
    old: str
    why: tuple[str, ...]


class Task:
    """The request: the bottle's first commit and a limit of size in bytes; and a folder for indexes of our own."""

    def __init__(self, start: str, size: int, scratch: str) -> None:
        """Store the request; the indexes go into the folder `scratch`."""
        self.start, self.size, self._scratch = start, size, scratch
        self._number = itertools.count()

    def index(self) -> str:
        """Return the path of a new index."""
        return os.path.join(self._scratch, f"index-{next(self._number)}")


class Commits:
    """The commits outside of HEAD's history: other branches, stashes, commits on no branch."""

    def __init__(self, tree: WorkTree) -> None:
        """Read the agent's refs, in a repository of our own if the agent's is unreadable."""
        self.folder, self.start = tree.theirs, tree.task.start
        self.old = tree.git.name("HEAD^{commit}")
        self.why: list[str] = []  # why some commits cannot be read
        self._git, self._seen = tree.git, tree.theirs
        if not self._ok(*_REFS):
            other = WorkTree(Git(tree.git.folder, dict(tree.git.env)), tree.theirs, tree.task)
            self._seen = other.git.env["GIT_DIR"] if other.own(self.old) else tree.theirs
            tree.refless = tree.refless or other.refless
        if tree.refless:
            self.why.append("no branch, tag or stash can be read")

    def _words(self, *words: str) -> tuple[str, ...]:
        return (f"--git-dir={self._seen}", *words)

    def _ok(self, *words: str) -> bool:
        return self._git.ok(*self._words(*words))

    def _lines(self, *words: str) -> Iterator[tuple[str, str]]:
        """Yield object id and rest of each line of a command's output; add its errors and warnings to `why`."""
        done = self._git.run(*self._words(*words))
        said = _text(done.stderr)
        why = reasons(said) if done.returncode else [*_BROKEN.findall(said), *barred(said)]
        self.why += [each for each in why if each not in self.why]
        for line in _text(done.stdout).split("\n"):
            oid, _, what = line.partition(" ")
            if oid:
                yield oid, what

    def loose(self, oid: str) -> bool:
        """Return whether a commit is in the history of neither HEAD, the start nor a branch."""
        ancestor = ("merge-base", "--is-ancestor", oid)
        if not oid or self._ok(*ancestor, self.old or self.start) or self._ok(*ancestor, self.start):
            return False
        return not self._git.text(*self._words("for-each-ref", "--count=1", f"--contains={oid}", "refs/heads"))

    def unnamed(self) -> Iterator[tuple[str, str]]:
        """Yield stashes, and commits on no branch that a checkout left behind, with their descriptions."""
        stash = self._git.text(*self._words("rev-parse", "--quiet", "--verify", "refs/stash"))
        if stash:
            stashes = list(self._lines("reflog", "show", "--format=%H stash %gd", "refs/stash", "--"))
            yield from stashes or [(stash, "stash stash@{0}")]
        left = set[tuple[str, str]]()
        for log in (self.folder, *self.worktrees()):
            with suppress(OSError), open(os.path.join(log, "logs", "HEAD"), "rb") as file:
                found = (_LEFT.match(_text(line.replace(b"\0", b""))) for line in file)
                left.update((each[1], each[2]) for each in found if each)
        for oid, branch in sorted(left):
            if not self._ok("show-ref", "--verify", "--quiet", f"refs/heads/{branch}") and self.loose(oid):
                yield oid, f"commit {oid[:12]}"

    def branches(self) -> Iterator[tuple[str, str]]:
        """Yield the branches outside of the history of HEAD and the start, those named bottle/... first."""
        merged = [self.old, self.start if self._ok("cat-file", "-e", self.start) else ""]
        self._check()
        known = [f"--no-merged={oid}" for oid in merged if oid]
        for under in ("refs/heads/bottle", "refs/heads"):
            yield from self._lines("for-each-ref", *known, "--format=%(objectname) branch %(refname:lstrip=2)", under)

    def tags(self) -> Iterator[tuple[str, str]]:
        """Yield the tags of commits, with these; all are the agent's, since none is cloned."""
        form = "--format=%(if)%(*objectname)%(then)%(*objectname)%(else)%(objectname)%(end) %(refname:lstrip=2)"
        for oid, name in self._lines("for-each-ref", form, "refs/tags"):
            if self._ok("cat-file", "-e", f"{oid}^{{commit}}"):
                yield oid, name

    def _check(self) -> None:
        """Note the branches whose commit is missing, which git skips."""
        refs = list(self._lines("for-each-ref", "--format=%(objectname) %(refname:lstrip=2)", "refs/heads"))
        asked = "".join(f"{oid}^{{commit}}\n" for oid, _ in refs).encode()
        answers = self._git.run(*self._words("cat-file", "--batch-check"), stdin=asked).stdout.split(b"\n")
        for (_, name), answer in zip(refs, answers):  # noqa: B905  (Python 3.9)
            if answer.endswith(b" missing"):
                self.why.append(f"the commit of branch {name} is missing")

    def worktrees(self) -> list[str]:
        """Return the folders with index and HEAD of the other work trees."""
        folder = os.path.join(self.folder, "worktrees")
        with suppress(OSError):
            return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if not name.startswith(".")]
        return []


# --- the commands -----------------------------------------------------------------------------------------------------


def keep(task: Task, folder: str) -> int:
    """Commit the uncommitted changes in each work tree, and print all commits."""
    tree = WorkTree.opened(folder, task)
    if not tree:
        return 1
    commits = Commits(tree)
    for some in (commits.unnamed(), commits.branches()):
        for oid, what in itertools.islice(some, _COMMITS):
            tell("commit", oid=oid, below="", what=what)
    for oid, name in itertools.islice(commits.tags(), _COMMITS):
        tell("tag", oid=oid, name=name)
    tell_some("unread", commits.why)
    kept = tree.kept()
    tell("head", tip=kept.new or kept.old, before=kept.old)
    report(tree, kept)
    for each in commits.worktrees():
        try:
            beside(tree, commits, each)
        except OSError as error:  # such as one removed meanwhile: the others must be exported
            tell("failed", why=f"in {each}: {error.strerror}")
    return 0


def beside(main_tree: WorkTree, commits: Commits, folder: str) -> None:
    """Commit the uncommitted changes in another work tree, with index and HEAD in `folder`, and print its commit."""
    at = _read(os.path.join(folder, "gitdir"))
    what = f"work tree {at[: -len('/.git')] if at.endswith('/.git') else at}"
    place = os.path.abspath(os.path.join(folder, os.path.dirname(at)))
    with suppress(OSError):
        _permit(place, os.stat(place).st_mode)
    link = _read(os.path.join(place, ".git"))
    if not link.startswith("gitdir: ") or not _same(os.path.join(place, link[len("gitdir: ") :]), folder):
        head = main_tree.git.alone(folder).text(
            f"--git-dir={folder}", "rev-parse", "--quiet", "--verify", "HEAD^{commit}"
        )
        if commits.loose(head):
            tell("commit", oid=head, below="", what=what)
        return
    permit(place)
    tree = WorkTree(main_tree.git.alone(place), main_tree.theirs, main_tree.task)
    tree.index = os.path.join(folder, "index")
    if not _same(tree.git.toplevel(), place) and not tree.own(_unref(_read(os.path.join(folder, "HEAD")))):
        tell("failed", why=f"in {place}: its repository cannot be used")
        return
    kept = tree.kept()
    report(tree, kept, place)
    branch = tree.git.text("symbolic-ref", "--quiet", "--short", "HEAD")
    if kept.new or commits.loose(kept.old):
        below = kept.old if kept.new else ""
        tell("commit", oid=kept.new or kept.old, below=below, what=f"branch {branch}" if branch else what)


def report(tree: WorkTree, kept: Kept, place: str = "") -> None:
    """Print what is not exported from a work tree, or not as it is; `place` is its path, empty for the main one."""
    tell_some("failed", kept.why, f"in {place}: " if place else "")
    for path in tree.nested[:_NESTED]:
        tell("nested", path=os.path.join(place, path))
    for path in itertools.islice(tree.large(), _LARGE):
        tell("large", path=os.path.join(place, path))
    for path in itertools.islice(tree.special(), _LARGE):
        tell("special", path=os.path.join(place, path))


def bundle(task: Task, folder: str, tip: str, out: str, *before: str) -> int:
    """Print a bundle with the only ref `out`, of `tip`, without the start and what was exported `before`."""
    tree = WorkTree.opened(folder, task)
    if not tree or (not tree.git.ok("cat-file", "-e", f"{tip}^{{commit}}") and not tree.own()):
        return 1
    git = tree.git
    if not git.ok("update-ref", out, tip):
        done = git.run("update-ref", out, tip) if tree.own() else None
        if not done or done.returncode != 0:
            print(_text(done.stderr) if done else "", end="", file=sys.stderr)
            return 1
    known = [task.start] if git.ok("cat-file", "-e", task.start) else []
    there = [each for each in before if git.ok("cat-file", "-e", f"{each}^{{commit}}")]
    known += [each for each in there if not git.ok("merge-base", "--is-ancestor", tip, each)]
    return git.shown("bundle", "create", "--quiet", "-", out, *(f"^{oid}" for oid in known))


def diff(task: Task, folder: str) -> int:
    """Print a diff of everything against the start; the exit status is PART if it is incomplete."""
    tree = WorkTree.opened(folder, task)
    if not tree:
        return 1
    tree.copied()
    if not tree.readable() or not os.path.exists(tree.index):
        tree.fresh()
    whole = tree.whole() or tree.rescued(tree.git.name("HEAD"))
    part = 0 if whole and not tree.barred else PART
    settings = ("-c", "core.quotePath=false", "-c", "color.ui=false")
    return tree.git.shown(*settings, "diff", "--cached", "--no-ext-diff", "--no-textconv", task.start, "--") or part


def forget(folder: str, kept: str, before: str) -> int:
    """Undo the commit `kept` of uncommitted changes, on top of `before`, in the work tree that has it as HEAD."""
    git = Git(folder, {**os.environ, "PWD": folder})
    for item in git.items("worktree", "list", "--porcelain", "-z"):
        kind, _, path = item.partition(" ")
        if kind == "worktree":
            git.run("-C", path, "update-ref", "HEAD", before, kept)
    own = {"GIT_DIR": _own(), "GIT_WORK_TREE": folder}
    for each in (git, Git(folder, {**git.env, **own})):
        for name in each.text("for-each-ref", f"--points-at={kept}", "--format=%(refname)", _LAST).split():
            each.run("update-ref", "-d", name, kept)
    return 0


def tell_some(kind: str, whys: Sequence[str], where: str = "") -> None:
    """Print the first reasons, and the number of the others."""
    for why in whys[:_WHYS]:
        tell(kind, why=f"{where}{why}")
    if len(whys) > _WHYS:
        tell(kind, why=f"{where}and {len(whys) - _WHYS} more")


def tell(kind: str, **fields: str) -> None:
    """Print one answer; long names are cut."""
    print(json.dumps({"kind": kind, **{name: text[:_TEXT] for name, text in fields.items()}}), flush=True)


# --- files ------------------------------------------------------------------------------------------------------------


def permit(folder: str) -> None:
    """Make everything in a folder readable, as far as possible; it is the agent's own."""
    folders = [folder]
    with suppress(OSError):
        _permit(folder, os.stat(folder).st_mode)
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with suppress(OSError):  # it is gone, or another's
                    mode = entry.stat(follow_symlinks=False).st_mode
                    if stat.S_ISDIR(mode):
                        folders.append(entry.path)
                    _permit(entry.path, mode)


def _permit(path: str, mode: int) -> None:
    """Add missing permissions for ourselves; to write as well, since a `.git` must be writable."""
    folder = stat.S_ISDIR(mode)
    needed = stat.S_IRUSR | (stat.S_IXUSR if folder else 0)
    if (folder or stat.S_ISREG(mode)) and needed & ~mode:
        os.chmod(path, stat.S_IMODE(mode) | needed | stat.S_IWUSR)


def walk(folder: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield everything in a folder with its relative path, except the content of a `.git`."""
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
        with suppress(OSError):  # it is gone
            wanted = entry.name != ".git" and entry.is_file(follow_symlinks=False)
            if wanted and entry.stat(follow_symlinks=False).st_size > size:
                yield path


def nested(folder: str) -> Iterator[str]:
    """Yield the folders inside that have a `.git`."""
    for path, entry in walk(folder):
        if entry.name == ".git" and path != ".git":
            yield os.path.dirname(path)


def add(git: Git, size: int) -> Done[bytes]:
    """Add a work tree to the index, without files of more than `size` bytes and nested repositories."""
    unhide(git)
    # An excluded path that is ignored, or in a submodule, makes git fail.
    apart = [path for path in (*large(git.folder, size), *nested(git.folder)) if not git.ignores(path)]
    paths = _joined([".", *(f":(exclude,literal){path}" for path in apart)])
    return git.run("add", "--all", "--ignore-errors", "--pathspec-from-file=-", "--pathspec-file-nul", stdin=paths)


def hidden(git: Git) -> tuple[list[str], list[str]]:
    """Return the files that git skips: those assumed unchanged, and those present in spite of skip-worktree."""
    assumed = [item[2:] for item in git.items("ls-files", "-v", "-z") if item[:1].islower()]
    skipped = [item[2:] for item in git.items("ls-files", "-t", "-z") if item.startswith("S ")]
    return assumed, [path for path in skipped if os.path.lexists(os.path.join(git.folder, path))]


def unhide(git: Git) -> None:
    """Make git examine the files that the agent has hidden from it, if they exist."""
    assumed, skipped = hidden(git)
    if assumed:
        git.run("update-index", "--no-assume-unchanged", "-z", "--stdin", stdin=_joined(assumed))
    if skipped:
        git.run("update-index", "--no-skip-worktree", "-z", "--stdin", stdin=_joined(skipped))


def barred(said: str) -> list[str]:
    """Return git's warnings that end with a system error: the file that they name is left out.

    A long name can hide the error at the end.
    """
    ends = ((line, line.rpartition(": ")[2]) for line in said.split("\n"))
    return [line for line, end in ends if end in _BARRED or (line.startswith(_UNOPENED) and end not in _GONE)]


def reasons(said: str) -> tuple[str, ...]:
    """Return git's messages about a failure, without those common to all."""
    lines = [line for line in said.split("\n") if line and not line.startswith("hint: ")]
    errors = [line for line in lines if line.startswith(("error: ", "fatal: ")) and line != _EVERY_TIME]
    return tuple(errors or lines)


def _lasting(error: OSError) -> OSError:
    """Return the error of a process that cannot be started; raise it if the bottle has no room for one."""
    if error.errno in (errno.EAGAIN, errno.ENOMEM):
        raise error
    return error


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _joined(items: Iterable[str]) -> bytes:
    return b"".join(item.encode("utf-8", "surrogateescape") + b"\0" for item in items)


def _english(env: dict[str, str]) -> dict[str, str]:
    """Return an environment with English messages of git, otherwise the agent's."""
    env = {**env, "LC_MESSAGES": "C", "LANGUAGE": ""}
    if every := env.pop("LC_ALL", ""):
        env.update(LANG=every, LC_CTYPE=every)
    return env


def _gitdir(folder: str) -> str:
    """Return the path of a work tree's repository, there or not."""
    link = _read(os.path.join(folder, ".git"))
    return os.path.join(folder, link[len("gitdir: ") :] if link.startswith("gitdir: ") else ".git")


def _own() -> str:
    """Return the path of the repository of our own."""
    return os.path.join(_temporary(), ".claude-bottle.git")


def _temporary() -> str:
    return os.environ.get("TMPDIR") or "/tmp"  # noqa: S108  (as mktemp has it)


def _same(one: str, other: str) -> bool:
    """Return whether two paths lead to the same existing file."""
    with suppress(OSError, ValueError):
        return os.path.samefile(one, other)
    return False


def _unref(head: str) -> str:
    """Return the ref or commit in a HEAD file."""
    return head[len("ref: ") :] if head.startswith("ref: ") else head


def _read(path: str) -> str:
    """Return a file's text without NULs and its last newlines; empty if it cannot be read."""
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
    """Copy a file or folder, links as links, as far as possible."""
    with suppress(OSError, RecursionError):  # what shutil raises is one of them
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
        scratch = "/nonexistent"  # commands that need an index of our own fail
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
