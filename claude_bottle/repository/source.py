"""Look at a user's repository before a session, and change nothing of what they see in it."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from claude_bottle.documents.escaping import harmless
from claude_bottle.errors import RepositoryError, UsageError
from claude_bottle.host.owner import Owner
from claude_bottle.host.stage_dir import StageDir
from claude_bottle.manifest import git_identity
from claude_bottle.repository import git
from claude_bottle.repository.clone import Repository, Wanted, Work, is_oid, without_secret
from claude_bottle.repository.git import Git

_NAMES_SHOWN = 3
_KNOWN = r"^(user\.(name|email)|remote\.origin\.url)$"  # what is taken from the configuration
_TAKEN = "Take along what was not committed\n\nMade by claude-bottle from the work tree as the session was started."
# Of a commit that claude-bottle makes where git knows no name for its user.
NOBODY = {
    f"GIT_{role}_{key}": value
    for role in ("AUTHOR", "COMMITTER")
    for key, value in (("NAME", "claude-bottle"), ("EMAIL", "claude-bottle@localhost"))
}


def wanted(manifests: Path | None, repo: Path | None, ref: str | None, *, with_changes: bool) -> Wanted | None:
    """Return what is wanted by a manifest and the options of a start; UsageError where an option has no repository."""
    path = repo or manifests
    if path is None:
        if ref or with_changes:
            raise UsageError("--ref and --with-changes say what of a repository is taken along: give --repo, too")
        return None
    return Wanted(path, ref or "HEAD", with_changes)


def survey(wanted: Wanted, env: Mapping[str, str], owner: Owner | None) -> Repository:
    """Return what there is to know of the repository that is wanted; raises RepositoryError.

    Uncommitted changes that are wanted become a commit that nothing refers to, made in a folder that is known as
    `owner`'s; not where there is none, in a dry run.
    """
    git_ = opened(wanted.path, env)
    if "\n" in f"{git_.path}{objects(git_)}":
        raise RepositoryError(f"{harmless(str(git_.path))}: has a line break in its path, which git cannot take")
    commit = _commit(git_, wanted)
    if git_.run("rev-parse", "--quiet", "--verify", "refs/heads/bottle").ok:
        raise RepositoryError(f'{git_.path}: has a branch "bottle", beside which git can have no bottle/...: rename it')
    known = git_.run("config", "--null", "--get-regexp", _KNOWN).stdout
    repository = Repository(
        Work(git_.path, commit, commit),
        _named(git_, wanted.ref, commit),
        shallow=shallow(git_),
        origin=without_secret(_origin(known)),
        author=git_identity.parsed(known),
        notes=(*_submodules(git_, commit), *_lfs(git_, commit)),
    )
    return _with_changes(git_, wanted, repository, owner)


def opened(path: Path, env: Mapping[str, str]) -> Git:
    """Return git at the top of the repository that `path` lies in; RepositoryError where it lies in none."""
    git_ = Git(path.absolute(), git.environment(env))
    try:
        if not path.is_dir():
            raise RepositoryError(f"{path}: is no folder")
    except OSError as error:
        raise RepositoryError(f"{path}: {error.strerror}") from None
    folder = Path(git_.text("rev-parse", "--absolute-git-dir"))
    # Else git would take files that an agent has committed for a repository, and do as their settings say.
    if folder.name != ".git" and any(_has(replace(git_, path=above), folder / "HEAD") for above in folder.parents):
        raise RepositoryError(f"{folder}: looks like a repository, and is files of another: give that one")
    inside = git_.text("rev-parse", "--is-inside-work-tree") == "true"
    return replace(git_, path=Path(git_.text("rev-parse", "--show-toplevel")) if inside else folder)


def _has(git_: Git, file: Path) -> bool:
    return git_.run("--literal-pathspecs", "ls-files", "--error-unmatch", "--", str(file)).ok


def objects(git_: Git) -> Path:
    """Return the folder of a repository's objects."""
    return git_.path / git_.text("rev-parse", "--git-path", "objects")


def shallow(git_: Git) -> bytes:
    """Return the lines of a repository's `shallow` file: the commits at which its history was cut off."""
    try:
        lines = (git_.path / git_.text("rev-parse", "--git-path", "shallow")).read_text(encoding="ascii").split()
    except FileNotFoundError:
        return b""
    return "".join(f"{line}\n" for line in lines if is_oid(line)).encode()


