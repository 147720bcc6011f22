"""Bring a bottle's work back as a branch of the user's repository; only git's objects get out, and only into git."""

import contextlib
import functools
import itertools
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from claude_bottle.documents.escaping import escape_control_chars, quoted
from claude_bottle.errors import BottleError, RepositoryError
from claude_bottle.host import console, stage_dir
from claude_bottle.host.stage_dir import StageDir
from claude_bottle.process import command, deadline
from claude_bottle.process.deadline import Deadline
from claude_bottle.process.engine import Engine
from claude_bottle.repository import export, quarantine, report
from claude_bottle.repository.clone import OUT
from claude_bottle.repository.export import FILE, Bottle, ExportRefused, Kept
from claude_bottle.repository.exporter import PART
from claude_bottle.repository.quarantine import BUNDLE, Quarantine, Room

__all__ = ("BUDGET", "Bottle", "HandBack", "begun", "diff", "fetch")

BUDGET = 600.0  # seconds for a hand-back in all its parts, with all the commits that it brings
_OUT = 0.8  # of these, until all is out of the bottle: the rest is for the checks of what is
_EMPTY_TREE = {  # by the length of an object's name
    40: "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    64: "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
}


def begun() -> str:
    """Return what there is to say as the work begins to come back."""
    return f"bringing the work back, for at most {deadline.spoken(BUDGET)}"


def fetch(
    bottle: Bottle,
    show: Callable[[str], None] = console.output,
    *,
    last: bool = False,
    tags: bool = False,
    out: Callable[[], None] = lambda: None,
) -> str:
    """Bring the work back as it is now and return what there is to say of it; raises RepositoryError or EngineError.

    Where not all of it came, what there is to say of the rest is shown, and the error raised after that. What came out
    and could not be fetched is saved beside the repository, and the error says where. `last`: the bottle is about to
    go, and what does not come is lost. `tags`: bring these, too, as `bottle/<session>/<tag>`. `out` is called once all
    is out of the bottle, before it is checked. All of it takes BUDGET seconds at most, _OUT of these in the bottle;
    after that, or once the user has given up, nothing more is started.
    """
    budget, bottle = Deadline(BUDGET), replace(bottle, deadline=Deadline(BUDGET * _OUT))
    with contextlib.ExitStack() as stages:
        trip = _Fetch(bottle, budget, export.keep(bottle, last=last), stages, last=last)
        trip.receive(tags=tags)
        out()
        told = trip.told() + ("" if tags else trip.kept.tagged(bottle.session, last=last))
    if trip.faults:
        if told:
            show(told)
        raise RepositoryError("; ".join(trip.faults))
    return told


def diff(bottle: Bottle) -> Iterator[str]:
    """Yield the lines of a running bottle's work against its start, uncommitted changes included, made harmless.

    Against nothing where the start is not there any more; RepositoryError where there is no difference to be had.
    """
    for start in (bottle.work.start, _EMPTY_TREE[len(bottle.work.start)]):
        codes, silent = list[int](), True
        argv, program = bottle.export("diff", start, str(FILE)), export.program()
        for line in command.lines(argv, bottle.env, stdin=program, started=bottle.started, ended=codes.append):
            silent = False
            yield "\t".join(escape_control_chars(part) for part in line.decode(errors="replace").split("\t")) + "\n"
        if codes == [0]:
            return
        if codes == [PART]:
            raise RepositoryError("that is not all: git in the bottle does not take the rest of what is there")
        if not silent:
            break
    alive = Engine(bottle.env).checked(command.run(bottle.argv("exit 0"), bottle.env, timeout=export.ALIVE))
    why = f"git ended with exit status {codes[0]} there" if alive.ok else alive.reason
    raise RepositoryError(f"the bottle does not show what has changed: {why}")


@dataclass(frozen=True)
class _Parcel:
    """A commit that is out of the bottle, in a stage dir that is held until it has been brought."""

    what: str  # nothing for the HEAD
    tip: str  # as the bottle says
    tag: str  # in the user's repository; nothing for a branch
    stage: StageDir
    held: contextlib.ExitStack
    new: bool  # else all of it has come before, and there is no bundle

    @property
    def bundle(self) -> Path:
        return self.stage.path / "bundle"


