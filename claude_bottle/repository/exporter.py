"""Get the work out of a bottle: commit what was left uncommitted, list what there is, bundle it, show what changed.

Runs in the bottle as the agent's user, beside whatever the agent still runs. Sent over stdin to Python, with a command
and its words as arguments: so it is for Python 3.9, the standard library alone, and imports nothing of claude_bottle.

Git's state is whatever the agent has made of it. A `.git` that cannot be used, or written to, is left as it is, and a
repository of our own, without filters, is put on top of its objects; an index that is locked or broken is replaced by
one of our own. No hook, no signature, no file monitor.

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
_LARGE = 20  # files that are listed, at most
_COMMITS = 100  # that are listed of those without a branch, and as many branches, at most
_PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds before another try in a bottle without room for a process, as bash has them
_NESTED = 1000  # repositories inside a work tree that are listed, at most
_WHYS = 20  # things that git does not take that are named, at most
_TEXT = 1000  # characters that are printed of a name, at most
_EVERY_TIME = "fatal: adding files failed"  # git says so after what it says of the files
_BLOCK = 1 << 16  # bytes
_SETTINGS = (
    *("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=", "-c", "gc.auto=0"),
    # Outside of a sparse checkout git would leave out what is there, if it is tracked without a word.
    *("-c", "advice.addEmbeddedRepo=false", "-c", "core.sparseCheckout=false"),
)
# Of a status, whatever the agent has set.
_EVERYTHING = ("--untracked-files=all", "--ignore-submodules=none")
_REFS = ("for-each-ref", "--format=%(objectname)")  # one whose object is missing is no reason to do without the others
_OWN = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # what leads git away from the agent's repository
_COPIED = ("packed-refs", "refs", "logs")
_HELD = (stat.S_ISREG, stat.S_ISDIR, stat.S_ISLNK)  # the kinds of file that git can hold
_RAW = "-text -working-tree-encoding -ident"  # git refuses a file that these do not fit
_UNDER_WAY = ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "rebase-apply")
_MESSAGE = b"""Keep what was left uncommitted

