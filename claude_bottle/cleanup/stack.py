"""The undo stack of a session, and the signals that lead to it; the only user of atexit and signal handlers."""

import atexit
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, Self

from claude_bottle.errors import BottleError, EngineError, LeftBehindError
from claude_bottle.host import console, installation
from claude_bottle.host.owner import Owner
from claude_bottle.process import command, stream, wording
from claude_bottle.process.command import Result
from claude_bottle.process.engine import Engine
from claude_bottle.process.liveness import is_launcher, liveness

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_TIMEOUT = 60.0  # seconds for one undo: an engine that does not answer must not keep the user waiting for ever
_HURRY = 2.0  # seconds for those that come after one that got no answer; the watchdog goes on trying

Undo = Callable[[], str | None]  # returns the reason of a failure, None on success


class Teardown:
    """Undo, in reverse order, what was armed: once, whole, uninterruptible; used as a context manager.

    Within it INT, TERM, HUP and QUIT raise SystemExit(128 + n), once. What could not be removed is raised as
    LeftBehindError at the end, or only printed if a signal ends the program.
    """

    def __init__(self, note: Callable[[str], None] = lambda _: None, *, stoppable: bool = True) -> None:
        """Start with nothing armed; `note` is called with the name of each undo before it runs.

        `stoppable` is whether `stop` may be what sends SIGTERM.
        """
        self.note, self._stoppable = note, stoppable
        self._undos: dict[str, tuple[int, Undo]] = {}
        self._done = False
        self._shielded = False
        self._signal = 0
        self._timeout: float | None = None
        self._former: dict[signal.Signals, Any] = {}
        self.late = 0  # the first signal that came while everything was undone
        self.clean = True  # whether everything that was undone is gone

    def __enter__(self) -> Self:
        """Take over the signals; atexit undoes what is still armed should `__exit__` never run."""
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays what it is
                self._former[number] = signal.signal(number, self._on_signal)
        atexit.register(self.run)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Undo everything; `error` is printed by whoever catches it, what is left behind is printed here."""
        if self._signal == signal.SIGTERM and self._stoppable:  # unlike the others it is no doing of the terminal
            console.say(f"ended by SIGTERM, which {installation.command('stop')} sends")
        left = self.run()
        atexit.unregister(self.run)
        if not self._signal:
            for number, handler in self._former.items():
                signal.signal(number, handler)
        if not left:
            return
        message = f"left behind: {'; '.join(left)}; remove it with {installation.command('cleanup')}"
        if self._signal:
            console.say(message)
            return
        if isinstance(error, BottleError):
            console.say(str(error))
        raise LeftBehindError(message) from None

    def arm(self, place: int, name: str, undo: Undo) -> None:
        """Add an undo under a name; undos run from the highest `place` down."""
        self._undos[name] = (place, undo)

    def disarm(self, name: str) -> None:
        """Forget an undo: what it would undo is to stay."""
        self._undos.pop(name, None)

    def remove(self, argv: tuple[str, ...], env: Mapping[str, str]) -> str | None:
        """Run an undo's docker command, as the function `remove`; after one without an answer, hurry."""
        reason = remove(argv, env, self._timeout)
        if reason and reason.startswith(command.NO_ANSWER):
            self._timeout = _HURRY
        return reason

    def undo_all(self) -> list[str]:
        """Undo all that is armed, in order, and forget it; return what failed, with reasons."""
        left = []
        for name, (_, undo) in sorted(self._undos.items(), key=lambda item: item[1][0], reverse=True):
            self.note(f"undo {name} ...")
            try:
                reason = undo()
            except Exception as error:  # whatever it is, the undos after it must run
                reason = str(error) or repr(error)
            if reason:
                left.append(f"{name} ({reason})")
        self._undos.clear()
        self.clean = self.clean and not left
        return left

    def run(self) -> list[str]:
        """Undo all for the last time, deaf to signals; a second call does nothing."""
        if self._done:
            return []
        self._done = True
        return self.undo_all()

    @contextlib.contextmanager
    def shielded(self) -> Iterator[None]:
        """Hold a signal back until the block has ended: a client that was started must also be noted."""
        if self._shielded:
            yield
            return
        self._shielded = True
        try:
            yield
        finally:
            self._shielded = False
        if self._signal and not self._done:
            raise SystemExit(128 + self._signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._done:
            self.late = self.late or number
            if number in (signal.SIGINT, signal.SIGTERM):  # a terminal that closes sends others, and more than one
                stream.request_abort()
        if self._signal or self._done:
            return  # teardown has begun or is about to
        self._signal = number
        if not self._shielded:
            raise SystemExit(128 + number)


def remove(argv: tuple[str, ...], env: Mapping[str, str], timeout: float | None = None) -> str | None:
    """Run an undo's docker command: absence is success, a removal under way is awaited; return why it failed."""
    timeout = timeout or _TIMEOUT
    end = time.monotonic() + timeout
    while True:
        result = command.run(argv, env, timeout=timeout)
        if result.ok or _is_absent(result, env):
            return None
        if not wording.says(wording.REMOVAL_UNDER_WAY, result.stderr) or time.monotonic() > end:
            return result.reason
        time.sleep(0.05)


def _is_absent(result: Result, env: Mapping[str, str]) -> bool:
    """Return whether an undo failed for want of its object: a client's own word counts only if there is an engine."""
    if not result.absent:
        return False
    try:
        Engine(env).checked(result)
    except EngineError:
        return False
    return True


def ask_to_end(owner: Owner, observer: Owner) -> bool:
    """Send SIGTERM to the launcher that is an owner, which must be proven to be one of this user's.

    False if it is not a living process of this machine that this user may signal, or is seen to be no launcher. One of
    which the system shows nothing is asked: its session is not to be removed under it.
    """
    if liveness(owner, observer) != "ours" or not is_launcher(owner.pid):
        return False
    try:
        os.kill(owner.pid, signal.SIGTERM)
        os.kill(owner.pid, signal.SIGCONT)  # it may have been stopped by Ctrl-Z
    except OSError:
        return False  # it has just ended
    return True
