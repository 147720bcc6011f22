"""Go on in the background: a process of its own, in a session of its own, while this one waits until it is ready.

The process is split in two before anything else is done: the front one stays in its shell's job, passes signals on and
returns; the back one does all the work, so that whatever it makes is its own from the first step on.
"""

import contextlib
import os
import signal
import threading
from dataclasses import dataclass
from types import FrameType

from claude_bottle.errors import RefusedError

_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@dataclass(frozen=True)
class Front:
    """How the start went: the back process was ready and said so, or it has ended with this code."""

    code: int
    said: str = ""


class Back:
    """The back process, until it is ready: what it prints and reads is its caller's until then."""

    def __init__(self, news: int, life: int) -> None:
        """Write to the front process through `news`; `life` ends with it."""
        self._news, self._life = news, life
        self._ready = False

    def watch(self) -> None:
        """Have this process end in order if the front one does before this one is ready."""
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        with contextlib.suppress(OSError):
            os.read(self._life, 1)
        if not self._ready:
            hung_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN  # else by nohup
            os.kill(os.getpid(), signal.SIGHUP if hung_up else signal.SIGTERM)

    def ready(self, said: str, messages: int, output: int | None = None) -> None:
        """Let the front process and its terminal go; `said` is one line for it.

        From now on stderr is the descriptor `messages`, stdout `output` or nothing, and nothing is on stdin. Raises
        SystemExit if the front process has just ended.
        """
        self._ready = True
        null = os.open(os.devnull, os.O_RDWR)
        for number, descriptor in enumerate((null, null if output is None else output, messages)):
            os.dup2(descriptor, number)
        os.close(null)
        try:
            os.write(self._news, f"{said}\n".encode())
        except BrokenPipeError:
            raise SystemExit(128 + signal.SIGHUP) from None
        os.close(self._news)


def split(*, asks: bool) -> Back | Front:
    """Split this process in two: return a Back in the new one and, once that is ready or has ended, a Front in this.

    Main thread only, and before there is another. `asks` is whether the new one may read from the terminal, which a job
    in the background must not. INT, TERM, HUP and QUIT are passed on to it meanwhile, Ctrl-Z is not heeded; raises
    OSError if there can be no new process, RefusedError if the terminal is another job's for good.
    """
    if asks:
        _await_foreground()
    (news, telling), (life, living) = os.pipe(), os.pipe()
    former = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    back = 0
    try:
        if back := os.fork():
            _pass_on(back)
        else:
            os.setsid()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
    for other in (telling, life) if back else (news, living):
        os.close(other)
    if not back:
        made = Back(telling, life)
        made.watch()
        return made
    return _front(back, news)


def _front(back: int, news: int) -> Front:
    said = b""
    while not said.endswith(b"\n") and (more := os.read(news, 1 << 12)):
        said += more
    if said.endswith(b"\n"):
        _let_be()
        return Front(0, said.decode().strip())
    os.waitid(os.P_PID, back, os.WEXITED | os.WNOWAIT)
    _let_be()  # before its number can be another's
    code = os.waitstatus_to_exitcode(os.waitpid(back, 0)[1])
    return Front(code if code >= 0 else 128 - code)


def _await_foreground() -> None:
    """Stop, as a program does that reads from the terminal in the background, until this is in the foreground.

    Raises RefusedError where no shell minds this job: nothing stops it then, and its reads would fail.
    """
    woken: list[int] = []
    former = signal.signal(signal.SIGCONT, lambda number, _: woken.append(number))
    try:
        while _is_in_background():  # as it still is after `bg`
            woken.clear()
            os.kill(0, signal.SIGTTIN)
            if not woken:
                raise RefusedError("cannot prompt: the terminal is another job's")
    finally:
        signal.signal(signal.SIGCONT, former)


def _is_in_background() -> bool:
    try:
        return os.tcgetpgrp(0) != os.getpgrp()
    except OSError:  # no terminal, or not that of this session
        return False


def _pass_on(back: int) -> None:
    def pass_on(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(back, number)

    for number in _PASSED_ON:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, pass_on)
    # One that is stopped with its terminal taken away would never end.
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)


def _let_be() -> None:
    for number in (*_PASSED_ON, signal.SIGTSTP):
        if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGTSTP:
            signal.signal(number, signal.SIG_DFL)