Made by claude-bottle as the work was fetched out of the bottle: no commit of the agent's.
"""
_LAST = "refs/claude-bottle/last"  # below it, for each work tree, the last commit that was made beside its HEAD
_IDENTITY = (("NAME", "claude-bottle"), ("EMAIL", "claude-bottle@localhost"))
# What git says of something that has gone, which is no loss.
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
        """Return a git command with the settings that keep hooks and the like out of it."""
        return ("git", *_SETTINGS, *words)

    def run(self, *words: str, stdin: bytes = b"") -> Done[bytes]:
        """Run a command to its end; if the folder is not there any more, say, it fails as any other."""
        argv, pipe = self.argv(*words), subprocess.PIPE
        try:
            process = self._started(argv, stdin=pipe, stdout=pipe, stderr=pipe)
        except OSError as error:
            return Done(argv, 127, b"", f"{_lasting(error)}\n".encode("utf-8", "surrogateescape"))
        with process:
            out, err = process.communicate(stdin)
        return Done(argv, process.returncode, out, err)

    def _started(self, argv: Sequence[str], **pipes: int | None) -> subprocess.Popen[bytes]:
        """Start a command, again and again if the bottle has no room for a process."""
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
        """Return what a command prints, less the newlines at its end; nothing if it fails."""
        done = self.run(*words)
        return _text(done.stdout).rstrip("\n") if done.returncode == 0 else ""

    def items(self, *words: str) -> Iterator[str]:
        """Yield what a command prints with a NUL after each item: of a million files, one by one."""
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
        """Run a command that prints to our own stdout and stderr; return its exit status."""
        with self._started(self.argv(*words), stdin=subprocess.DEVNULL) as process:
            return process.wait()

    def name(self, revision: str) -> str:
        """Return the full name of an object; nothing if there is none."""
        return self.text("rev-parse", "--quiet", "--verify", revision)

    def toplevel(self) -> str:
        """Return the root of the work tree that git sees; nothing if it sees none."""
        return self.text("rev-parse", "--show-toplevel")

    def ignores(self, path: str) -> bool:
        """Return whether a path is ignored, or within a submodule, where git does not look."""
        return self.run("check-ignore", "--quiet", "--", f"./{path}").returncode != 1  # "./" since : may begin magic

    def alone(self, folder: str) -> Git:
        """Return git in another folder, with the repository that it finds there."""
        env = {name: value for name, value in self.env.items() if name not in _OWN}
        return Git(folder, {**env, "PWD": folder})


class WorkTree:
    """A work tree, and what of git can be used on it."""

    def __init__(self, git: Git, theirs: str, task: Task) -> None:
        """Take the agent's repository `theirs` as it is; see `opened`."""
        self.git, self.theirs, self.task = git, theirs, task
        self.index = ""  # the agent's own
        self.nested: list[str] = []  # repositories inside, whose files were put in their place
        self.said = self.why = ""  # by git, of the last thing and the first one that failed
        self.refless = False  # the agent's refs cannot be read at all
        self.barred: list[str] = []  # what git only warns of: it leaves something out, and succeeds

    @classmethod
    def opened(cls, folder: str, task: Task) -> WorkTree | None:
        """Return the bottle's main work tree; None if nothing can be done with it."""
        permit(folder)
        permit(_gitdir(folder))
        git = Git(folder, _english({**os.environ, "PWD": folder}))
        top = git.toplevel()
        if not top:  # what the agent has set for itself may be at fault
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

        `at` is where its HEAD shall be, the agent's if not given; `attributes` shall not count, nor do filters.
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
            self.git.run("update-ref", *ref.split(), "")  # unless the agent's repository has it, too
        at = at or _read(os.path.join(self.theirs, "HEAD"))
        at = self.git.name(f"{_unref(at)}^{{commit}}") or self.task.start
        self.git.run("update-ref", "--no-deref", "HEAD", at)
        if not env.get("GIT_INDEX_FILE"):
            self.git.run("read-tree", "HEAD")  # what is tracked and ignored is nowhere else
        return True

    def _fill(self, made: str, attributes: str) -> None:
        """Copy what counts of the agent's repository, but for its settings, and see its objects."""
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
        """Use an index of what the HEAD has from here on."""
        self.git.env["GIT_INDEX_FILE"] = self.task.index()
        self.git.run("read-tree", "HEAD")
        return True

    def readable(self) -> bool:
        """Return whether git can read the index."""
        return self.git.ok("ls-files")

    def busy(self) -> bool:
        """Return whether a merge, rebase or the like is under way, which stays as it is."""
        return any(os.path.exists(os.path.join(os.path.dirname(self.index), name)) for name in _UNDER_WAY)

    def whole(self) -> bool:
        """Put all of the work tree into the index, what is in another repository after that one's own.

        Return whether git took everything; if not, `said` is why not.
        """
        self.barred = []
        if not self._added(self.git):
            return False
        self.nested, self.said, good, over = [], "", True, list[str]()
        for at in sorted(self._folders(), key=os.fsencode):
            good = self._plain(at, over) and good
        return good

    def _added(self, git: Git) -> bool:
        """Put a work tree into its index; return whether git took what it can see, what else is in `barred`."""
        done = add(git, self.task.size)
        self.said = _text(done.stderr)
        self.barred += barred(self.said)
        return done.returncode == 0

    def _folders(self) -> Iterator[str]:
        """Yield where there are repositories inside this one, or would be submodules."""
        yield from nested(self.git.folder)
        for item in self.git.items("ls-files", "--stage", "-z"):
            mode, _, path = item.partition("\t")
            if mode.startswith("160000 ") and not os.path.exists(os.path.join(self.git.folder, path, ".git")):
                yield path

    def _plain(self, at: str, over: list[str]) -> bool:
        """Put the files of a repository inside this one, or of a submodule, in place of what the index has of it.

        Return whether that worked. What is known, and is added to `over`, stays as it is with all that is below it.
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
        """Write a tree of a folder's files, as if it were a work tree by itself; return its name, if git can."""
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
        """Return whether a folder is a submodule as it came, or another work tree, which comes by itself."""
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
        """Put all into the index of a repository of our own, with `at` as its HEAD; return whether it was all."""
        for attributes in ("", _RAW):
            if self.own(at, attributes) and self.whole():
                return True
        self.copied()
        if self.own(at):
            self.whole()
        return False

    def kept(self) -> Kept:
        """Commit what was left uncommitted."""
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
        """Write the index as a tree, somehow; return its name."""
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
        """Commit a tree on top of `old`, if there is one; return the commit, nothing if git fails.

        If the index is not the agent's own, its HEAD stays, too, and the same files make the same commit again.
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
        """Return what a commit beside the HEAD is on top of, so that one branch can have it after the last one.

        That is the last one, if it has only commits of ours on top of `old`; while a rebase moves the HEAD, both.
        """
        last = self.git.name(f"{self._last()}^{{commit}}")
        if not old or not last or self.git.ok("merge-base", "--is-ancestor", last, old):
            return (old,)
        if self.git.ok("merge-base", "--is-ancestor", old, last):
            made = self.git.text("log", "--no-show-signature", "--format=%ce", f"{old}..{last}").split("\n")
            return (last,) if set(made) == {_IDENTITY[1][1]} or self.busy() else (old,)
        return (old, last) if self.busy() else (old,)

    def large(self) -> Iterator[str]:
        """Yield the files that are too large, unless they are ignored or as they were committed."""
        for path in large(self.git.folder, self.task.size):
            if self.git.run("--literal-pathspecs", "status", "--porcelain", *_EVERYTHING, "--", path).stdout:
                yield path

    def special(self) -> Iterator[str]:
        """Yield sockets, FIFOs and devices, which git passes over, unless they are ignored."""
        for path, entry in walk(self.git.folder):
            with suppress(OSError):  # it is gone
                mode = entry.stat(follow_symlinks=False).st_mode
                if not any(is_it(mode) for is_it in _HELD) and not self.git.ignores(path):
                    yield path


@dataclass
class Kept:
    """A commit of what was left, on top of the agent's own last one, where there are any; `why` it has not all."""

    new: str
    old: str
    why: tuple[str, ...]


