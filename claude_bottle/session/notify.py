"""Run the user's program when the agent begins to wait for its user, and when the session has ended."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from claude_bottle.bottle import state
from claude_bottle.cleanup.stack import Teardown
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.errors import BottleError, ManifestError
from claude_bottle.host.machine import Machine
from claude_bottle.process import command
from claude_bottle.process.command import Client

ENDED = "ended"
_SETTING = "NOTIFY"
# The whole environment of the program: what a desktop's notifications need, and no token.
_PASSED_ON = (
    *("PATH", "HOME", "LANG", "DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"),
    "XAUTHORITY",
)
_SECONDS = 10.0  # for the program
_TICK = 0.1  # seconds between two looks at it
_APART = 5.0  # seconds between two of one event, at least
_AGAIN = 10.0  # seconds until a bottle is followed again, if what follows it has ended: the agent can end it
_PAUSE = 0.5  # seconds between two readings: the agent can write there without end
_MOST = 1 << 12  # bytes of one


@dataclass(frozen=True)
class Program:
    """The user's program, by its absolute path, and its whole environment."""

    path: Path
    env: Mapping[str, str]


def program(machine: Machine) -> Program | None:
    """Return the program that CLAUDE_BOTTLE_NOTIFY names, by its path or as one on PATH; None without the setting.

    Raises ManifestError if there is no such program.
    """
    named = machine.setting(_SETTING)
    if not named:
        return None
    found = shutil.which(machine.path(named), path=machine.environ.get("PATH", ""))
    if not found:
        raise ManifestError(f"CLAUDE_BOTTLE_{_SETTING}: {escape_control_chars(named)}: no such program")
    env = {name: machine.environ[name] for name in _PASSED_ON if name in machine.environ}
    return Program(Path(found).absolute(), env)


class Notifier:
    """Runs a program for one session: one at a time, and one an event in five seconds.

    An agent can have it run as often, and no more: what it writes counts only if it is one of the known words.
    """

    def __init__(self, program: Program, session: str) -> None:
        """Prepare to notify of this session."""
        self._program, self._session = program, session
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._follower: Client | None = None

    def follow(self, container: str, env: Mapping[str, str], started: Callable[[int], None]) -> None:
        """Start to follow the bottle's state; `started` is called with the pid of each docker client that does."""
        self._thread = threading.Thread(target=self._follow, args=(container, env, started), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Follow no more: what the agent does while the session ends is of no interest."""
        self._over.set()
        if self._follower:
            self._follower.let_go()

    def join(self) -> None:
        """Wait until the bottle is followed no more."""
        self.stop()
        if self._thread:
            self._thread.join(_SECONDS)

    def ended(self) -> None:
        """Notify of the session's end, and wait for that, ten seconds at most and deaf to signals. Main thread only."""
        self.join()
        with Teardown(stoppable=False) as last:
            last.arm(0, ENDED, lambda: self._run(ENDED, threading.Event()))

    def _follow(self, container: str, env: Mapping[str, str], started: Callable[[int], None]) -> None:
        while not self._over.is_set():
            with suppress(BottleError):  # docker has gone
                self._follower = command.start(state.follow(container), env)
                started(self._follower.pid)
                self._listen(self._follower)
            self._over.wait(_AGAIN)

    def _listen(self, follower: Client) -> None:
        """Notify of each time at which the agent begins to wait, until the client or the session ends."""
        out, err = cast("IO[bytes]", follower.process.stdout), cast("IO[bytes]", follower.process.stderr)
        try:
            while not self._over.is_set() and (said := os.read(out.fileno(), _MOST)):
                pause = _PAUSE
                if state.word(said.rstrip(b"\n").rpartition(b"\n")[2]) == state.WAITS:  # what came before is past
                    end = time.monotonic() + _APART
                    self._run(state.WAITS, self._over)
                    pause = max(0.0, end - time.monotonic())
                self._over.wait(pause)
        finally:
            follower.terminate()
            follower.let_go()
            out.close()
            err.close()

    def _run(self, event: str, over: threading.Event) -> None:
        """Run the program, for ten seconds at most and until the session is `over`."""
        with suppress(BottleError):  # it was there at the start
            client = command.unheard((str(self._program.path), event, self._session), self._program.env)
            end = time.monotonic() + _SECONDS
            while not client.ended_within(_TICK) and time.monotonic() < end and not over.is_set():
                pass
            client.kill_group()
