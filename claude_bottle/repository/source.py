"""Survey the user's repository before a session, without changing its files, refs or index."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.errors import RepositoryError, UsageError
from claude_bottle.host.owner import Owner
from claude_bottle.host.stage_dir import StageDir
from claude_bottle.manifest import git_identity
from claude_bottle.process.deadline import Deadline
from claude_bottle.repository import git
from claude_bottle.repository.clone import Repository, Wanted, Work, is_oid, without_secret
from claude_bottle.repository.git import Git

_NAMES_SHOWN = 3
_KNOWN = r"^(user\.(name|email)|remote\.origin\.url)$"  # the settings read from the configuration
_MESSAGE = "Include uncommitted changes\n\nMade by claude-bottle from the work tree at the start of the session."
# The identity of claude-bottle's commits if the user has none configured.
NOBODY = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in (("NAME", "claude-bottle"), ("EMAIL", "claude-bottle@localhost"))
}


def wanted(manifests: Path | None, repo: Path | None, ref: str | None, *, with_changes: bool) -> Wanted | None:
    """Combine an agent's `repo:` and the options of `start`; return None without a repository.

    Raises UsageError if an option needs a repository and there is none.
    """
    path = repo or manifests
    if path is None:
        if ref or with_changes:
            raise UsageError("--ref and --with-changes need a repository; pass --repo")
        return None
    return Wanted(path, ref or "HEAD", with_changes)


def survey(wanted: Wanted, env: Mapping[str, str], owner: Owner | None) -> Repository:
    """Return the facts of the chosen repository; raises RepositoryError, or EngineError if git is not installed.

    Uncommitted changes, if wanted, become a commit without a ref, made with an index in a stage dir of `owner`.
    Without an owner, as in a dry run, no commit is made.
    """
    git_ = opened(wanted.path, env)
    if "\n" in f"{git_.path}{objects(git_)}":
        raise RepositoryError(f"{escape_control_chars(str(git_.path))}: paths with a line break are not supported")
    commit = _commit(git_, wanted)
    if git_.run("rev-parse", "--quiet", "--verify", "refs/heads/bottle").ok:
        raise RepositoryError(f'{git_.path}: rename the branch "bottle": git cannot create bottle/... beside it')
    known = git_.run("config", "--null", "--get-regexp", _KNOWN).stdout
    repository = Repository(
        Work(git_.path, commit, commit, wanted.branch),
        _named(git_, wanted.ref, commit),
        shallow=shallow(git_),
        origin=without_secret(_origin(known)),
        author=git_identity.parsed(known),
        notes=(*_submodules(git_, commit), *_lfs(git_, commit)),
        asked=wanted.ref,
        with_changes=wanted.with_changes,
    )
    return _with_changes(git_, wanted, repository, owner)


def opened(path: Path, env: Mapping[str, str], deadline: Deadline | None = None) -> Git:
    """Return git at the top of the repository that `path` lies in; RepositoryError where it lies in none."""
    git_ = Git(path.absolute(), git.environment(env), deadline=deadline or Deadline())
    try:
        if not path.is_dir():
            raise RepositoryError(f"{path}: not a folder")
    except OSError as error:
        raise RepositoryError(f"{path}: {error.strerror}") from None
    folder = Path(git_.text("rev-parse", "--absolute-git-dir"))
    # Otherwise git would treat committed files of an agent as a repository, and obey their settings.
    if folder.name != ".git" and any(_has(replace(git_, path=above), folder / "HEAD") for above in folder.parents):
        raise RepositoryError(f"{folder}: looks like a repository, but is part of another one; pass that one")
    inside = git_.text("rev-parse", "--is-inside-work-tree") == "true"
    return replace(git_, path=Path(git_.text("rev-parse", "--show-toplevel")) if inside else folder)


def _has(git_: Git, file: Path) -> bool:
    return git_.run("--literal-pathspecs", "ls-files", "--error-unmatch", "--", str(file)).ok


def objects(git_: Git) -> Path:
    """Return the path of a repository's object store; raises RepositoryError."""
    return git_.path / git_.text("rev-parse", "--git-path", "objects")


def shallow(git_: Git) -> bytes:
    """Return the valid lines of a repository's `shallow` file, the commits at which its history is cut off."""
    try:
        lines = (git_.path / git_.text("rev-parse", "--git-path", "shallow")).read_text(encoding="ascii").split()
    except FileNotFoundError:
        return b""
    return "".join(f"{line}\n" for line in lines if is_oid(line)).encode()


def _commit(git_: Git, wanted: Wanted) -> str:
    # In two steps, since ^{commit} after ":/text" would be part of the text.
    named = git_.run("rev-parse", "--quiet", "--verify", "--end-of-options", wanted.ref)
    found = git_.run("rev-parse", "--quiet", "--verify", f"{git.text(named.stdout)}^{{commit}}")
    if named.ok and found.ok and is_oid(git.text(found.stdout)):
        return git.text(found.stdout)
    if wanted.ref == "HEAD":
        raise RepositoryError(f"{git_.path}: no commits yet; `git commit --allow-empty` makes one")
    raise RepositoryError(f"{git_.path}: unknown revision {wanted.ref!r}")