class _Fetch:
    """All commits of one bottle: its HEAD, then what is on no way to that. First all come out, then they are brought.

    So a bundle is thin against those before it, whatever becomes of these: if one is refused, so is what builds on it.
    """

    def __init__(
        self, bottle: Bottle, budget: Deadline, kept: Kept, stages: contextlib.ExitStack, *, last: bool
    ) -> None:
        self.bottle, self.kept, self.last = bottle, kept, last
        self.where = "is lost with the bottle" if last else "stays in the bottle"
        self.faults: list[str] = []
        self._budget, self._stages = budget, stages
        self._parcels: list[_Parcel] = []
        self._known: list[str] = []  # the commits of their bundles
        self._landed: dict[str, str] = {}  # the commits by their branches
        self._left = BUNDLE
        self._room = Room(quarantine.UNPACKED, quarantine.PATHS)

    def receive(self, *, tags: bool) -> None:
        """Have everything come out of the bottle, with its `tags` if wanted; what went wrong is in `faults`."""
        if self.kept.tip != self.bottle.work.start:
            self._either(self.kept.tip, self.kept.before)
        for number, (oid, before, what) in enumerate(self.kept.also):
            if why := self.bottle.deadline.over:
                rest = ", ".join(what for _, _, what in self.kept.also[number:])
                self.faults.append(f"{rest} {self.where}: {why}")
                break
            self._either(oid, before, what)
        for oid, name in self.kept.tags if tags else ():
            if why := self.bottle.deadline.over:
                self.faults.append(f"not all tags were fetched: {why}")
                return
            try:
                self._receive(oid, f"tag {name}", quarantine.tag_of(self.bottle.session, name))
            except BottleError as error:
                self._fault(f"tag {name}", error)

    def told(self) -> str:
        """Bring what is out; return what there is to say of everything. What went wrong is in `faults`."""
        head, also, tags = "", "", ""
        for parcel in self._parcels:
            branch, told = self._brought(parcel)
            if parcel.tag and branch:
                tags += f"tag     {branch}\n"
            elif parcel.what and branch:
                beware = told.partition("\nbeware")  # of its files; what else is told of it, git can say
                also += f"also    {branch}: {parcel.what}\n{''.join(beware[1:])[1:]}"
            else:
                head += told
        notes = "".join(self.kept.notes(self.where))
        if self.kept.failed or self.kept.slow:
            self.faults.append("not all that was left uncommitted came back")
        if self.kept.unread:
            self.faults.append("not all commits came back")
        if not head and not self.faults:
            changed = self.kept.tip != self.bottle.work.start
            why = "no commit in the bottle is new" if changed else "nothing was changed in the bottle"
            head = f"branch  none: {'nothing is new on the HEAD' if also or notes else why}\n"
        return head + also + notes + tags

    def _fault(self, what: str, error: BottleError) -> None:
        self.faults.append(f"{what}: {error}" if what else str(error))

    def _either(self, tip: str, before: str, what: str = "") -> None:
        """Receive a commit, or the one below it, which is the agent's own."""
        of = f" of {what}" if what else ""
        try:
            self._receive(tip, what)
            return
        except ExportRefused as error:
            if before in ("", tip):
                self.faults.append(f"{what} {self.where}: {error}" if what else f"{error}; it {self.where}")
                return
            self.faults.append(f"what was left uncommitted{of} {self.where}: {error}")
        except BottleError as error:  # even without an engine, what is out of the bottle is to be brought
            self._fault(what, error)
            return
        if not self.last:
            export.take_back(self.bottle, tip, before)
        if before == self.bottle.work.start:
            return
        try:
            self._receive(before, what)
        except ExportRefused:
            self.faults.append(f"so is what was committed before{of}: it {self.where}")
        except BottleError as error:
            self._fault(what, error)

    def _receive(self, tip: str, what: str, tag: str = "") -> None:
        """Have one commit come out of the bottle; as a `tag`, if named."""
        try:
            try:
                self._parcels.append(self._parcel(tip, what, tag, None))
            except OSError:  # a full disk for temporary files need not be the repository's
                self._parcels.append(self._parcel(tip, what, tag, self.bottle.work.repository.parent))
        except OSError as error:
            raise RepositoryError(f"the work could not be fetched: {error.strerror or error}") from None

    def _parcel(self, tip: str, what: str, tag: str, folder: Path | None) -> _Parcel:
        """Receive one commit in a stage dir in `folder`, else in the temporary directory."""
        bottle = self.bottle
        with contextlib.ExitStack() as stack:
            linked = stage_dir.links(bottle.env)
            stage = stack.enter_context(StageDir.held(bottle.session, bottle.owner, folder, linked))
            parcel = _Parcel(what, tip, tag, stage, contextlib.ExitStack(), new=True)
            if not export.leave(bottle, tip, parcel.bundle, beyond=self._known, limit=self._left, last=self.last):
                parcel = replace(parcel, new=False)
            else:
                self._left -= parcel.bundle.stat().st_size
                with contextlib.suppress(RepositoryError), parcel.bundle.open("rb", buffering=0) as file:
                    self._known.append(quarantine.opened(file))
            parcel.held.enter_context(stack.pop_all())
        self._stages.enter_context(parcel.held)
        return parcel

    def _brought(self, parcel: _Parcel) -> tuple[str, str]:
        """Bring one commit; return its branch or tag and what there is to say of it, nothing if it has nothing new."""
        told = "", ""
        try:
            with parcel.held:
                told = self._through(parcel)
        except OSError as error:
            self._fault(parcel.what, RepositoryError(f"the work could not be fetched: {error.strerror or error}"))
        except BottleError as error:  # what has landed before must be told all the same
            self._fault(parcel.what, error)
        return told

    def _through(self, parcel: _Parcel) -> tuple[str, str]:
        """Bring one commit through a quarantine in its stage dir."""
        work, folder, tag = self.bottle.work, parcel.stage.path, parcel.tag
        if not parcel.new:
            if not tag:
                return "", ""
            apart = Quarantine.make(folder, work, self.bottle.env, self._budget)
            apart.require(parcel.tip, (work.commit, *self._landed.values()))
            return apart.mark(parcel.tip, tag), ""
        try:
            apart = Quarantine.make(folder, work, self.bottle.env, self._budget)
            with parcel.bundle.open("rb", buffering=0) as file:
                tip = apart.admit(file, self._room)
            branch = apart.mark(tip, tag) if tag else apart.land(tip, self.bottle.session, self._landed)
        except (BottleError, OSError) as error:
            raise _saved(self.bottle, parcel.bundle, str(error)) from None
        self._landed[branch] = tip
        return branch, "" if tag else report.told(apart.git, work, tip, branch)


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
            hint = how if checked else "look at it in a clone of the repository, never in your own"
            where = f"{'' if checked else ', unchecked,'} in {escape_control_chars(str(path))}"
            return RepositoryError(f"{why}; the work is saved{where} ({hint})")
    return RepositoryError(f"{why}; nor could it be saved in {escape_control_chars(str(repository.parent))}")


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


