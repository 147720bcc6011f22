"""Owners for the tests: of this process, of processes that are gone, and of a child that lives."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from claude_bottle.host.owner import Owner
from claude_bottle.process.liveness import start_time, this_process

OBSERVER = this_process()
ELSEWHERE = Owner("other", "boot", 1, "2")
REBOOTED = replace(OBSERVER, boot="before", pid=1, started="2")


@contextmanager
def launcher(*, deaf: bool = False) -> Iterator[tuple["subprocess.Popen[bytes]", Owner]]:
    """Yield a living process that looks like a launcher, `deaf` to SIGTERM or not, and its owner."""
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " if deaf else ""
    argv = (sys.executable, "-ISc", f"{ignore}print(flush=True); input()", "/a folder/cli.py", "start")
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.read(1)  # it is what its command line says by now
        yield process, replace(OBSERVER, pid=process.pid, started=start_time(process.pid))
        process.kill()
