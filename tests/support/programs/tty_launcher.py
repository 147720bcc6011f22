"""Run a command as the launcher does, with signal handlers that raise; exits 99 if that leaves a child behind."""

import os
import signal
import sys
from types import FrameType

from claude_bottle.process import terminal


def leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(64 + number)  # not what tty.run itself would return


for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGWINCH):
    signal.signal(number, leave)
handlers = [signal.getsignal(number) for number in signal.Signals]
try:
    sys.exit(terminal.run(sys.argv[1:], os.environ))
finally:
    if handlers != [signal.getsignal(number) for number in signal.Signals]:
        os._exit(98)
    try:
        os.waitpid(-1, os.WNOHANG)
        os._exit(99)
    except ChildProcessError:
        pass
