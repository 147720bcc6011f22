"""Programs to run on a terminal; the first argument names one."""

import os
import signal
import sys
import termios
import tty
from hashlib import sha256
from pathlib import Path
from types import FrameType

STOPPED = b"\x1b_claude-bottle:stopped\x1b\\"
CTRL_Z = (b"\x1a", b"\x1b[122;5u", b"\x1b[122;133u", b"\x1b[27;5;122~")


def say(text: str) -> None:
    os.write(1, f"<{text}>".encode())


def send(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def leave(code: str) -> None:
    sys.exit(int(code))


def die(number: str) -> None:
    os.kill(os.getpid(), int(number))


def last_words(count: str) -> None:
    tty.setraw(0, termios.TCSANOW)
    send(b"x" * int(count))
    os._exit(0)


def last_words_on_signal(count: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    say(str(os.getpid()))
    signal.sigwait({signal.SIGUSR1})
    last_words(count)


def fourfold(count: str) -> None:
    """Write four bytes for each byte read."""
    tty.setraw(0, termios.TCSANOW)
    say("ready")
    left = int(count)
    while left:
        data = os.read(0, 4096)
        left -= len(data)
        send(b"".join(bytes([byte]) * 4 for byte in data))


def show(count: str) -> None:
    """Show what comes, on a terminal as it was found."""
    say("ready")
    data = b""
    while len(data) < int(count):
        data += os.read(0, 4096)
    say(data.hex())


def size() -> None:
    def tell(_number: int = 0, _frame: FrameType | None = None) -> None:
        say("{}x{}".format(*termios.tcgetwinsize(0)))

    signal.signal(signal.SIGWINCH, tell)
    tell()
    while True:
        signal.pause()


def flood(megabytes: str) -> None:
    tty.setraw(0, termios.TCSANOW)
    block = bytes(range(256)) * 4096
    for _ in range(int(megabytes)):
        send(block)


def write_and_listen(path: str) -> None:
    """Write 256,000 bytes, then tell through `path` that it is written, and what is typed."""
    for _ in range(1 << 8):
        send(b"x" * 1000)
    with Path(path).open("wb", buffering=0) as report:
        report.write(b"written\n")
        report.write(os.read(0, 1) + b"\n")


def say_and_listen(text: str) -> None:
    """Write bytes, given in hex, and then nothing."""
    tty.setraw(0, termios.TCSANOW)
    send(bytes.fromhex(text))
    while os.read(0, 64):
        pass


def digest(count: str) -> None:
    """Tell the SHA-256 of so many bytes that are typed."""
    tty.setraw(0, termios.TCSANOW)
    whole, left = sha256(), int(count)
    while left:
        data = os.read(0, min(left, 4096))
        left -= len(data)
        whole.update(data)
    say(whole.hexdigest())
    signal.pause()


def flood_and_listen(megabytes: str, done: str) -> None:
    """Flood at `f` and make a file at the end, tell the size whenever it changes."""
    tty.setraw(0, termios.TCSANOW)
    signal.signal(signal.SIGWINCH, lambda *_: say("{}x{}".format(*termios.tcgetwinsize(0))))
    while key := os.read(0, 1):
        if key == b"f":
            flood(megabytes)
            Path(done).touch()


def beginning(size: str) -> None:
    """End with the beginning of what says that a program has stopped."""
    tty.setraw(0, termios.TCSANOW)
    send(b"x" + STOPPED[: int(size)])
    os._exit(0)


def work(number: str) -> None:
    """Tell the size, then each key; Ctrl-Z and `s` stop it as a full-screen program stops itself, `q` ends it."""
    before = termios.tcgetattr(0)
    while True:
        tty.setraw(0, termios.TCSANOW)
        say("{}x{}".format(*termios.tcgetwinsize(0)))
        while (key := os.read(0, 64)) not in (*CTRL_Z, b"s"):
            if key == b"q":
                sys.exit(7)
            say(key.hex())
        termios.tcsetattr(0, termios.TCSANOW, before)
        say("stops")
        os.kill(os.getpid(), int(number))


def say_stopped(count: str) -> None:
    """Say at a key that it has stopped, write so many bytes, and end."""
    tty.setraw(0, termios.TCSANOW)
    say("ready")
    os.read(0, 1)
    send(STOPPED + b"x" * int(count))
    os._exit(7)


def insist(count: str, done: str) -> None:
    """Say so often that it has stopped, make a file, and read nothing."""
    tty.setraw(0, termios.TCSANOW)
    send(STOPPED * int(count))
    Path(done).touch()
    signal.pause()


def stay() -> None:
    say(str(os.getpid()))
    signal.pause()


def stay_and_flood() -> None:
    say(str(os.getpid()))
    flood("1000000")


def cling() -> None:
    """Stay, whatever signal asks to go."""
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    stay()


globals()[sys.argv[1]](*sys.argv[2:])
