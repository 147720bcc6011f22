"""Run the exporter in a bottle: commit uncommitted changes, list the commits, write a bundle of each."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from claude_bottle.errors import RepositoryError
from claude_bottle.host import installation
from claude_bottle.host.owner import Owner
from claude_bottle.process import command, stream, wording
from claude_bottle.process.command import Result
from claude_bottle.process.container import PYTHON, execute
from claude_bottle.process.deadline import Deadline
from claude_bottle.process.engine import Engine
from claude_bottle.repository import answers
from claude_bottle.repository.answers import Commit
from claude_bottle.repository.clone import OUT, WORKDIR, Work, script
from claude_bottle.repository.quarantine import BUNDLE, MIB

FILE = 512 * MIB  # bytes of an uncommitted file; larger ones stay in the bottle
ALIVE = 20.0  # seconds for a sign of life from the bottle
_KEEPING = 180.0  # seconds to commit uncommitted changes; the agent may have made that slow on purpose
_ROOM = 1024  # processes beyond its limit for a bottle that is about to end
_BRANCHES = 20  # commits fetched besides HEAD
_SHOWN = 10  # names in a line
_ANSWER = 1 << 24  # bytes of an answer
_LOOKING, _CLEARING = "looking at the bottle", "making room in the bottle"


class ExportRefused(RepositoryError):
    """A commit cannot be received from the bottle."""


@dataclass(frozen=True)
class Bottle:
    """A running bottle and its work; no command in it outlasts the deadline."""

    session: str
    owner: Owner  # of the temporary files: this process
    container: str
    work: Work
    env: Mapping[str, str] = field(repr=False)
    started: Callable[[int], None] = lambda _: None  # called with the pid of each docker client
    deadline: Deadline = field(default_factory=Deadline, repr=False, compare=False)

    def argv(self, text: str, *words: str) -> tuple[str, ...]:
        """Return the command that runs a shell script in the bottle, as the agent."""
        return execute(self.container, "/bin/bash", "-c", text, "bash", WORKDIR, *words)

    def export(self, command: str, *words: str) -> tuple[str, ...]:
        """Return the command that runs a command of the exporter in the bottle; its stdin must be `program`."""
        return execute(self.container, *PYTHON, command, WORKDIR, *words)

    def run(
        self,
        argv: Sequence[str],
        what: str,
        most: float | None = None,
        *,
        head: bytes = b"",
        into: IO[bytes] | None = None,
        limit: int = _ANSWER,
    ) -> Result:
        """Run a docker command to its end, for at most `most` seconds; `what` describes it in progress and errors.

        Its stdin is `head`. Its output, at most `limit` bytes, goes `into` a file, else into the result. Raises
        RepositoryError if time is up, the user gives up or the output is larger, EngineError without docker.
        """
        seconds = self.deadline.left(most)
        client = command.start(argv, self.env)
        self.started(client.pid)
        return stream.pump(client, what=what, seconds=seconds, head=head, into=into, limit=limit)

    def checked(self, result: Result) -> Result:
        """Return a command's result; raises EngineError if it failed because docker cannot be used.

        That takes another query, so it is not checked after the deadline or for a command that timed out.
        """
        return result if result.timed_out or self.deadline.over else Engine(self.env).checked(result)


@dataclass(frozen=True)
class Kept:
    """The bottle's answer about its work: its commit, other commits, and everything that is not fetched."""

    tip: str
    before: str = ""  # the agent's own last commit
    failed: str = ""  # why some uncommitted changes are not in `tip`
    slow: bool = False  # committing them took too long
    also: tuple[
        tuple[str, str, str], ...
    ] = ()  # commits not in the history of `tip`, each with the agent's own commit below it, and its description
    more: tuple[str, ...] = ()  # descriptions of those beyond the limit
    nested: tuple[str, ...] = ()
    large: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()  # why some commits cannot be read
    special: tuple[str, ...] = ()  # sockets, FIFOs and devices
    tags: tuple[tuple[str, str], ...] = ()  # each with its commit and name

    def tagged(self, session: str, *, last: bool) -> str:
        """Return a line with the tags and how to fetch them; empty if there are none."""
        if not self.tags:
            return ""
        names = ", ".join(name for _, name in self.tags[:_SHOWN])
        more = f", +{len(self.tags) - _SHOWN} more" if len(self.tags) > _SHOWN else ""
        if last:
            return f"beware  tags are lost with the bottle: {names}{more}\n"
        return f"tags    {names}{more}: to fetch them, {installation.command(f'fetch --tags {session}')}\n"

    def notes(self, where: str) -> Iterator[str]:
        """Yield a line for each kind of thing that is not fetched, or not as it is; `where` is its fate."""
        if self.slow:
            yield f"beware  what was left uncommitted took too long to commit: it {where}\n"
        if self.failed:
            yield f"beware  not all that was left uncommitted could be committed, the rest {where}: {self.failed}\n"
        if self.unread:
            yield f"beware  not all commits could be read, the rest {where}: {'; '.join(self.unread)}\n"
        for what, names in (
            ("the history of nested repositories, unlike their files,", self.nested),
            (f"beyond the {_BRANCHES} that are fetched,", self.more),
            ("too large,", self.large),
            ("not a regular file,", self.special),
        ):
            if names:
                more = f", +{len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
                yield f"beware  {what} {where}: {', '.join(names[:_SHOWN])}{more}\n"