class Task:
    """What is asked: the commit where the bottle began, and a size in bytes; and room for indexes of our own."""

    def __init__(self, start: str, size: int, scratch: str) -> None:
        """Take a folder for the indexes."""
        self.start, self.size, self._scratch = start, size, scratch
        self._number = itertools.count()

    def index(self) -> str:
        """Return a name for another index."""
        return os.path.join(self._scratch, f"index-{next(self._number)}")


class Commits:
    """What there is beside the HEAD: other branches, stashes, commits that were made on none."""

    def __init__(self, tree: WorkTree) -> None:
        """See the agent's refs, in a repository of our own if its git cannot."""
        self.folder, self.start = tree.theirs, tree.task.start
        self.old = tree.git.name("HEAD^{commit}")
        self.why: list[str] = []  # something of it cannot be read
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
        """Yield an object's name and the rest of each line that a command prints; what else it says is in `why`."""
        done = self._git.run(*self._words(*words))
        said = _text(done.stderr)
        why = reasons(said) if done.returncode else [*_BROKEN.findall(said), *barred(said)]
        self.why += [each for each in why if each not in self.why]
        for line in _text(done.stdout).split("\n"):
            oid, _, what = line.partition(" ")
            if oid:
                yield oid, what

    def loose(self, oid: str) -> bool:
        """Return whether a commit is on no way to the HEAD, the start or a branch."""
        ancestor = ("merge-base", "--is-ancestor", oid)
        if not oid or self._ok(*ancestor, self.old or self.start) or self._ok(*ancestor, self.start):
            return False
        return not self._git.text(*self._words("for-each-ref", "--count=1", f"--contains={oid}", "refs/heads"))

    def unnamed(self) -> Iterator[tuple[str, str]]:
        """Yield stashes, and the commits that the agent has left for another without a branch, with what they are."""
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
        """Yield the branches that are not on the way to the HEAD or the start, those named bottle/... first."""
        merged = [self.old, self.start if self._ok("cat-file", "-e", self.start) else ""]
        self._check()
        known = [f"--no-merged={oid}" for oid in merged if oid]
        for under in ("refs/heads/bottle", "refs/heads"):
            yield from self._lines("for-each-ref", *known, "--format=%(objectname) branch %(refname:lstrip=2)", under)

    def tags(self) -> Iterator[tuple[str, str]]:
        """Yield the tags of commits, with these; all are the agent's, for none comes in."""
        form = "--format=%(if)%(*objectname)%(then)%(*objectname)%(else)%(objectname)%(end) %(refname:lstrip=2)"
        for oid, name in self._lines("for-each-ref", form, "refs/tags"):
            if self._ok("cat-file", "-e", f"{oid}^{{commit}}"):
                yield oid, name

    def _check(self) -> None:
        """Note the branches without their commit, which git passes over."""
        refs = list(self._lines("for-each-ref", "--format=%(objectname) %(refname:lstrip=2)", "refs/heads"))
        asked = "".join(f"{oid}^{{commit}}\n" for oid, _ in refs).encode()
        answers = self._git.run(*self._words("cat-file", "--batch-check"), stdin=asked).stdout.split(b"\n")
        for (_, name), answer in zip(refs, answers):  # noqa: B905  (Python 3.9)
            if answer.endswith(b" missing"):
                self.why.append(f"the commit of branch {name} is missing")

    def worktrees(self) -> list[str]:
        """Return the folders in which other work trees have their index and HEAD."""
        folder = os.path.join(self.folder, "worktrees")
        with suppress(OSError):
            return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if not name.startswith(".")]
        return []


