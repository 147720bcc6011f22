"""Run a command as the launcher does, with signal handlers that raise; exits 99 if that leaves a child behind.

After --stops it is run as what runs in a bottle's terminal, after --tap FILE as a sign-in, whose output goes to FILE.
"""

import os
import signal
import sys
import termios
from pathlib import Path
from types import FrameType

from claude_bottle.bottle import job
from claude_bottle.process import terminal


def leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(64 + number)  # not what tty.run itself would return


for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGWINCH):
    signal.signal(number, leave)
handlers = [signal.getsignal(number) for number in signal.Signals]
try:
    if sys.argv[1] == "--stops":
        sys.exit(terminal.run(job.stoppable(tuple(sys.argv[2:])), os.environ, stops=True))
    if sys.argv[1] == "--tap":
        with Path(sys.argv[2]).open("wb", buffering=0) as file:

            def tap(data: bytes, size: tuple[int, int]) -> None:
                assert size == termios.tcgetwinsize(0)
                file.write(data)

            sys.exit(terminal.run(sys.argv[3:], os.environ, ctrl_c_ends=True, tap=tap))
    sys.exit(terminal.run(sys.argv[1:], os.environ))
finally:
    if handlers != [signal.getsignal(number) for number in signal.Signals]:
        os._exit(98)
    try:
        os.waitpid(-1, os.WNOHANG)
        os._exit(99)
    except ChildProcessError:
        pass
