"""A `docker` that does as it is told, for tests: put on PATH by scene.py, in a folder that it shares with the test.

`rules.json` there is a list of rules; the first counts whose `match` is part of the arguments, joined by blanks:

    code              exit status, negative for a signal that ends it; default 0
    stdout, stderr    what it prints
    times             how often the rule holds; default always
    context           the docker context for which alone it holds
    fifo              a FIFO in the folder: wait, before anything else, until a writer has come and gone
    late              seconds to wait after that: the engine is slow
    line              wait for a line on stdin, after that
    stays             a FIFO in the folder: wait there, after all that it prints, as before it for `fifo`
    vanish            this program removes itself from PATH

Whatever no rule is for succeeds; a followed log ends with its sidecar. `log` has a line of each call's start and end.
"""

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

SELF = Path(__file__).absolute()
FOLDER = SELF.parent.parent
ARGV, PARENT = sys.argv[1:], os.getppid()
CONTEXT = os.environ.get("DOCKER_CONTEXT", "default")
ABLE = dict.fromkeys(("MemoryLimit", "SwapLimit", "PidsLimit", "CpuCfsPeriod", "CpuCfsQuota"), True)
INFO = {**ABLE, "CgroupVersion": "2", "CgroupDriver": "systemd", "SecurityOptions": ["name=seccomp,profile=builtin"]}
# "up" is the bottle's first line, which nobody reads elsewhere.
ANSWERS = {"version": "28.2.2 20.10.24\n", "run": "up\n", "info": f"{json.dumps(INFO)}\n"}


def log(event: str, **more: object) -> None:
    line = json.dumps({"event": event, "parent": PARENT, "argv": ["docker", *ARGV], **more}) + "\n"
    with (FOLDER / "log").open("ab", buffering=0) as file:
        file.write(line.encode())  # one write, so that the lines of many stay whole


def claimed(number: int, times: int) -> bool:
    """Tell whether rule `number`, which holds so many times, holds for this call."""
    for use in range(times):
        with contextlib.suppress(FileExistsError):
            (FOLDER / f"used-{number}-{use}").touch(exist_ok=False)
            return True
    return False


def rule() -> dict[str, object]:
    for number, each in enumerate(json.loads((FOLDER / "rules.json").read_bytes())):
        if each.get("context", CONTEXT) != CONTEXT:
            continue
        if each["match"] in " ".join(ARGV) and ("times" not in each or claimed(number, each["times"])):
            return dict(each)
    return {}


def ended(number: int, _frame: object) -> None:
    log("end", code=-number)
    os._exit(128 + number)


def main() -> None:
    signal.signal(signal.SIGTERM, ended)
    log("start", pid=os.getpid(), env=dict(os.environ), tmp=[path.name for path in (FOLDER / "tmp").iterdir()])
    what = rule()
    if "fifo" in what:
        (FOLDER / str(what["fifo"])).read_bytes()
    time.sleep(float(str(what.get("late", 0))))
    if "line" in what:
        sys.stdin.buffer.readline()
    if ARGV[0] == "rm" and ARGV[-1].endswith("-sidecar"):
        (FOLDER / "removed").touch()
    while ARGV[:2] == ["logs", "--follow"] and not (FOLDER / "removed").exists() and os.getppid() == PARENT:
        time.sleep(0.01)
    if "vanish" in what:
        SELF.unlink()
    sys.stdout.write(str(what.get("stdout", "" if what.get("code") else ANSWERS.get(ARGV[0], ""))))
    sys.stdout.flush()
    sys.stderr.write(str(what.get("stderr", "")))
    if "stays" in what:
        (FOLDER / str(what["stays"])).read_bytes()
    code = int(str(what.get("code", 0)))
    given = b"" if code or sys.stdin.isatty() else sys.stdin.buffer.read()
    log("end", code=code, stdin=given.partition(b"\0")[0].decode(errors="replace"))
    if code < 0:
        os.kill(os.getpid(), -code)
    sys.exit(code)


main()
