"""Hold the terminal of a command as a launcher in the background does; the first argument is the path of its socket.

Prints "listening", and at the end the exit code.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

from claude_bottle.bottle import job
from claude_bottle.process import terminal_host


def leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(64 + number)


for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
    signal.signal(number, leave)
with terminal_host.listen(Path(sys.argv[1])) as listening:
    print("listening", flush=True)
    sys.exit(terminal_host.serve(job.stoppable(tuple(sys.argv[2:])), os.environ, listening, (24, 80)))
