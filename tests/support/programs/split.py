"""Split in two; the back one does what the arguments say, and writes its pid to the file that the first one names.

With "asks" before them, it may read from the terminal.

ready MESSAGES OUTPUT: is ready, then prints on both. stay: is never ready. leave CODE: exits before it is ready.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

from claude_bottle.process import background


def leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(64 + number)


asks = sys.argv[1] == "asks"
parted = background.split(asks=asks)
if isinstance(parted, background.Front):
    if parted.said:
        print(parted.said)
    sys.exit(parted.code)
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, leave)
pid, what, *words = sys.argv[2 if asks else 1 :]
done = Path(f"{pid}.new")
done.write_text(str(os.getpid()))
done.rename(pid)
try:
    if what == "leave":
        sys.exit(int(words[0]))
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    while what == "stay":
        signal.pause()
    messages, output = (os.open(path, os.O_WRONLY | os.O_CREAT, 0o600) for path in words)
    parted.ready("an-id", messages, output)
    print(f"{os.getsid(0) == os.getpid()} {os.read(0, 1)!r}", flush=True)
    print("a message", file=sys.stderr, flush=True)
    signal.pause()
except SystemExit as error:
    Path(f"{pid}.ended").write_text(str(error.code))
    raise