def _commit(git_: Git, wanted: Wanted) -> str:
    # In two steps: of ":/text" what follows would be a part.
    named = git_.run("rev-parse", "--quiet", "--verify", "--end-of-options", wanted.ref)
    found = git_.run("rev-parse", "--quiet", "--verify", f"{git.text(named.stdout)}^{{commit}}")
    if named.ok and found.ok and is_oid(git.text(found.stdout)):
        return git.text(found.stdout)
    if wanted.ref == "HEAD":
        raise RepositoryError(f"{git_.path}: has no commit yet")
    raise RepositoryError(f"{git_.path}: has no revision {wanted.ref!r}")


def _named(git_: Git, ref: str, commit: str) -> str:
    """Return what a person calls a revision, and its commit."""
    name = git_.text("rev-parse", "--abbrev-ref", "--end-of-options", "HEAD").splitlines()[-1] if ref == "HEAD" else ref
    return f"{name} {commit[:10]}"


def _origin(known: bytes) -> str:
    pairs = (item.partition("\n") for item in git.text(known).split("\0"))
    return {key: value for key, _, value in pairs}.get("remote.origin.url", "")


def _submodules(git_: Git, commit: str) -> Iterator[str]:
    found = git_.run("config", "--blob", f"{commit}:.gitmodules", "--null", "--get-regexp", r"^submodule\..*\.path$")
    paths = [item.partition("\n")[2] for item in git.text(found.stdout).split("\0") if item]
    if paths:
        more = f", +{len(paths) - _NAMES_SHOWN} more" if len(paths) > _NAMES_SHOWN else ""
        folders = "its folder is" if len(paths) == 1 else "their folders are"
        named = harmless(", ".join(paths[:_NAMES_SHOWN]))
        yield f"{_many(len(paths), 'submodule')} not taken along, {folders} empty: {named}{more}"


def _lfs(git_: Git, commit: str) -> Iterator[str]:
    files = (":(glob)**/.gitattributes",)
    if git_.run("grep", "--quiet", "--fixed-strings", "--no-textconv", "filter=lfs", commit, "--", *files).ok:
        yield "files in Git LFS not taken along: they are there as pointers"


def _with_changes(git_: Git, wanted: Wanted, found: Repository, owner: Owner | None) -> Repository:
    """Return the repository with its uncommitted changes counted, and taken along where they are wanted."""
    changes, inner = _changes(git_)
    if inner:
        named = harmless(", ".join(inner[:_NAMES_SHOWN]))
        note = f"not taken along, each a repository of its own ({len(inner)}): {named}"
        found = replace(found, notes=(note, *found.notes))
    if not wanted.with_changes:
        left = f"{_many(changes, 'uncommitted change')} not taken along; --with-changes takes them"
        return replace(found, notes=(left, *found.notes)) if changes else found
    if git_.text("rev-parse", "--is-inside-work-tree") != "true":
        raise RepositoryError(f"{git_.path}: has no work tree, and so no changes: leave --with-changes out")
    if found.work.commit != git_.text("rev-parse", "HEAD"):
        raise RepositoryError(f"{git_.path}: uncommitted changes are changes to HEAD: give no other --ref")
    if not changes:
        return found
    start = _committed(git_, found, owner, inner) if owner else found.work.commit
    taken = f"{_many(changes, 'uncommitted change')} taken along as a commit on top"
    return replace(found, work=replace(found.work, start=start), notes=(taken, *found.notes))


def _changes(git_: Git) -> tuple[int, list[str]]:
    """Count what is not committed, nothing without a work tree; name the repositories inside, which do not count."""
    if git_.text("rev-parse", "--is-inside-work-tree") != "true":
        return 0, []
    words = ("status", "--porcelain", "-z", "--untracked-files=all", "--no-renames", "--ignore-submodules=dirty")
    found = git_.text(*words).split("\0")[:-1]
    inner = [each[3:] for each in found if each.startswith("?? ") and each.endswith("/")]
    return len(found) - len(inner), inner


def _committed(git_: Git, found: Repository, owner: Owner, inner: Sequence[str]) -> str:
    """Make a commit of the work tree as it is, but for the repositories inside: git would take no more than a name.

    It is made by an index of its own: the user's, and every ref, stay as they are.
    """
    try:
        with StageDir.held("index", owner) as stage:
            index = stage.path / "index"
            own = git_.path / git_.text("rev-parse", "--git-path", "index")
            if own.exists():
                shutil.copy2(own, index)  # its time tells git which files to look at again
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
        raise RepositoryError(f"cannot take uncommitted changes along: {where}: {error.strerror or error}") from None
    author = {} if found.author.name and found.author.email else NOBODY
    return git_.text("commit-tree", "-p", found.work.commit, tree, stdin=_TAKEN.encode(), more=author)


def _many(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
