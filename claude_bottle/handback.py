"""Bring a bottle's work back as a branch of the user's repository; only git's objects get out, and only into git."""

import contextlib
import itertools
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from claude_bottle import changes, docker, stream
from claude_bottle.clone import OUT, Work, is_oid
from claude_bottle.docker import Result
from claude_bottle.errors import BottleError, RepositoryError
from claude_bottle.quarantine import BUNDLE, MIB, Quarantine
from claude_bottle.staging import WORKDIR, StageDir
from claude_bottle.text import harmless, quoted

SECONDS = 600.0  # that a hand-back usually ends within; the bounds of its parts are below
_ALIVE = 20.0  # seconds for the bottle to say that it is there
_KEEPING = 180.0  # seconds for a commit of what was left; what runs in the bottle may have made that slow on purpose
_LEAVING = 600.0  # seconds for the bundle to come out
_FILE = 512 * MIB  # bytes of a file that was left uncommitted; larger ones stay
_OTHERS = 20  # branches that are named at most
_SHOWN = 10

# $1 is the work directory, $2 the commit where it began, $3 a size in bytes or a commit. Whatever the agent has made of
# its .git: one that cannot be used is left as it is, and one of our own is put on top of its objects; an index that is
# locked or broken is replaced by one of our own. No hook, no signature, no file monitor; what is found is told a line
# each.
_GIT = """
cd "$1" || exit
start=$2 size=$3
git() { command git -c core.hooksPath=/dev/null -c core.fsmonitor= -c gc.auto=0 -c advice.addEmbeddedRepo=false "$@"; }
top=$(git rev-parse --show-toplevel 2>/dev/null)
if ! [ "$top" -ef . ]; then
  export GIT_DIR=${TMPDIR:-/tmp}/.claude-bottle.git GIT_WORK_TREE=$PWD
  git init --quiet || exit
  echo "$PWD/.git/objects" > "$GIT_DIR/objects/info/alternates"
  git rev-parse --quiet --verify HEAD > /dev/null || git update-ref HEAD "$start" 2> /dev/null
fi
index=$(git rev-parse --git-path index)
large() { find . -name .git -prune -o -type f -size +"$size"c -printf "$1\\\\0"; }
add() {
  { printf '.\\0'; large ':(exclude,literal)%P'; } |
    git add --all --ignore-errors --pathspec-from-file=- --pathspec-file-nul 2> /dev/null
  [ $? -le 1 ]
}
copied() { export GIT_INDEX_FILE; GIT_INDEX_FILE=$(mktemp -d)/index; cp -p "$index" "$GIT_INDEX_FILE" 2> /dev/null; }
fresh() { export GIT_INDEX_FILE; GIT_INDEX_FILE=$(mktemp -d)/index; git read-tree HEAD 2> /dev/null; }
"""
_KEEP = f"""{_GIT}
old=$(git rev-parse --quiet --verify 'HEAD^{{commit}}')
add || {{ copied; add; }} || {{ fresh; add; }}
tree=$(git write-tree) || {{ fresh; add; tree=$(git write-tree); }}
if [ "$tree" ] && [ "$tree" != "$(git rev-parse --quiet --verify 'HEAD^{{tree}}')" ]; then
  export GIT_AUTHOR_NAME=claude-bottle GIT_AUTHOR_EMAIL=claude-bottle@localhost
  export GIT_COMMITTER_NAME=claude-bottle GIT_COMMITTER_EMAIL=claude-bottle@localhost
  new=$(git commit-tree ${{old:+-p}} $old "$tree" <<'END'
Keep what was left uncommitted

Made by claude-bottle as the work was fetched out of the bottle: no commit of the agent's.
END
  ) && git update-ref HEAD "$new" $old
fi
echo "tip $(git rev-parse --quiet --verify 'HEAD^{{commit}}')"
git for-each-ref --count={_OTHERS} --no-merged=HEAD --format='other %(refname:short)' refs/heads refs/stash
large %P | head --zero-terminated --lines {_OTHERS} | while read -r -d '' file; do
  [ -z "$(git --literal-pathspecs status --porcelain -- "$file")" ] || echo "large $file"
done
"""
_LEAVE = f"""{_GIT}
git update-ref {OUT} "$3" || exit
not=; git cat-file -e "$start" 2> /dev/null && not="^$start"
git bundle create --quiet - {OUT} $not
"""
_DIFF = f"""{_GIT}
copied; add || {{ fresh; add; }}
git -c core.quotePath=false -c color.ui=false diff --cached --no-ext-diff --no-textconv "$start" --
"""


