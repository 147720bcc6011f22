"""Summarize the work that came back from a bottle, safe to print, with warnings about files that would run."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from claude_bottle.documents.escaping import escape_control_chars, quoted
from claude_bottle.errors import RepositoryError
from claude_bottle.repository import git
from claude_bottle.repository.autorun_files import runs_by_itself
from claude_bottle.repository.clone import Work
from claude_bottle.repository.git import Git

_LINES = 20  # of log and stat together
_COMMITS = 9  # lines of the log among them
_WIDTH = 160  # characters of one line
_STATTED = 100_000  # files, at most, whose lines are counted
_NAMED = 40  # paths listed in one warning
_SECONDS = 60.0  # for each git command; a tree can contain more files than anybody could list
_WARY = {"GIT_ALLOC_LIMIT": str(1 << 25)}
_SETTINGS = ("-c", "core.quotePath=false", "-c", "core.bigFileThreshold=4m", "-c", "color.ui=false")
_DIFF = ("--no-ext-diff", "--no-textconv", "--no-renames", "--ignore-submodules=none")
_SUBMODULE, _LINK = "160000", "120000"  # git's file modes
_TARGET = 4095  # bytes of a link's target; the kernel follows no longer one (PATH_MAX)
_LINKS = 10_000  # targets of links that are examined
_DIGITS = 20  # bytes of a size, and of the line that it is on


@dataclass
class _Named:
    """The paths of one warning: their number, and the first of them."""

    what: str
    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, path: str) -> None:
        self.count += 1
        if len(self.first) < _NAMED:
            self.first.append(_cut(path))

    def lines(self) -> Iterator[str]:
        if self.count:
            yield f"beware  {self.what}:"
            yield from (f"        {path}" for path in self.first)
        if self.count > _NAMED:
            yield f"        ... and {self.count - _NAMED} more"


@dataclass
class _Seen:
    """What is known of the files of a commit, without a list of all."""

    count: int = 0  # of changed files
    links: set[str] = field(default_factory=set)  # targets to examine, by their object ids, _LINKS at most
    linked: bool = False
    runs: _Named = field(
        default_factory=lambda: _Named("files that run automatically on this machine, or by an everyday command")
    )
    out: _Named = field(default_factory=lambda: _Named("links that lead out of the repository, or into its .git"))
    alone: _Named = field(default_factory=lambda: _Named("submodules, of which only the commit ids came back"))
    fault: str = ""  # why the examination is incomplete

    def take(self, mode: str, oid: str, path: str) -> None:
        self.count += 1
        if not mode.strip("0"):  # deleted
            return
        if runs_by_itself(path):
            self.runs.add(path)
        if mode == _SUBMODULE:
            self.alone.add(path)
        if mode == _LINK:
            self.linked = True
            if len(self.links) < _LINKS:
                self.links.add(oid)

    def lines(self) -> Iterator[str]:
        for named in (self.runs, self.out, self.alone):
            yield from named.lines()
        if self.fault:
            yield f"beware  {self.fault}"


def told(quarantine: Git, work: Work, tip: str, branch: str) -> str:
    """Return the summary of a fetched `branch`: its commits, its files, the next commands, warnings.

    The branch exists already, so it is reported even if there is no time to examine it.
    """
    seen = _look(quarantine, work.start, tip)
    lines = [
        f"branch  {branch} in {escape_control_chars(str(work.repository))}",
        *(f"        {line}" for line in _summary(quarantine, work.start, tip, seen)),
        *_commands(work, branch),
        *seen.lines(),
    ]
    return "".join(f"{line}\n" for line in lines)


def _summary(quarantine: Git, start: str, tip: str, seen: _Seen) -> list[str]:
    """Return `git log --oneline` and `git diff --stat`, of _LINES lines together at most."""
    new = (tip, f"^{start}")
    log = _asked(quarantine, seen, "log", "--no-show-signature", "--format=%h %s", f"--max-count={_COMMITS}", *new)
    count = _asked(quarantine, seen, "rev-list", "--count", *new)
    more = int(count[0]) - len(log) if count and count[0].isdecimal() else 0
    log += [f"... and {more} more"] if more > 0 else []
    if seen.count > _STATTED:
        stat = [f"{seen.count} files changed"]
    else:
        room = _LINES - len(log) - 2
        stat = _asked(quarantine, seen, "diff", *_DIFF, "--stat=100", f"--stat-count={room}", start, tip)
    return [_cut(line) for line in (*log, *stat)]


def _commands(work: Work, branch: str) -> Iterator[str]:
    where = f"git -C {quoted(str(work.repository))}"
    yield f"  look  {where} diff {work.start[:12]} {branch}"
    yield f" merge  {where} merge {branch}"
    if work.start != work.commit:
        yield "        first commit or stash the included changes, or git refuses to merge: the branch has them, too"


def _look(quarantine: Git, start: str, tip: str) -> _Seen:
    """Examine each file changed by a commit."""
    seen = _Seen()
    try:
        if _each(quarantine, start, tip, seen.take, seen) and seen.linked:
            targets = _targets(quarantine, sorted(seen.links))

            def examine(mode: str, oid: str, path: str) -> None:
                if mode == _LINK and leads_out(path, targets.get(oid, "")):
                    seen.out.add(path)

            _each(quarantine, start, tip, examine, seen)
    except RepositoryError as error:
        seen.fault = f"not all of it was examined: {error}"
    return seen


def _each(quarantine: Git, start: str, tip: str, take: Callable[[str, str, str], None], seen: _Seen) -> bool:
    """Call `take` with mode, object id and path of each changed file; return whether all were listed, else note why."""
    head = b""

    def field_of(data: bytes) -> None:
        nonlocal head
        if not head:
            head = data
            return
        mode, oid = head.split()[1:4:2]
        head = b""
        take(mode.decode(), oid.decode(), data.decode(errors="surrogateescape"))

    words = (*_SETTINGS, "diff", *_DIFF, "--raw", "--no-abbrev", "-z", start, tip)
    listed = quarantine.each(*words, take=field_of, end=b"\0", timeout=_SECONDS, more=_WARY)
    if not listed.ok:
        seen.fault = f"its files cannot be listed: {git.reason(listed)}"
    return listed.ok


def _targets(quarantine: Git, oids: list[str]) -> Mapping[str, str]:
    """Return the targets of links by object id, without those that are too long."""
    sizes = _batch(quarantine, oids, "--batch-check=%(objectsize)").split()
    short = [oid for oid, size in zip(oids, sizes, strict=False) if int(size) <= _TARGET]
    targets, rest = dict[str, str](), memoryview(_batch(quarantine, short, "--batch=%(objectsize)"))
    for oid in short:
        digits = bytes(rest[:_DIGITS]).partition(b"\n")[0]
        begin = len(digits) + 1
        end = begin + int(digits or 0)
        targets[oid], rest = git.text(bytes(rest[begin:end])), rest[end + 1 :]
    return targets


def _batch(quarantine: Git, oids: list[str], what: str) -> bytes:
    """Return git's output about the targets of some links, each of at most _TARGET bytes; empty if it fails."""
    stdin = "".join(f"{oid}\n" for oid in oids).encode()
    most = len(oids) * (_TARGET + _DIGITS)
    result = quarantine.run("cat-file", what, stdin=stdin, limit=most, timeout=_SECONDS, more=_WARY)
    return result.stdout if result.ok else b""


def leads_out(path: str, target: str) -> bool:
    """Return whether a link at `path` may lead out of the work tree or into its .git.

    A target with `..` after a folder counts as leading out, since that folder may be another link.
    """
    parts = [part for part in target.split("/") if part not in ("", ".")]
    down = list(itertools.dropwhile(lambda part: part == "..", parts))
    above = len(parts) - len(down) > path.count("/")
    inner = any(part == ".." or part.casefold() == ".git" for part in down)
    return target.startswith("/") or not target or above or inner


def _asked(quarantine: Git, seen: _Seen, *words: str) -> list[str]:
    """Return the non-empty lines of git's output; fewer if time is up."""
    lines = list[str]()

    def take(line: bytes) -> None:
        if text := line.decode(errors="replace").strip():
            lines.append(text)

    try:
        quarantine.each(*_SETTINGS, *words, take=take, timeout=_SECONDS, more=_WARY)
    except RepositoryError as error:  # no time left
        seen.fault = seen.fault or f"not all of it was examined: {error}"
    return lines


def _cut(line: str) -> str:
    shown = escape_control_chars(line)
    return shown if len(shown) <= _WIDTH else f"{shown[:_WIDTH]}..."
