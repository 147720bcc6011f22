"""A `ps` as macOS's answers, for a system whose /proc is empty: it reads one that is mounted beside this file.

What macOS's does not know, or would not answer so in this environment, is an error. A file `broken` makes all fail.
"""

import os
import sys
import time
from pathlib import Path

HERE = Path("@FOLDER@")
FORM = ["-ww", "-o", "stat=", "-o", "lstart=", "-o", "command=", "-p"]


def main() -> int:
    if (HERE / "broken").exists():
        sys.stderr.write("ps: Operation not permitted\n")
        return 1
    if sys.argv[1:-1] != FORM or (os.environ.get("LC_ALL"), os.environ.get("TZ")) != ("C", "UTC"):
        sys.stderr.write("ps: illegal option\n")
        return 1
    process = HERE / "proc" / sys.argv[-1]
    try:
        state, *rest = (process / "stat").read_text().rpartition(")")[2].split()
        command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return 1  # no such process: it prints nothing
    (booted,) = [line.split()[1] for line in (HERE / "proc/stat").read_text().splitlines() if line.startswith("btime ")]
    started = time.gmtime(int(booted) + int(rest[18]) // os.sysconf("SC_CLK_TCK"))
    shown = "(python)" if state == "Z" else command
    sys.stdout.write(f"{state + 's':<4} {time.strftime('%a %b %e %H:%M:%S %Y', started):<28} {shown}\n")
    return 0


sys.exit(main())