@dataclass(frozen=True)
class Bottle:
    """A bottle that runs, and what it works on."""

    session: str
    owner: str  # of whoever asks: of the temporary files
    container: str
    work: Work
    env: Mapping[str, str] = field(repr=False)
    started: Callable[[int], None] = lambda _: None  # hears the pid of each docker client

    def argv(self, script: str, *words: str) -> tuple[str, ...]:
        """Return the command that runs a script in the bottle, as its agent."""
        return ("docker", "exec", "--interactive", self.container, "bash", "-c", script, "bash", WORKDIR, *words)


def fetch(bottle: Bottle) -> str:
    """Bring the work back as it is now and return what there is to say of it; raises RepositoryError or EngineError.

    What came out and could not be fetched is saved beside the repository, and the error says where.
    """
    kept = _keep(bottle)
    notes = "".join(_notes(kept))
    if kept.tip == bottle.work.start:
        return f"branch  none: nothing was changed in the bottle\n{notes}"
    try:
        stage = StageDir.make(bottle.session)
    except OSError as error:
        raise RepositoryError(f"the work could not be fetched: {error.strerror}") from None
    try:
        stage.write("owner", bottle.owner.encode())
        bundle = stage.path / "bundle"
        _leave(bottle, kept.tip, bundle)
        try:
            branch, tip, quarantine = _landed(bottle, bundle, stage.path)
        except (BottleError, OSError) as error:
            raise _saved(bottle, bundle, str(error)) from None
        return changes.told(quarantine.git, bottle.work, tip, branch) + notes
    except OSError as error:
        raise RepositoryError(f"the work could not be fetched: {error.strerror or error}") from None
    finally:
        stage.remove()


def diff(bottle: Bottle) -> Iterator[str]:
    """Yield the lines of a running bottle's work against its start, uncommitted changes included, made harmless."""
    for line in docker.lines(bottle.argv(_DIFF, bottle.work.start, str(_FILE)), bottle.env, started=bottle.started):
        yield "\t".join(harmless(part) for part in line.decode(errors="replace").split("\t")) + "\n"


@dataclass(frozen=True)
class _Kept:
    """What the bottle says of its work: its commit, and what does not come out with it."""

    tip: str
    others: tuple[str, ...] = ()
    large: tuple[str, ...] = ()


def _keep(bottle: Bottle) -> _Kept:
    """Have what was left uncommitted committed in the bottle."""
    alive = docker.run(bottle.argv("exit 0"), bottle.env, timeout=_ALIVE)
    if not alive.ok:
        raise RepositoryError(f"nothing can be fetched any more, the bottle has ended ({alive.reason})")
    argv = bottle.argv(_KEEP, bottle.work.start, str(_FILE))
    result = _run(argv, bottle, "committing what was left", _KEEPING)
    lines = [line.partition(" ") for line in result.stdout.decode(errors="surrogateescape").split("\n")]
    said = {word: tuple(rest for first, _, rest in lines if first == word) for word in ("tip", "other", "large")}
    tip = said["tip"][0] if said["tip"] else "HEAD" if result.timed_out else ""
    if tip != "HEAD" and not is_oid(tip):
        raise RepositoryError(f"the bottle has no commit that could be fetched ({result.reason})")
    slow = ("what was left uncommitted, which took too long",) if result.timed_out else ()
    return _Kept(tip, said["other"], said["large"] + slow)