# --- the commands -----------------------------------------------------------------------------------------------------


def keep(task: Task, folder: str) -> int:
    """Commit what was left uncommitted in each work tree, and print what there is."""
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
        except OSError as error:  # it has gone meanwhile, say: the others must come
            tell("failed", why=f"in {each}: {error.strerror}")
    return 0


def beside(main_tree: WorkTree, commits: Commits, folder: str) -> None:
    """Commit what was left in another work tree, which has its index and HEAD in `folder`, and print what there is."""
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
    """Print what does not come out of a work tree, or not as it is; `place` if it is not the main one."""
    tell_some("failed", kept.why, f"in {place}: " if place else "")
    for path in tree.nested[:_NESTED]:
        tell("nested", path=os.path.join(place, path))
    for path in itertools.islice(tree.large(), _LARGE):
        tell("large", path=os.path.join(place, path))
    for path in itertools.islice(tree.special(), _LARGE):
        tell("special", path=os.path.join(place, path))


def bundle(task: Task, folder: str, tip: str, out: str, *before: str) -> int:
    """Print a bundle with the one ref `out`: of `tip`, less what the bottle began with or came out `before`."""
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
    """Print the difference of all that there is to the start; the exit status is PART if that is not everything."""
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
    """Take back the commit `kept` of what was left, on top of `before`, in whichever work tree it is the HEAD's."""
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
    """Print the first of many reasons, and how many more there are."""
    for why in whys[:_WHYS]:
        tell(kind, why=f"{where}{why}")
    if len(whys) > _WHYS:
        tell(kind, why=f"{where}and {len(whys) - _WHYS} more")


def tell(kind: str, **fields: str) -> None:
    """Print one thing that is known; long names are cut."""
    print(json.dumps({"kind": kind, **{name: text[:_TEXT] for name, text in fields.items()}}), flush=True)


# --- files ------------------------------------------------------------------------------------------------------------


def permit(folder: str) -> None:
    """Let ourselves read all there is in a folder, which is the agent's own, as far as that can be done."""
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
    """Open what is closed to ourselves, for writing too, as what is in a `.git` must be."""
    folder = stat.S_ISDIR(mode)
    needed = stat.S_IRUSR | (stat.S_IXUSR if folder else 0)
    if (folder or stat.S_ISREG(mode)) and needed & ~mode:
        os.chmod(path, stat.S_IMODE(mode) | needed | stat.S_IWUSR)


