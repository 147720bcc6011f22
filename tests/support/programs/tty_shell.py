"""What a user's shell is to the launcher: owner of the terminal, in which it runs the command of its arguments.

It outlives the command. Lines on stderr: the command's pid, then its end and the terminal before and after, as JSON.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios


def state() -> str:
    return repr([termios.tcgetattr(0), [fcntl.fcntl(fd, fcntl.F_GETFL) for fd in (0, 1)]])


fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGHUP, lambda *_: None)
before = state()
command = subprocess.Popen(sys.argv[1:])
print(command.pid, file=sys.stderr, flush=True)
code = command.wait()
try:
    after = state()
except termios.error:
    after = "gone"
print(json.dumps({"code": code, "before": before, "after": after}), file=sys.stderr, flush=True)
os.write(1, b"$ shell $")
signal.pause()
