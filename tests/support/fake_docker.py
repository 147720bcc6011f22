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

import json
import os
import signal
import sys
import time

SELF = os.path.abspath(__file__)
FOLDER = os.path.dirname(os.path.dirname(SELF))
ARGV, PARENT = sys.argv[1:], os.getppid()
CONTEXT = os.environ.get("DOCKER_CONTEXT", "default")
ABLE = dict.fromkeys(("MemoryLimit", "SwapLimit", "PidsLimit", "CpuCfsPeriod", "CpuCfsQuota"), True)
INFO = {**ABLE, "CgroupVersion": "2", "CgroupDriver": "systemd", "SecurityOptions": ["name=seccomp,profile=builtin"]}
# "up" is the bottle's first line, which nobody reads elsewhere.
ANSWERS = {"version": "28.2.2 20.10.24\n", "run": "up\n", "info": f"{json.dumps(INFO)}\n"}
# Of the engine's host, which is asked if it is not this machine: a public one, and docker0's.
HOST = """\
     |-- 8.8.4.4
        /32 host LOCAL
     |-- 172.17.0.1
        /32 host LOCAL
Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""


def inside(name: object) -> str:
    return os.path.join(FOLDER, str(name))


def read(name: object) -> bytes:
    with open(inside(name), "rb") as file:
        return file.read()


def log(event: str, **more: object) -> None:
    line = json.dumps({"event": event, "parent": PARENT, "argv": ["docker", *ARGV], **more}) + "\n"
    with open(inside("log"), "ab", buffering=0) as file:
        file.write(line.encode())  # one write, so that the lines of many stay whole


def claimed(number: int, times: int) -> bool:
    """Tell whether rule `number`, which holds so many times, holds for this call."""
    for use in range(times):
        try:
            open(inside(f"used-{number}-{use}"), "xb").close()
        except FileExistsError:
            continue
        return True
    return False


def rule() -> dict[str, object]:
    for number, each in enumerate(json.loads(read("rules.json"))):
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
    log("start", pid=os.getpid(), env=dict(os.environ), tmp=os.listdir(inside("tmp")))
    what = rule()
    if "fifo" in what:
        read(what["fifo"])
    time.sleep(float(str(what.get("late", 0))))
    if "line" in what:
        sys.stdin.buffer.readline()
    if ARGV[0] == "rm" and ARGV[-1].endswith("-sidecar"):
        open(inside("removed"), "ab").close()
    while ARGV[:2] == ["logs", "--follow"] and not os.path.exists(inside("removed")) and os.getppid() == PARENT:
        time.sleep(0.01)
    if "vanish" in what:
        os.unlink(SELF)
    answer = HOST if "/proc/net/fib_trie" in ARGV[-1] else ANSWERS.get(ARGV[0], "")
    sys.stdout.write(str(what.get("stdout", "" if what.get("code") else answer)))
    sys.stdout.flush()
    sys.stderr.write(str(what.get("stderr", "")))
    if "stays" in what:
        read(what["stays"])
    code = int(str(what.get("code", 0)))
    given = b"" if code or sys.stdin.isatty() else sys.stdin.buffer.read()
    log("end", code=code, stdin=given.partition(b"\0")[0].decode(errors="replace"))
    if code < 0:
        os.kill(os.getpid(), -code)
    sys.exit(code)


main()
