"""Run a command as the launcher does, with signal handlers that raise; exits 99 if that leaves a child behind.

After --stops it is run as what runs in a bottle's terminal.
"""

import os
import signal
import sys
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
    sys.exit(terminal.run(sys.argv[1:], os.environ))
finally:
    if handlers != [signal.getsignal(number) for number in signal.Signals]:
        os._exit(98)
    try:
        os.waitpid(-1, os.WNOHANG)
        os._exit(99)
    except ChildProcessError:
        pass