def _leave(bottle: Bottle, tip: str, into: Path) -> None:
    """Write the bundle that comes out of the bottle to a file; RepositoryError where it does not come whole."""
    argv = bottle.argv(_LEAVE, bottle.work.commit, tip)
    with into.open("xb", buffering=0) as file:
        into.chmod(0o600)
        try:
            result = _run(argv, bottle, "fetching the work", _LEAVING, into=file, limit=BUNDLE)
        except stream.TooMuch:
            raise RepositoryError(
                f"the work is larger than {BUNDLE // MIB} MiB, the most that is fetched: see what it is with"
                f" `./cli.py diff {bottle.session}`, and delete or ignore it in the bottle"
            ) from None
    if not result.ok:
        raise RepositoryError(f"the bottle does not give its work: {result.reason}")


def _run(argv: tuple[str, ...], bottle: Bottle, what: str, seconds: float, **more: object) -> Result:
    return stream.run(argv, bottle.env, what=what, seconds=seconds, started=bottle.started, **more)  # type: ignore[arg-type]


def _landed(bottle: Bottle, bundle: Path, folder: Path) -> tuple[str, str, Quarantine]:
    quarantine = Quarantine.make(folder, bottle.work, bottle.env)
    with bundle.open("rb", buffering=0) as file:
        tip = quarantine.admit(file)
    return quarantine.land(tip, bottle.session), tip, quarantine


def _saved(bottle: Bottle, bundle: Path, why: str) -> RepositoryError:
    """Copy a bundle to where it stays, beside the repository if possible; return the error that says so."""
    repository = bottle.work.repository
    for folder in (repository.parent, bundle.parent.parent):
        with contextlib.suppress(OSError):
            path = _copied(bundle, folder, f"{repository.name}-bottle-{bottle.session}")
            hint = f"git -C {quoted(str(repository))} fetch {quoted(str(path))} {OUT}"
            return RepositoryError(f"{why}; the work is saved, unchecked, in {harmless(str(path))} ({hint})")
    return RepositoryError(f"{why}; nor could it be saved in {harmless(str(repository.parent))}")


def _copied(bundle: Path, folder: Path, name: str) -> Path:
    """Copy a file into a folder under a name that nothing has there; return its path."""
    for number in itertools.count(1):
        path = folder / f"{name}{'' if number == 1 else f'-{number}'}.bundle"
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            break
    try:
        with os.fdopen(descriptor, "wb") as file, bundle.open("rb") as source:
            shutil.copyfileobj(source, file)
    except OSError:
        path.unlink()
        raise
    return path


def _notes(kept: _Kept) -> Iterator[str]:
    for what, names in (("other branches stay", kept.others), ("too large, stays", kept.large)):
        if names:
            more = f", +{len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            yield f"beware  {what} in the bottle: {', '.join(harmless(name)[:200] for name in names[:_SHOWN])}{more}\n"


class HandBack:
    """Brings a session's work back once, at its end, whoever notices the end first."""

    def __init__(self, bottle: Bottle, say: Callable[[str], None], show: Callable[[str], None]) -> None:
        """Do nothing yet; `say` hears what went wrong, in one line, `show` what came back."""
        self._bottle, self._say, self._show = bottle, say, show
        self._once = threading.Lock()
        self._over = False
        self.failed = False

    def run(self) -> None:
        """Bring it back; whatever goes wrong is told, for the rest of the teardown must go on."""
        with self._once:
            if self._over:
                return
            self._over = True
            try:
                told = fetch(self._bottle)
            except (BottleError, OSError) as error:
                self.failed = True
                self._say(str(error))
                return
            with contextlib.suppress(OSError, ValueError):
                self._show(told)
