"""Owners for the tests: of this process, of processes that are gone, and of a child that lives."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from claude_bottle.host.owner import Owner, start_time

OBSERVER = Owner.of_this_process()
ELSEWHERE = Owner("other", "boot", 1, "2")
REBOOTED = replace(OBSERVER, boot="before", pid=1, started="2")


@contextmanager
def launcher() -> Iterator[tuple["subprocess.Popen[bytes]", Owner]]:
    """Yield a living process, and the owner of what it would have made."""
    with subprocess.Popen(("sleep", "600")) as process:
        yield process, replace(OBSERVER, pid=process.pid, started=start_time(process.pid))
        process.kill()
