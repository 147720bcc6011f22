"""Join the terminal whose launcher listens at a path; exits 42 if detached, 43 if the launcher is lost."""

import signal
import sys
from pathlib import Path
from types import FrameType

from claude_bottle.process import terminal_client


def leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(64 + number)


for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
    signal.signal(number, leave)
try:
    with terminal_client.connected(Path(sys.argv[1])) as connection:
        code = terminal_client.join(connection)
    sys.exit(42 if code is None else code)
except terminal_client.Lost:
    sys.exit(43)
