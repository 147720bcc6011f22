"""Fetch a bottle's work as a branch of the user's repository: only git objects leave the bottle, and only into git."""

import contextlib
import functools
import itertools
import math
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
from claude_bottle.repository.clone import OUT, Work
from claude_bottle.repository.export import FILE, Bottle, ExportRefused, Kept
from claude_bottle.repository.exporter import PART
from claude_bottle.repository.quarantine import BUNDLE, Quarantine, Room

__all__ = ("BUDGET", "Bottle", "HandBack", "Reached", "begun", "diff", "fetch")

BUDGET = 600.0  # seconds for a whole hand-back, with all its commits
_OUT = 0.8  # of BUDGET, to receive everything from the bottle; the rest is for the checks
_EMPTY_TREE = {  # by the length of an object's name
    40: "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    64: "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
}


@dataclass(frozen=True)
class Reached:
    """How a bottle is reached: how often the way to it was cut so far, and for how many seconds more it is there."""

    cuts: int = 0
    left: float = math.inf


def begun() -> str:
    """Return the message for the beginning of a hand-back."""
    return f"bringing the work back, for at most {deadline.spoken(BUDGET)}"


def fetch(
    bottle: Bottle,
    show: Callable[[str], None] = console.output,
    *,
    last: bool = False,
    tags: bool = False,
    left: float = math.inf,
    out: Callable[[], None] = lambda: None,
    landed: Callable[[str], None] = lambda _: None,
) -> str:
    """Fetch the work in its present state and return a summary; raises RepositoryError or EngineError.

    If only a part was fetched, `show` is called with the summary before the error is raised. Work that was received and
    could not be fetched is saved beside the repository; the error contains the path. `last`: the bottle is about to be
    removed, and work that is not fetched is lost. `tags`: fetch tags as well, as `bottle/<session>/<tag>`. `out` is
    called once everything is received, before it is checked, `landed` with the name of each branch that came. The limit
    is BUDGET seconds, of which the part _OUT is for the bottle, but at most the `left` seconds for which that is there;
    after that, or once the user has given up, no command is started.
    """
    budget, bottle = Deadline(BUDGET), replace(bottle, deadline=Deadline(min(left, BUDGET * _OUT)))
    with contextlib.ExitStack() as stages:
        trip = _Fetch(bottle, budget, export.keep(bottle, last=last), stages, last=last)
        trip.receive(tags=tags)
        out()
        told = trip.told() + ("" if tags else trip.kept.tagged(bottle.session, last=last))
    for branch in trip.branches:
        landed(branch)
    if trip.faults:
        if told:
            show(told)
        raise RepositoryError("; ".join(trip.faults))
    return told