class HandBack:
    """Brings a session's work back once, at its end, whoever notices the end first."""

    def __init__(
        self,
        bottle: Bottle,
        say: Callable[[str], None],
        show: Callable[[str], None],
        end: Callable[[], None] = lambda: None,
    ) -> None:
        """Do nothing yet; `say` hears that it begins and what went wrong, in one line each, `show` what came back.

        `end` ends the bottle, once all is out of it.
        """
        self._bottle, self._say, self._show, self._end = bottle, say, show, end
        self._once = threading.Lock()
        self._begun = self._over = False
        self._held: list[Callable[[], None]] = []  # what is still to be told
        self.failed = False

    def run(self) -> None:
        """Bring it back; whatever goes wrong is told, for the rest of the teardown must go on.

        Another thread than the main one tells nothing: the terminal is claude's then. The teardown's call tells it.
        """
        telling = threading.current_thread() is threading.main_thread()
        if telling and not self._over:  # another thread may have begun
            with contextlib.suppress(OSError, ValueError):
                self._say(begun())
        with self._once:
            if not self._begun:
                self._begun = True
                with contextlib.nullcontext() if telling else console.without_progress():
                    self._held.append(self._fetched())
                self._over = True
            while self._held and telling:
                with contextlib.suppress(OSError, ValueError):
                    self._held.pop()()

    def _fetched(self) -> Callable[[], None]:
        """Bring it back; return what tells it."""
        shown, why = list[str](), ""
        try:
            shown.append(fetch(self._bottle, shown.append, last=True, out=self._end))
        except Exception as error:  # whatever it is, the containers are still to be removed
            self.failed = True
            why = str(error) or repr(error)
        return functools.partial(self._tell, "".join(shown), why)

    def _tell(self, shown: str, why: str) -> None:
        if shown:
            self._show(shown)
        if why:
            self._say(why)