def walk(folder: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield everything in a folder, by its path there, but what is in a `.git`."""
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
    """Add all of a work tree to the index, but what is larger than `size` bytes or in another repository."""
    unhide(git)
    # Git takes amiss what is excluded, and ignored or in a submodule.
    apart = [path for path in (*large(git.folder, size), *nested(git.folder)) if not git.ignores(path)]
    paths = _joined([".", *(f":(exclude,literal){path}" for path in apart)])
    return git.run("add", "--all", "--ignore-errors", "--pathspec-from-file=-", "--pathspec-file-nul", stdin=paths)


def hidden(git: Git) -> tuple[list[str], list[str]]:
    """Return the files that git does not look at: those taken as unchanged, and those there that need not be."""
    assumed = [item[2:] for item in git.items("ls-files", "-v", "-z") if item[:1].islower()]
    skipped = [item[2:] for item in git.items("ls-files", "-t", "-z") if item.startswith("S ")]
    return assumed, [path for path in skipped if os.path.lexists(os.path.join(git.folder, path))]


def unhide(git: Git) -> None:
    """Have git look at the files that the agent has told it not to look at, if they are there."""
    assumed, skipped = hidden(git)
    if assumed:
        git.run("update-index", "--no-assume-unchanged", "-z", "--stdin", stdin=_joined(assumed))
    if skipped:
        git.run("update-index", "--no-skip-worktree", "-z", "--stdin", stdin=_joined(skipped))


def barred(said: str) -> list[str]:
    """Return the lines of git's that end with an error of the system: what they name is left out.

    A long name can take the error's place at the end.
    """
    ends = ((line, line.rpartition(": ")[2]) for line in said.split("\n"))
    return [line for line, end in ends if end in _BARRED or (line.startswith(_UNOPENED) and end not in _GONE)]


def reasons(said: str) -> tuple[str, ...]:
    """Return what git said of a failure, less what it says of every one."""
    lines = [line for line in said.split("\n") if line and not line.startswith("hint: ")]
    errors = [line for line in lines if line.startswith(("error: ", "fatal: ")) and line != _EVERY_TIME]
    return tuple(errors or lines)


def _lasting(error: OSError) -> OSError:
    """Return why a process cannot be started, unless it is that the bottle has no room for it."""
    if error.errno in (errno.EAGAIN, errno.ENOMEM):
        raise error
    return error


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _joined(items: Iterable[str]) -> bytes:
    return b"".join(item.encode("utf-8", "surrogateescape") + b"\0" for item in items)


def _english(env: dict[str, str]) -> dict[str, str]:
    """Return an environment in which git's messages are English; all else is as the agent has it."""
    env = {**env, "LC_MESSAGES": "C", "LANGUAGE": ""}
    if every := env.pop("LC_ALL", ""):
        env.update(LANG=every, LC_CTYPE=every)
    return env


def _gitdir(folder: str) -> str:
    """Return where a work tree has its repository, if it has one."""
    link = _read(os.path.join(folder, ".git"))
    return os.path.join(folder, link[len("gitdir: ") :] if link.startswith("gitdir: ") else ".git")


def _own() -> str:
    """Return where a repository of our own is."""
    return os.path.join(_temporary(), ".claude-bottle.git")


def _temporary() -> str:
    return os.environ.get("TMPDIR") or "/tmp"  # noqa: S108  (as mktemp has it)


def _same(one: str, other: str) -> bool:
    """Return whether two paths lead to the same thing, which is there."""
    with suppress(OSError, ValueError):
        return os.path.samefile(one, other)
    return False


def _unref(head: str) -> str:
    """Return what a HEAD file leads to."""
    return head[len("ref: ") :] if head.startswith("ref: ") else head


def _read(path: str) -> str:
    """Return a file's text, less NULs and the newlines at its end; nothing if it cannot be read."""
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
    """Copy a file or folder, links as links, as far as that can be done."""
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
        scratch = "/nonexistent"  # what needs an index of our own fails
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