def diff(bottle: Bottle) -> Iterator[str]:
    """Yield the lines of a diff of a running bottle's work, uncommitted changes included, control characters escaped.

    It is against the bottle's first commit, or an empty tree if that no longer exists. Raises RepositoryError if there
    is no diff, or only a part of it.
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
            raise RepositoryError("the diff is incomplete: git in the bottle cannot add the rest")
        if not silent:
            break
    alive = Engine(bottle.env).checked(command.run(bottle.argv("exit 0"), bottle.env, timeout=export.ALIVE))
    why = f"git exited with status {codes[0]}" if alive.ok else alive.reason
    raise RepositoryError(f"the changes in the bottle cannot be shown: {why}")


@dataclass(frozen=True)
class _Parcel:
    """A commit received from the bottle, in a stage dir that exists until the commit is fetched."""

    what: str  # its description; empty for HEAD
    tip: str  # its object id, on the bottle's word
    tag: str  # its tag in the user's repository; empty for a branch
    stage: StageDir
    held: contextlib.ExitStack  # removes the stage dir
    new: bool  # False: an earlier parcel contains all of it, so there is no bundle

    @property
    def bundle(self) -> Path:
        return self.stage.path / "bundle"


class _Fetch:
    """All commits of one bottle: its HEAD, then those not in its history. All are received before any is fetched.

    Each bundle is thin against the earlier ones, accepted or not: if one is refused, those based on it are, too.
    """

    def __init__(
        self, bottle: Bottle, budget: Deadline, kept: Kept, stages: contextlib.ExitStack, *, last: bool
    ) -> None:
        self.bottle, self.kept, self.last = bottle, kept, last
        self.where = "is lost with the bottle" if last else "stays in the bottle"
        self.faults: list[str] = []
        self._budget, self._stages = budget, stages
        self._parcels: list[_Parcel] = []
        self._known: list[str] = []  # the commits of the bundles received so far
        self._landed: dict[str, str] = {}  # fetched commits by branch or tag
        self.branches: list[str] = []
        self._left = BUNDLE
        self._room = Room(quarantine.UNPACKED, quarantine.PATHS)

    def receive(self, *, tags: bool) -> None:
        """Receive everything from the bottle, its `tags` included if wanted; add what fails to `faults`."""
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
        """Fetch what was received; return the summary of everything. Add what fails to `faults`."""
        head, also, tags = "", "", ""
        for parcel in self._parcels:
            branch, told = self._brought(parcel)
            if parcel.tag and branch:
                tags += f"tag     {branch}\n"
            elif parcel.what and branch:
                beware = told.partition("\nbeware")  # about its files; git can show the rest
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
            head = f"branch  none: {'no commit on HEAD is new' if also or notes else why}\n"
        return head + also + notes + tags

    def _fault(self, what: str, error: BottleError) -> None:
        self.faults.append(f"{what}: {error}" if what else str(error))

    def _either(self, tip: str, before: str, what: str = "") -> None:
        """Receive a commit; if it is refused, receive `before`, the agent's own last commit below it."""
        of = f" of {what}" if what else ""
        try:
            self._receive(tip, what)
            return
        except ExportRefused as error:
            if before in ("", tip):
                self.faults.append(f"{what} {self.where}: {error}" if what else f"{error}; it {self.where}")
                return
            self.faults.append(f"what was left uncommitted{of} {self.where}: {error}")
        except BottleError as error:  # even if the engine is gone, fetch what was received before
            self._fault(what, error)
            return
        if not self.last:
            export.take_back(self.bottle, tip, before)
        if before == self.bottle.work.start:
            return
        try:
            self._receive(before, what)
        except ExportRefused:
            self.faults.append(f"nor can what was committed before{of} be fetched: it {self.where}")
        except BottleError as error:
            self._fault(what, error)

    def _receive(self, tip: str, what: str, tag: str = "") -> None:
        """Receive one commit, for a branch or, if named, a `tag`; raises RepositoryError or EngineError."""
        try:
            try:
                self._parcels.append(self._parcel(tip, what, tag, None))
            except OSError:  # the temporary directory may be full, and the repository's disk not
                self._parcels.append(self._parcel(tip, what, tag, self.bottle.work.repository.parent))
        except OSError as error:
            raise RepositoryError(f"the work could not be fetched: {error.strerror or error}") from None

    def _parcel(self, tip: str, what: str, tag: str, folder: Path | None) -> _Parcel:
        """Receive one commit into a stage dir in `folder`, else in the temporary directory; raises OSError as well."""
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
        """Fetch one commit; return its branch or tag, and its summary. Both are empty if nothing in it is new."""
        told = "", ""
        try:
            with parcel.held:
                told = self._through(parcel)
        except OSError as error:
            self._fault(parcel.what, RepositoryError(f"the work could not be fetched: {error.strerror or error}"))
        except BottleError as error:  # those fetched before are still to be reported
            self._fault(parcel.what, error)
        return told

    def _through(self, parcel: _Parcel) -> tuple[str, str]:
        """Fetch one commit through a quarantine in its stage dir."""
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
            raise saved(work, self.bottle.session, parcel.bundle, str(error)) from None
        self._landed[branch] = tip
        self.branches += [] if tag else [branch]
        return branch, "" if tag else report.told(apart.git, work, tip, branch)


