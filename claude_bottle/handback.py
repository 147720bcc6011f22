"""Bring a bottle's work back as a branch of the user's repository; only git's objects get out, and only into git."""

import contextlib
import functools
import itertools
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from claude_bottle import changes, docker, quarantine, stream
from claude_bottle.clone import OUT, Work, is_oid
from claude_bottle.docker import Result
from claude_bottle.errors import BottleError, RepositoryError
from claude_bottle.quarantine import BUNDLE, MIB, Quarantine
from claude_bottle.scripts import DIFF, KEEP, LEAVE
from claude_bottle.staging import WORKDIR, StageDir
from claude_bottle.text import harmless, quoted

_ALIVE = 20.0  # seconds for the bottle to say that it is there
_KEEPING = 180.0  # seconds for a commit of what was left; what runs in the bottle may have made that slow on purpose
_LEAVING = 600.0  # seconds for the bundle to come out
_FILE = 512 * MIB  # bytes of a file that was left uncommitted; larger ones stay
_SHOWN = 10
_EMPTY_TREE = {  # by the length of an object's name
    40: "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    64: "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
}
_EMPTY = "Refusing to create empty bundle"


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
        if not _leave(bottle, kept.tip, bundle):
            return f"branch  none: no commit in the bottle is new\n{notes}"
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
    """Yield the lines of a running bottle's work against its start, uncommitted changes included, made harmless.

    Against nothing where the start is not there any more; RepositoryError where there is no difference to be had.
    """
    for start in (bottle.work.start, _EMPTY_TREE[len(bottle.work.start)]):
        codes, silent = list[int](), True
        argv = bottle.argv(DIFF, start, str(_FILE))
        for line in docker.lines(argv, bottle.env, started=bottle.started, ended=codes.append):
            silent = False
            yield "\t".join(harmless(part) for part in line.decode(errors="replace").split("\t")) + "\n"
        if codes == [0]:
            return
        if not silent:
            break
    alive = docker.run(bottle.argv("exit 0"), bottle.env, timeout=_ALIVE)
    why = f"git ended with exit status {codes[0]} there" if alive.ok else alive.reason
    raise RepositoryError(f"the bottle does not show what has changed: {why}")


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
    argv = bottle.argv(KEEP, bottle.work.start, str(_FILE))
    result = _run(argv, bottle, "committing what was left", _KEEPING)
    lines = [line.partition(" ") for line in result.stdout.decode(errors="surrogateescape").split("\n")]
    said = {word: tuple(rest for first, _, rest in lines if first == word) for word in ("tip", "other", "large")}
    tip = said["tip"][0] if said["tip"] else "HEAD" if result.timed_out else ""
    if tip != "HEAD" and not is_oid(tip):
        raise RepositoryError(f"the bottle has no commit that could be fetched ({result.reason})")
    slow = ("what was left uncommitted, which took too long",) if result.timed_out else ()
    return _Kept(tip, said["other"], said["large"] + slow)


def _leave(bottle: Bottle, tip: str, into: Path) -> bool:
    """Write the bundle that comes out of the bottle to a file; RepositoryError where it does not come whole.

    False where there would be nothing in it.
    """
    argv = bottle.argv(LEAVE, bottle.work.commit, tip)
    with into.open("xb", buffering=0) as file:
        into.chmod(0o600)
        try:
            result = _run(argv, bottle, "fetching the work", _LEAVING, into=file, limit=BUNDLE)
        except stream.TooMuch:
            raise RepositoryError(
                f"the work is larger than {BUNDLE // MIB} MiB, the most that is fetched: see what it is with"
                f" `./cli.py diff {bottle.session}`, and delete or ignore it in the bottle"
            ) from None
    if _EMPTY in result.stderr:
        return False
    if not result.ok:
        raise RepositoryError(f"the bottle does not give its work: {result.reason}")
    return True


def _run(argv: tuple[str, ...], bottle: Bottle, what: str, seconds: float, **more: object) -> Result:
    return stream.run(argv, bottle.env, what=what, seconds=seconds, started=bottle.started, **more)  # type: ignore[arg-type]


def _landed(bottle: Bottle, bundle: Path, folder: Path) -> tuple[str, str, Quarantine]:
    quarantine = Quarantine.make(folder, bottle.work, bottle.env)
    with bundle.open("rb", buffering=0) as file:
        tip = quarantine.admit(file)
    return quarantine.land(tip, bottle.session), tip, quarantine


def _saved(bottle: Bottle, bundle: Path, why: str) -> RepositoryError:
    """Move a bundle to where it stays, beside the repository if possible; return the error that says so."""
    repository = bottle.work.repository
    checked = quarantine.admitted(bundle.parent)
    quarantine.discard(bundle.parent)  # the disk may be full of it
    for folder in (repository.parent, bundle.parent.parent):
        with contextlib.suppress(OSError):
            path = _moved(bundle, folder, f"{repository.name}-bottle-{bottle.session}")
            # Fetched by hand, what was refused would get past the checks: not every git checks a bundle.
            how = f"git -C {quoted(str(repository))} fetch {quoted(str(path))} {OUT}"
            hint = how if checked else "look at it in an empty repository, never in your own"
            where = f"{'' if checked else ', unchecked,'} in {harmless(str(path))}"
            return RepositoryError(f"{why}; the work is saved{where} ({hint})")
    return RepositoryError(f"{why}; nor could it be saved in {harmless(str(repository.parent))}")


def _moved(bundle: Path, folder: Path, name: str) -> Path:
    """Move a file into a folder under a name that nothing has there; return its path."""
    for number in itertools.count(1):
        path = folder / f"{name}{'' if number == 1 else f'-{number}'}.bundle"
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            break
    try:
        try:
            bundle.replace(path)  # which takes no space
        except OSError:  # another file system
            with path.open("wb") as file, bundle.open("rb") as source:
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


SECONDS = _ALIVE + _KEEPING + _LEAVING + quarantine.SECONDS + changes.SECONDS  # that a hand-back may take


class HandBack:
    """Brings a session's work back once, at its end, whoever notices the end first."""

    def __init__(self, bottle: Bottle, say: Callable[[str], None], show: Callable[[str], None]) -> None:
        """Do nothing yet; `say` hears what went wrong, in one line, `show` what came back."""
        self._bottle, self._say, self._show = bottle, say, show
        self._once = threading.Lock()
        self._over = False
        self._held: list[Callable[[], None]] = []  # what is still to be told
        self.failed = False

    def run(self) -> None:
        """Bring it back; whatever goes wrong is told, for the rest of the teardown must go on.

        Another thread than the main one tells nothing: the terminal is claude's then. The teardown's call tells it.
        """
        with self._once:
            if not self._over:
                self._over = True
                self._held.append(self._fetched())
            while self._held and threading.current_thread() is threading.main_thread():
                with contextlib.suppress(OSError, ValueError):
                    self._held.pop()()

    def _fetched(self) -> Callable[[], None]:
        """Bring it back; return what tells it."""
        try:
            told = fetch(self._bottle)
        except Exception as error:  # whatever it is, the containers are still to be removed
            self.failed = True
            return functools.partial(self._say, str(error) or repr(error))
        return functools.partial(self._show, told)