def _named(git_: Git, ref: str, commit: str) -> str:
    """Return a revision for display: its name and abbreviated commit."""
    if ref == commit:
        return commit[:10]
    name = git_.text("rev-parse", "--abbrev-ref", "--end-of-options", "HEAD").splitlines()[-1] if ref == "HEAD" else ref
    return f"{name} {commit[:10]}"


def _origin(known: bytes) -> str:
    pairs = (item.partition("\n") for item in git.text(known).split("\0"))
    return {key: value for key, _, value in pairs}.get("remote.origin.url", "")


def _submodules(git_: Git, commit: str) -> Iterator[str]:
    paths, count = list[str](), 0

    def take(item: bytes) -> None:
        nonlocal count
        count += 1
        if count <= _NAMES_SHOWN:
            paths.append(item.decode(errors="surrogateescape").partition("\n")[2])

    words = ("config", "--blob", f"{commit}:.gitmodules", "--null", "--get-regexp", r"^submodule\..*\.path$")
    git_.each(*words, take=take, end=b"\0")
    if paths:
        more = f", +{count - _NAMES_SHOWN} more" if count > _NAMES_SHOWN else ""
        folders = "its folder is" if count == 1 else "their folders are"
        names = escape_control_chars(", ".join(paths))
        yield f"{_many(count, 'submodule')} not included, {folders} empty: {names}{more}"


def _lfs(git_: Git, commit: str) -> Iterator[str]:
    files = (":(glob)**/.gitattributes",)
    if git_.run("grep", "--quiet", "--fixed-strings", "--no-textconv", "filter=lfs", commit, "--", *files).ok:
        yield "files in Git LFS not included, only their pointers"


def _with_changes(git_: Git, wanted: Wanted, found: Repository, owner: Owner | None) -> Repository:
    """Return the repository with a note on its uncommitted changes, and with a commit of them if wanted."""
    changes, inner = _changes(git_)
    if inner:
        named = escape_control_chars(", ".join(inner[:_NAMES_SHOWN]))
        note = f"nested repositories not included ({len(inner)}): {named}"
        found = replace(found, notes=(note, *found.notes))
    if not wanted.with_changes:
        left = f"{_many(changes, 'uncommitted change')} not included; --with-changes includes them"
        return replace(found, notes=(left, *found.notes)) if changes else found
    if git_.text("rev-parse", "--is-inside-work-tree") != "true":
        raise RepositoryError(f"{git_.path}: no work tree, so no uncommitted changes; omit --with-changes")
    if found.work.commit != git_.text("rev-parse", "HEAD"):
        raise RepositoryError(f"{git_.path}: uncommitted changes are relative to HEAD; omit --ref")
    if not changes:
        return found
    start = _committed(git_, found, owner, inner) if owner else found.work.commit
    note = f"{_many(changes, 'uncommitted change')} included as a commit on top"
    return replace(found, work=replace(found.work, start=start), notes=(note, *found.notes))


def _changes(git_: Git) -> tuple[int, list[str]]:
    """Return the number of uncommitted changes, 0 without a work tree, and the nested repositories, not counted."""
    if git_.text("rev-parse", "--is-inside-work-tree") != "true":
        return 0, []
    words = ("status", "--porcelain", "-z", "--untracked-files=all", "--no-renames", "--ignore-submodules=dirty")
    changes, inner = 0, list[str]()

    def take(record: bytes) -> None:
        nonlocal changes
        if record.startswith(b"?? ") and record.endswith(b"/"):
            inner.append(record[3:].decode(errors="surrogateescape"))
        else:
            changes += 1

    found = git_.each(*words, take=take, end=b"\0")
    if not found.ok:
        raise RepositoryError(f"{git_.path}: {git.reason(found)}")
    return changes, inner


def _committed(git_: Git, found: Repository, owner: Owner, inner: Sequence[str]) -> str:
    """Commit the work tree without its nested repositories, of which git would add only a commit id.

    Uses an index of its own: the user's index and refs do not change.
    """
    try:
        with StageDir.held("index", owner) as stage:
            index = stage.path / "index"
            own = git_.path / git_.text("rev-parse", "--git-path", "index")
            if own.exists():
                shutil.copy2(own, index)  # with its mtime, by which git detects files changed since
            at = {"GIT_INDEX_FILE": str(index)}
            sparse = git_.run("config", "--type=bool", "core.sparseCheckout").stdout == b"true\n"
            git_.text(
                *("-c", "core.splitIndex=false", "add", "--all", *(("--sparse",) if sparse else ())),
                *("--", ".", *(f":(exclude,literal){path}" for path in inner)),
                more=at,
            )
            tree = git_.text("write-tree", more=at)
    except OSError as error:
        where = error.filename or tempfile.gettempdir()
        raise RepositoryError(f"cannot include uncommitted changes: {where}: {error.strerror or error}") from None
    author = {} if found.author.name and found.author.email else NOBODY
    return git_.text("commit-tree", "-p", found.work.commit, tree, stdin=_MESSAGE.encode(), more=author)


def _many(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
