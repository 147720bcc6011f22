"""The watchdog: a detached process that tears a session down if its launcher is killed.

It reads lines of JSON from a pipe whose other end only the launcher holds: what undoes the session, and each client.
A pipe that ends without the word "dismissed" means that the launcher is gone.
"""

import contextlib
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Self

from claude_bottle.cleanup import builds, orphans
from claude_bottle.errors import BottleError
from claude_bottle.host import installation
from claude_bottle.host.machine import read_machine
from claude_bottle.host.owner import Owner
from claude_bottle.process import command, forward
from claude_bottle.process.liveness import is_same, stamp

_PATIENCE = 600.0  # seconds in which an engine that does not answer may come back
_PAUSE = 1.0  # seconds between two listings, at least: a client in flight can create after the first
_SLOW = 10  # times as long as a listing took is the pause after it: an engine under load takes longer to create, too
_TIMEOUT = 20.0  # seconds for one undo
_IN_PASSING = 3.0  # seconds after a start in which the machine is claude's
# Without site-packages, which it does not need, and with nothing imported, as it lives as long as the session, until
# there is something to do. What was said until then is handed over. The folder of the package comes last: if it is
# site-packages, nothing there may stand in for a module of Python's own.
_PROGRAM = """
import sys
said = []
for line in sys.stdin:
    if line.startswith('["dismissed"'):
        sys.exit()
    said.append(line)
    if line.startswith('["reap"'):
        break
sys.path.append(sys.argv[1])
import claude_bottle.cleanup.watchdog
claude_bottle.cleanup.watchdog.main(sys.argv[2], said)
"""


class Watchdog:
    """The launcher's end of the pipe; used as a context manager around a session's teardown."""

    def __init__(self, pipe: IO[bytes]) -> None:
        """Write to a watchdog through `pipe`, its stdin."""
        self._pipe = pipe
        self._reap = threading.Timer(_IN_PASSING, self.tell, ("reap",))
        self._reap.daemon = True

    @classmethod
    def start(cls, env: Mapping[str, str], owner: Owner, held: Sequence[int] = ()) -> Self:
        """Start a watchdog, detached, with `env` as its environment; it shares `held`. Raises EngineError."""
        argv = (sys.executable, "-IS", "-c", _PROGRAM, str(installation.IMPORTS), str(owner))
        return cls(command.detach(argv, env, held))

    def tell(self, kind: str, *values: object) -> None:
        """Send it one line; a watchdog that has gone is no reason to end a session."""
        with contextlib.suppress(OSError, ValueError):
            self._pipe.write(json.dumps((kind, *values)).encode() + b"\n")

    def watch(self, session: str, undos: Iterable[Sequence[str]]) -> None:
        """Name the session and what undoes it, in order; a second call replaces the first."""
        self.tell("session", session, list(undos))

    def note(self, pid: int) -> None:
        """Name a docker client, which must not create anything once the launcher is gone."""
        self.tell("client", pid, stamp(pid))

    def built(self, kind: str, *values: object) -> None:
        """Name what a build that nobody has agreed to yet has made: see `builds.Made.note`."""
        self.tell("built", kind, *values)

    def reap(self) -> None:
        """Have it remove what dead launchers have left, a little later."""
        self._reap.start()

    def close(self, *, clean: bool) -> None:
        """Let it go; if the launcher's own teardown was not `clean`, it tries again."""
        if self._reap.is_alive():
            self._reap.cancel()
            self.tell("reap")
        if clean:
            self.tell("dismissed")
        with contextlib.suppress(OSError):
            self._pipe.close()


def main(label: str, said: Iterable[str]) -> None:
    """Run the watchdog, which has read the lines `said`: wait for the launcher's end, and clean up after it."""
    owner = Owner.parse(label)
    assert owner  # noqa: S101  (the launcher's own label)
    env = read_machine(owner).environ
    told = _Told()
    reaper = threading.Thread(target=_reap, args=(env, owner), daemon=True)
    for line in itertools.chain(said, sys.stdin):
        kind, *values = json.loads(line)
        if kind == "reap" and not reaper.ident:
            reaper.start()  # beside the waiting: a launcher's death is to be seen at once
        elif kind == "dismissed":
            if reaper.is_alive():
                reaper.join()
            return
        told.learn(kind, values)
    _end(told.clients)
    own = [item for item in orphans.stage_dirs(env) if (item.owner or item.session) in (owner, told.session)]
    # Not those of a `fetch` that is at work. The way to the engine is needed to the end.
    orphans.remove(env, (item for item in own if item.session != forward.NAME), _unheard)
    with contextlib.suppress(BottleError):
        builds.remove(forward.way(env), told.made)
    if told.session:
        _tear_down(env, told.session, told.undos)
    orphans.remove(env, own, _unheard)


@dataclass
class _Told:
    """What the launcher has told."""

    session: str = ""
    undos: list[list[str]] = field(default_factory=list)
    clients: list[tuple[int, str]] = field(default_factory=list)
    made: builds.Made = field(default_factory=builds.Made)

    def learn(self, kind: str, values: list[Any]) -> None:
        if kind == "session":
            self.session, self.undos = values
        elif kind == "client":
            self.clients.append((values[0], values[1]))
        elif kind == "built":
            self.made.note(*values)


def _reap(env: Mapping[str, str], owner: Owner) -> None:
    """Remove what dead launchers have left; what fails here is left for `cleanup` to report."""
    with contextlib.suppress(BottleError):
        found = (*orphans.listed(env), *orphans.stage_dirs(env))
        orphans.remove(env, orphans.dead(env, found, owner), _unheard)


def _end(clients: Iterable[tuple[int, str]]) -> None:
    for pid, noted in clients:
        with contextlib.suppress(OSError):
            if is_same(pid, noted):  # else another may have its number by now
                os.kill(pid, signal.SIGKILL)


def _tear_down(env: Mapping[str, str], session: str, undos: Iterable[Sequence[str]]) -> None:
    """Undo in order, then remove what is there by label, until two listings in a row are empty."""
    for argv in undos:
        with contextlib.suppress(BottleError):  # docker has vanished, and may come back
            command.run(argv, forward.way(env), timeout=_TIMEOUT)
    end, empty = time.monotonic() + _PATIENCE, 0
    while empty < 2 and time.monotonic() < end:
        begun = time.monotonic()
        try:
            found = orphans.listed(way := forward.way(env), session)
        except BottleError:
            found = None
        took = time.monotonic() - begun
        if found:
            orphans.remove(way, found, _unheard)
        empty = empty + 1 if found == () else 0
        if empty < 2:
            time.sleep(max(_PAUSE, _SLOW * took) if empty else _PAUSE)


def _unheard(message: str) -> None:
    del message  # nobody is left to read it
