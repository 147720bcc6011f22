#!/usr/bin/python3
"""Stands where claude stands: the first word of the prompt names what it does, all else it tells as JSON."""

import ctypes
import json
import os
import random
import resource
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType

BLOCK = 1 << 20


def say(text: str) -> None:
    """Write a word that a test can find in what a terminal shows."""
    os.write(1, f"<{text}>".encode())


def raw() -> None:
    """Have the terminal, if there is one, change nothing."""
    if os.isatty(0):
        tty.setraw(0, termios.TCSANOW)


def send(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def flood(megabytes: str, code: str) -> None:
    """Write bytes that anybody can make again, and exit at once."""
    raw()
    say("flood")
    source = random.Random(megabytes)
    for _ in range(int(megabytes)):
        send(source.randbytes(BLOCK))
    os._exit(int(code))


def die(number: str) -> None:
    """Write 16 KiB and die of a signal."""
    raw()
    say("dying")
    send(random.Random(number).randbytes(1 << 14))
    os.kill(os.getpid(), int(number))


def listen(count: str) -> None:
    """Tell the terminal's size whenever it changes, until so many bytes were typed; tell these too."""

    def tell(_number: int = 0, _frame: FrameType | None = None) -> None:
        say("{1}x{0}".format(*os.get_terminal_size()))

    raw()
    signal.signal(signal.SIGWINCH, tell)
    tell()
    data = b""
    while len(data) < int(count):
        data += os.read(0, 64)
    say(data.hex())


def setup_token() -> None:
    """Play `claude setup-token`: show a URL, take a code, and show a token made from it, as the real one does.

    That writes only the cells that change, wraps within a margin, and ends soon after.
    """
    raw()
    width = os.get_terminal_size().columns - 1
    page = ("Use the URL below to sign in", "", "https://claude.ai/oauth/authorize?code=true", "", "Paste code here")
    send("".join(f"\x1b[2G{line}\r\n" for line in page).encode())
    code = b""
    while not code.endswith(b"\r"):
        code += os.read(0, 64)
        send(b"*")
    if code == b"no\r":
        sys.exit(1)
    token = f"sk-ant-oat01-{code[:-1].decode()}"
    lines = [token[at : at + width] for at in range(0, len(token), width)]
    send(f"\r\x1b[{len(page)}A\x1b[J".encode())
    for remainder in range(3):
        for line in lines:
            cells = (f"\x1b[{place + 2}G\x1b[33m{line[place]}" for place in range(remainder, len(line), 3))
            send(f"{''.join(cells)}\x1b[39m\r\n".encode())
        send(f"\x1b[{len(lines)}A".encode())
    send(f"\x1b[{len(lines) + 1}B\r\x1b[2GStore this token securely.\r\n".encode())
    termios.tcdrain(1)


def chatter() -> None:
    """Write without end, until `q` is typed."""
    raw()
    while not select.select([0], [], [], 0.01)[0] or os.read(0, 64) != b"q":
        say("chatter")
    os._exit(7)


def leave(code: str) -> None:
    sys.exit(int(code))


def stay() -> None:
    """Stay until somebody ends it."""
    say("staying")
    while True:
        signal.pause()


def deaf() -> None:
    """Stay, and heed no signal that can be ignored."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    say("deaf")
    while True:
        signal.pause()


def hostile(pid: int) -> dict[str, Callable[[], object]]:
    """Return what one process can try to do to another, each under a name."""
    libc = ctypes.CDLL(None, use_errno=True)
    limits = (resource.RLIMIT_CPU, resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_AS)

    def traced(request: int) -> None:
        if libc.ptrace(request, pid, 0, 0):
            raise OSError(ctypes.get_errno(), "ptrace")

    return {
        **{f"signal {number}": partial(os.kill, pid, number) for number in signal.valid_signals()},
        **{f"limit {limit}": partial(resource.prlimit, pid, limit, (0, 0)) for limit in limits},
        "attach": partial(traced, 16),
        "seize": partial(traced, 0x4206),
        "nice": partial(os.setpriority, os.PRIO_PROCESS, pid, 19),
        "stdin": partial(os.open, f"/proc/{pid}/fd/0", os.O_RDONLY | os.O_NONBLOCK),
        "memory": partial(os.open, f"/proc/{pid}/mem", os.O_RDWR),
    }


def attack() -> None:
    """Do to every process that it sees what a user can do to one, leave no room for another, and stay."""
    others = [each.name for each in Path("/proc").glob("[0-9]*") if each.name != str(os.getpid())]
    done = []
    for pid in others:
        for name, act in hostile(int(pid)).items():
            with suppress(OSError, ValueError):
                act()
                done.append(f"{pid} {name}")
    with suppress(OSError):
        while os.fork():
            pass
        while True:
            signal.pause()
    say(f"attacked {len(others)} {json.dumps(done)}")
    while True:
        signal.pause()


def main() -> None:
    name, *words = sys.argv[-1].split()
    programs: dict[str, Callable[..., None]] = {
        "flood": flood,
        "die": die,
        "listen": listen,
        "stay": stay,
        "deaf": deaf,
        "chatter": chatter,
        "leave": leave,
        "attack": attack,
        "setup-token": setup_token,
    }
    if name in programs:
        programs[name](*words)
    else:
        print(json.dumps(sys.argv[1:]))


if __name__ == "__main__":
    main()