def saved(work: Work, session: str, bundle: Path, why: str) -> RepositoryError:
    """Save a bundle, beside the repository if possible; return the error with `why` and the path."""
    repository = work.repository
    checked = quarantine.admitted(bundle.parent)
    quarantine.discard(bundle.parent)  # it may have filled the disk
    for folder in (repository.parent, bundle.parent.parent):
        with contextlib.suppress(OSError):
            path = _moved(bundle, folder, f"{repository.name}-bottle-{session}")
            # A manual fetch of a refused bundle would bypass the checks: not every git checks a bundle.
            how = f"git -C {quoted(str(repository))} fetch {quoted(str(path))} {OUT}"
            hint = how if checked else "look at it in a clone of the repository, never in your own"
            where = f"{'' if checked else ', unchecked,'} in {escape_control_chars(str(path))}"
            return RepositoryError(f"{why}; the work is saved{where} ({hint})")
    return RepositoryError(f"{why}; nor could it be saved in {escape_control_chars(str(repository.parent))}")


def _moved(bundle: Path, folder: Path, name: str) -> Path:
    """Move a file into a folder under an unused name; return its path."""
    for number in itertools.count(1):
        path = folder / f"{name}{'' if number == 1 else f'-{number}'}.bundle"
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            break
    try:
        try:
            bundle.replace(path)  # needs no space
        except OSError:  # another file system
            with path.open("wb") as file, bundle.open("rb") as source:
                shutil.copyfileobj(source, file)
    except OSError:
        path.unlink()
        raise
    return path


class HandBack:
    """Fetches a session's work once, at its end, whichever thread notices the end first."""

    def __init__(
        self,
        bottle: Bottle,
        say: Callable[[str], None],
        show: Callable[[str], None],
        end: Callable[[], None] = lambda: None,
        landed: Callable[[str], None] = lambda _: None,
        reach: Callable[[], Reached] = Reached,
    ) -> None:
        """Do nothing yet. `say` is called with the beginning and with errors, a line each, `show` with the summary.

        `end` is called to end the bottle once everything is received, `landed` with each branch that came back, that of
        HEAD first. `reach` is called to make sure of the way to the bottle: if that was cut meanwhile, the work is
        fetched once more.
        """
        self._bottle, self._say, self._show, self._end, self._landed = bottle, say, show, end, landed
        self._reach = reach
        self._branches: list[str] = []
        self._once = threading.Lock()
        self._begun = self._over = False
        self._held: list[Callable[[], None]] = []  # messages to print
        self.failed = False

    def run(self) -> None:
        """Fetch the work; print errors instead of raising them, since the teardown must go on.

        Only the main thread prints: in any other, the terminal is still claude's. The call in the teardown prints then.
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
        """Fetch the work; return the function that prints the outcome."""
        reached = self._reach()
        shown, why = self._tried(reached)
        if why and (now := self._reach()).cuts > reached.cuts:
            again, why = self._tried(now)
            shown = again or shown
        self.failed = bool(why)
        return functools.partial(self._tell, shown, why)

    def _tried(self, reached: Reached) -> tuple[str, str]:
        """Fetch the work once; return its summary, and why it is not whole."""
        shown, why = list[str](), ""
        try:
            out, left = self._end, reached.left
            shown.append(fetch(self._bottle, shown.append, last=True, left=left, out=out, landed=self._note))
        except Exception as error:  # of any kind: the containers must still be removed
            why = str(error) or repr(error)
        return "".join(shown), why

    def _note(self, branch: str) -> None:
        if branch not in self._branches:
            self._branches.append(branch)
            self._landed(branch)

    def _tell(self, shown: str, why: str) -> None:
        if shown:
            self._show(shown)
        if why:
            self._say(why)
