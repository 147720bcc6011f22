#!/usr/bin/python3
"""Stands where claude stands: the first word of the prompt names what it does, all else it tells as JSON."""

import json
import os
import random
import signal
import sys
import termios
import tty
from collections.abc import Callable
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


def stay() -> None:
    """Stay until somebody ends it."""
    say("staying")
    while True:
        signal.pause()


def main() -> None:
    name, *words = sys.argv[-1].split()
    programs: dict[str, Callable[..., None]] = {"flood": flood, "die": die, "listen": listen, "stay": stay}
    if name in programs:
        programs[name](*words)
    else:
        print(json.dumps(sys.argv[1:]))


if __name__ == "__main__":
    main()
