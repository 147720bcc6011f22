"""Sessions that are ended from outside, many side by side, and what is left of them."""

import contextlib
import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from claude_bottle.repository.source import NOBODY
from tests.support import keys
from tests.support.repos import Repo
from tests.support.sessions import CLI, GUARD, PUPPET, Bench, Ended, Running
from tests.world import World

SIDE_BY_SIDE = 6


def write(bench: Bench, prompt: str) -> None:
    """Give an agent a repository, and a bottle with an ssh host, whose claude is the puppet beside the manifests."""
    repo = Repo(bench.folder / "repo", {**os.environ, **NOBODY})
    if not repo.path.exists():
        repo.path.mkdir()
        repo.git("init", "--quiet")
        repo.commit(file="1")
    key = bench.folder / "key"
    key.write_text(keys.private())
    host = {"host": "git.test", "key": str(key), "known_host": keys.public("host")}
    bottle: dict[str, object] = {"image": {"dockerfile": "../puppet/Dockerfile"}, "ssh": [host]}
    bench.write(bottle, prompt=prompt, repo=str(repo.path))


def stays(run: Running) -> None:
    """Wait until the puppet stays."""
    assert run.process.stdout
    assert run.process.stdout.read(9) == b"<staying>", run.end()


def things(bench: Bench) -> list[str]:
    """Return what is left of a session, but for clients: one that was orphaned at its birth ends by itself."""
    kinds = ("ps ", "network ", "volume ", str(bench.stage))
    return [one for one in bench.left() if one.startswith(kinds)]


def until_nothing_is_left(bench: Bench, since: float) -> float:
    """Wait until nothing is left of a session; return the seconds that it took."""
    while left := things(bench):
        assert time.monotonic() < since + GUARD, left
        time.sleep(0.1)
    return time.monotonic() - since


def watchdogs(launcher: int) -> list[int]:
    """Return the process id of a launcher's watchdog."""
    found = []
    for path in (each / "cmdline" for each in Path("/proc").glob("[0-9]*")):
        with contextlib.suppress(OSError):
            line = path.read_bytes()
            if b"claude_bottle.cleanup.watchdog" in line and b":%d:" % launcher in line:
                found.append(int(path.parent.name))
    return found


def until_no_watchdog(launcher: int) -> None:
    """Wait until the watchdog of a launcher has ended."""
    end = time.monotonic() + GUARD
    while watchdogs(launcher):
        assert time.monotonic() < end, "the watchdog does not end"
        time.sleep(0.1)


def machine(name: str) -> tuple[str, ...]:
    """Return the beginning of a command that runs on a machine of that name, to which all others are elsewhere."""
    own = () if os.geteuid() == 0 else ("--map-root-user",)
    return ("unshare", "--uts", *own, "sh", "-c", 'hostname "$0" && exec "$@"', name)


def run_on(name: str, bench: Bench, *words: str) -> Ended:
    """Run ./cli.py on a machine of that name, in the bench's environment, to its end."""
    return bench.run((*machine(name), str(CLI), *words), {})


@contextlib.contextmanager
def running(argv: tuple[str, ...], env: dict[str, str]) -> Iterator[Running]:
    """Run a command; a test that fails meanwhile ends it."""
    run = Running(argv, env)
    try:
        yield run
    finally:
        run.process.terminate()
        run.end()


@dataclass
class Case:
    """One session that gets a signal at a moment.

    `codes` are those that it may then end with, the usual one first; KILL has its own.
    """

    row: str
    bench: Bench
    number: signal.Signals
    codes: tuple[int, ...]
    moment: Callable[[Running], None]
    prompt: str = "stay"
    environ: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()  # of the command: a program that becomes it
    send: Callable[[int, int], None] = os.kill
    gone: float = 0  # seconds from KILL until nothing was left

    def run(self) -> str | None:
        """Run it; return what is wrong."""
        try:
            self._run()
        except AssertionError as error:
            self.bench.remove_left()
            return f"{self.row}: {error}"
        return None

    def _run(self) -> None:
        write(self.bench, self.prompt)
        command = (*self.prefix, str(CLI), "start", self.bench.name, "--yes", "-v")
        with running(command, self.bench.environ | self.environ) as run:
            self.moment(run)
            self.send(run.process.pid, self.number)
            killed = self.number == signal.SIGKILL
            if killed:
                self.gone = until_nothing_is_left(self.bench, time.monotonic())
            ended = run.end()
        assert ended.code in ((-self.number,) if killed else self.codes), ended
        if ended.code < 0 or ended.code not in self.codes[:1]:
            # Python's own handling of the signal has cut off the very end, in which the watchdog is dismissed: it looks
            # at the engine twice before it goes.
            until_no_watchdog(run.process.pid)
        assert self.bench.left() == [], ended


class Matrix:
    """Makes the cases of one test, runs them side by side, and notes what came of them for the summary."""

    def __init__(self, world: World, agents: Path, folder: Path, note: Callable[[str, object], None]) -> None:
        """Put the puppet beside the manifests in `agents`."""
        self._world, self._agents, self._folder, self._note = world, agents, folder, note
        self._made = 0
        self.name = f"m-{secrets.token_hex(6)}"  # of a machine of the test's own
        shutil.copytree(PUPPET, agents / "puppet")

    def bench(self) -> Bench:
        """Return a place for one session: an agent and a temporary directory of its own."""
        self._made += 1
        folder = self._folder / str(self._made)
        folder.mkdir()
        return Bench(self._world, self._agents, folder)

    def run(self, cases: Sequence[Case]) -> None:
        """Run all cases; what is wrong with any is the test's failure."""
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            wrong = [each for each in pool.map(Case.run, cases) if each]
        gone = [case.gone for case in cases if case.gone]
        self._note("matrix", (len(cases), len(wrong), gone))
        assert not wrong, "\n".join(wrong)
