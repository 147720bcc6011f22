"""Summarize the work that came back from a bottle, safe to print, with warnings about files that would run."""

import itertools
from collections.abc import Iterator

from claude_bottle.documents.escaping import harmless, quoted
from claude_bottle.errors import RepositoryError
from claude_bottle.repository import git
from claude_bottle.repository.autorun_files import runs_by_itself
from claude_bottle.repository.clone import Work
from claude_bottle.repository.git import Git

_LINES = 20  # of log and stat together
_COMMITS = 9  # lines of the log among them
_WIDTH = 160  # characters of one line
_NAMED = 40  # paths listed in one warning
_SECONDS = 60.0  # for each question; a tree can be made to name more files than anybody could list
_WARY = {"GIT_ALLOC_LIMIT": str(1 << 25)}
_SETTINGS = ("-c", "core.quotePath=false", "-c", "core.bigFileThreshold=4m", "-c", "color.ui=false")
_DIFF = ("--no-ext-diff", "--no-textconv", "--no-renames", "--ignore-submodules=none")
_SUBMODULE, _LINK = "160000", "120000"  # git's file modes
_TARGET = 4095  # bytes of a link's target; the kernel follows no longer one (PATH_MAX)
_LINKS = 10_000  # links whose targets are examined


def told(quarantine: Git, work: Work, tip: str, branch: str) -> str:
    """Return what came back as `branch`: its commits, its files, what to do with it, and what to beware of.

    It is there already: if there is no time to look at it, that much is said all the same.
    """
    lines = [
        f"branch  {branch} in {harmless(str(work.repository))}",
        *(f"        {line}" for line in _summary(quarantine, work.start, tip)),
        *_commands(work, branch),
        *_beware(quarantine, work.start, tip),
    ]
    return "".join(f"{line}\n" for line in lines)


def _summary(quarantine: Git, start: str, tip: str) -> list[str]:
    """Return `git log --oneline` and `git diff --stat`, of _LINES lines together at most."""
    new = (tip, f"^{start}")
    log = _asked(quarantine, "log", "--no-show-signature", "--format=%h %s", f"--max-count={_COMMITS}", *new)
    count = _asked(quarantine, "rev-list", "--count", *new)
    more = int(count[0]) - len(log) if count and count[0].isdecimal() else 0
    log += [f"... and {more} more"] if more > 0 else []
    room = _LINES - len(log) - 2
    stat = _asked(quarantine, "diff", *_DIFF, "--stat=100", f"--stat-count={room}", start, tip)
    return [_cut(line) for line in (*log, *stat)]


def _commands(work: Work, branch: str) -> Iterator[str]:
    where = f"git -C {quoted(str(work.repository))}"
    yield f"  look  {where} diff {work.start[:12]} {branch}"
    yield f" merge  {where} merge {branch}"
    if work.start != work.commit:
        yield "        first commit or stash the included changes, or git refuses to merge: the branch has them, too"


def _beware(quarantine: Git, start: str, tip: str) -> Iterator[str]:
    try:
        yield from _warnings(quarantine, start, tip)
    except RepositoryError as error:
        yield f"beware  not all of it was looked at: {error}"


def _warnings(quarantine: Git, start: str, tip: str) -> Iterator[str]:
    how = ("--raw", "--no-abbrev", "-z")
    listed = quarantine.run(*_SETTINGS, "diff", *_DIFF, *how, start, tip, timeout=_SECONDS, more=_WARY)
    if not listed.ok:
        yield f"beware  its files cannot be listed: {git.reason(listed)}"
        return
    fields = git.text(listed.stdout).split("\0")
    pairs = zip(fields[::2], fields[1::2], strict=False)
    there = [(*head.split()[1:4:2], path) for head, path in pairs if head[-1:] != "D"]
    found = [path for _, _, path in there if runs_by_itself(path)]
    if found:
        yield "beware  files that run automatically on this machine, or by an everyday command:"
        yield from _paths(found)
    if out := _leading_out(quarantine, [(oid, path) for mode, oid, path in there if mode == _LINK]):
        yield "beware  links that lead out of the repository, or into its .git:"
        yield from _paths(out)
    if alone := [path for mode, _, path in there if mode == _SUBMODULE]:
        yield "beware  submodules, of which only the commit ids came back:"
        yield from _paths(alone)


def _leading_out(quarantine: Git, links: list[tuple[str, str]]) -> list[str]:
    """Return the paths of those links, given as (object id, path), that lead out or cannot be examined."""
    oids = sorted({oid for oid, _ in links})
    sizes = _batch(quarantine, oids, "--batch-check=%(objectsize)").split()
    short = [oid for oid, size in zip(oids, sizes, strict=False) if int(size) <= _TARGET][:_LINKS]
    targets, rest = dict[str, str](), _batch(quarantine, short, "--batch=%(objectsize)")
    for oid in short:
        size, _, rest = rest.partition(b"\n")
        targets[oid], rest = git.text(rest[: int(size or 0)]), rest[int(size or 0) + 1 :]
    return [path for oid, path in links if leads_out(path, targets.get(oid, ""))]


def _batch(quarantine: Git, oids: list[str], what: str) -> bytes:
    stdin = "".join(f"{oid}\n" for oid in oids).encode()
    result = quarantine.run("cat-file", what, stdin=stdin, timeout=_SECONDS, more=_WARY)
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


def _paths(paths: list[str]) -> Iterator[str]:
    yield from (f"        {_cut(path)}" for path in paths[:_NAMED])
    if len(paths) > _NAMED:
        yield f"        ... and {len(paths) - _NAMED} more"


def _asked(quarantine: Git, *words: str) -> list[str]:
    """Return the lines that git prints, harmless whatever is in them; nothing where it cannot say."""
    try:
        result = quarantine.run(*_SETTINGS, *words, timeout=_SECONDS, more=_WARY)
    except RepositoryError:  # no time left, as the warnings will say
        return []
    return [line.strip() for line in result.stdout.decode(errors="replace").split("\n") if line.strip()]


def _cut(line: str) -> str:
    shown = harmless(line)
    return shown if len(shown) <= _WIDTH else f"{shown[:_WIDTH]}..."