def keep(bottle: Bottle, *, last: bool) -> Kept:
    """Commit the uncommitted changes in the bottle; `last` allows to end the agent's processes if they are in the way.

    Raises RepositoryError if there is nothing to fetch, EngineError if docker cannot be used. There is no second
    attempt once the user has given up or time is up.
    """
    try:
        _await(bottle)
        return _kept(bottle)
    except RepositoryError:
        if not last or bottle.deadline.over or not _cleared(bottle):
            raise
    return _kept(bottle)


def _await(bottle: Bottle) -> None:
    alive = bottle.checked(bottle.run(bottle.argv("exit 0"), _LOOKING, ALIVE))
    if alive.ok:
        return
    if alive.absent or wording.says(wording.CONTAINER_ENDED, alive.stderr) or _limit(bottle) is None:
        raise RepositoryError(f"nothing can be fetched any more, the bottle has ended ({alive.reason})")
    raise RepositoryError(f"the bottle is running, but nothing can be started in it: {alive.reason}")


def _limit(bottle: Bottle) -> int | None:
    """Return the bottle's limit of processes, 0 if unknown; None if it is not running."""
    form = "{{.State.Running}} {{.HostConfig.PidsLimit}}"
    argv = ("docker", "inspect", "--format", form, bottle.container)
    said = bottle.checked(bottle.run(argv, _LOOKING, ALIVE))
    running, _, limit = said.stdout.decode(errors="replace").strip().partition(" ")
    if said.absent or (said.ok and running != "true"):
        return None
    return int(limit) if limit.isdecimal() else 0


def _cleared(bottle: Bottle) -> bool:
    """End the agent's processes in a bottle without room for any other; return whether that succeeded."""
    limit = _limit(bottle)
    if limit is None:
        return False
    if limit:  # else not even the first process of an exec can start
        bottle.run(("docker", "update", "--pids-limit", str(limit + _ROOM), bottle.container), _CLEARING, ALIVE)
    return bottle.run(bottle.argv(script("clear.sh")), _CLEARING, ALIVE).ok


def _kept(bottle: Bottle) -> Kept:
    argv = bottle.export("keep", bottle.work.start, str(FILE))
    result = bottle.run(argv, "committing what was left", _KEEPING, head=program())
    said = answers.read(result.stdout, whole=result.ok)
    tip = said.tip or ("HEAD" if said.tip is None and result.timed_out else "")
    if not tip:
        bottle.checked(result)
        raise RepositoryError(f"the bottle has no commit to fetch ({result.reason})")
    also = _also(said.commits, (f"branch {bottle.work.back(bottle.session)}", tip))
    return Kept(
        *(tip, said.before, "; ".join((*said.failed, *_cut(result))), result.timed_out),
        *(also[:_BRANCHES], tuple(what for _, _, what in also[_BRANCHES:])),
        *(said.nested, said.large, said.unread, said.special),
        tags=said.tags,
    )


def _cut(result: Result) -> tuple[str, ...]:
    """Return the reason if the answer is incomplete."""
    return () if result.ok or result.timed_out else (f"the bottle did not finish ({result.reason})",)


def _also(commits: Sequence[Commit], head: tuple[str, str]) -> tuple[tuple[str, str, str], ...]:
    """Return the commits other than the head, without those below another one.

    The bottle's first branch comes first, then commits on no branch, then the other branches.
    """
    first, tip = head
    below = {each.oid: each.below for each in commits if each.below}
    found = dict[str, str]()
    for each in commits:
        if each.oid not in (tip, *below.values()):
            found.setdefault(each.oid, each.what)
    named = sorted(found.items(), key=lambda item: item[1] != first and 1 + item[1].startswith("branch "))
    return tuple((oid, below.get(oid, ""), f"the agent's {what}") for oid, what in named)


def take_back(bottle: Bottle, kept: str, before: str) -> None:
    """Undo the refused commit `kept` of uncommitted changes in the bottle, so that the agent can shrink it."""
    with contextlib.suppress(RepositoryError):  # then it stays as it is
        bottle.run(bottle.export("forget", kept, before), "taking back what was left", ALIVE, head=program())


def leave(bottle: Bottle, tip: str, into: Path, *, beyond: Sequence[str], limit: int, last: bool) -> bool:
    """Receive a bundle of a commit from the bottle into a new file; return False if it would be empty.

    It omits what is in the commits `beyond`, received before. Raises ExportRefused if it is larger than `limit` bytes,
    late or incomplete, EngineError without docker, OSError if the file cannot be written.
    """
    with into.open("xb", buffering=0) as file:
        into.chmod(0o600)
        try:
            argv = bottle.export("bundle", bottle.work.commit, tip, OUT, *beyond)
            result = bottle.run(argv, "fetching the work", head=program(), into=file, limit=limit)
        except stream.TooMuch:
            diff = installation.command(f"diff {bottle.session}")
            hint = f": see what it is with `{diff}`, and delete or ignore it in the bottle"
            raise ExportRefused(
                f"the work is larger than {BUNDLE // MIB} MiB, the most that is fetched{'' if last else hint}"
            ) from None
        except RepositoryError as error:  # given up, or out of time
            raise ExportRefused(str(error)) from None
    if wording.says(wording.EMPTY_BUNDLE, result.stderr):
        return False
    if not result.ok:
        raise ExportRefused(f"the bottle did not send its work: {result.reason}")
    return True


def program() -> bytes:
    """Return the exporter's source, the stdin of `Bottle.export`; it fits into a pipe's buffer."""
    return Path(__file__).with_name("exporter.py").read_bytes()
