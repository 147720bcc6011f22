"""A terminal that a launcher holds and others join, with real programs (programs/tty_*.py) on real terminals."""

import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pexpect
import pytest

from claude_bottle.process import frames, terminal_client, terminal_host
from tests.unit.process.test_terminal import GUARD, PROGRAMS

ENV = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}


class Host:
    """A launcher in the background that holds the terminal of a program of tty_child.py."""

    def __init__(self, folder: Path, *program: str) -> None:
        self.path = folder / "socket"
        child = (sys.executable, str(PROGRAMS / "tty_child.py"), *program)
        command = (sys.executable, str(PROGRAMS / "tty_host.py"), str(self.path), *child)
        self.process = subprocess.Popen(command, env=ENV, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self.process.stdout
        assert self.process.stdout.readline() == b"listening\n"

    def join(self, rows: int = 33, columns: int = 101) -> "User":
        return User(self.path, rows, columns)

    def memory(self) -> int:
        """Return its resident memory in KiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text().split()
        return int(status[status.index("VmRSS:") + 1])

    def close(self) -> None:
        self.process.terminate()
        self.process.communicate()


class User:
    """A user's terminal that has joined."""

    def __init__(self, path: Path, rows: int, columns: int) -> None:
        command = [str(PROGRAMS / "tty_join.py"), str(path)]
        self.pty: pexpect.spawn[bytes] = pexpect.spawn(
            sys.executable, command, env=ENV, dimensions=(rows, columns), timeout=GUARD, maxread=1 << 16
        )
        self.pty.delaybeforesend = None

    def shows(self, text: str | bytes) -> bytes:
        """Wait until the terminal shows `text`; return what came before."""
        self.pty.expect_exact(text, searchwindowsize=1 << 12)
        return bytes(self.pty.before or b"")

    def type(self, keys: bytes) -> None:
        self.pty.send(keys)

    def code(self) -> int:
        """Wait for the end; return the exit code."""
        self.pty.expect(pexpect.EOF)
        self.pty.close()
        assert self.pty.exitstatus is not None
        return self.pty.exitstatus

    def close(self) -> None:
        self.pty.close(force=True)


class Raw:
    """A terminal that has joined, as its client speaks to the host."""

    def __init__(self, host: Host) -> None:
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.settimeout(GUARD)
        self.connection.connect(str(host.path))
        self.say(frames.SIZE, frames.size(24, 80))
        self._frames = frames.Frames()

    def say(self, kind: bytes, data: bytes = b"") -> None:
        self.connection.sendall(b"".join(frames.frames(kind, data)))

    def hears(self, kind: bytes, text: bytes = b"") -> None:
        """Wait for a frame of this kind with this text, which may be in more than one."""
        heard = b""
        while data := self.connection.recv(1 << 16):
            for each, said in self._frames.feed(data):
                heard = heard[-(1 << 16) :] + said if each == kind else heard
                if each == kind and text in heard:
                    return
        raise AssertionError(heard)

    def paste(self) -> None:
        """Type until no more is taken."""
        data = b"".join(frames.frames(frames.KEYS, b"x" * (1 << 16)))
        while select.select([], [self.connection], [], 0.5)[1]:
            data = data[self.connection.send(data, socket.MSG_DONTWAIT) :] or data

    def close(self) -> None:
        self.connection.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def test_a_terminal_joins_and_gets_the_exit_code(folder: Path) -> None:
    with closing(Host(folder, "work", str(int(signal.SIGSTOP)))) as host, closing(host.join()) as user:
        user.shows("\x18")
        user.type(b"\x03")
        user.shows("<03>")
        user.type(b"q")
        assert user.code() == 7
        assert host.process.wait() == 7


@pytest.mark.parametrize(
    "keys", [b"\x1cd", b"\x1b[92;5u\x1b[92;5:3u\x1b[100;1u", b"\x1b[92;133u\x1b[57442;1:3ud", b"\x1b[27;5;92~d"]
)
def test_the_keys_that_detach_leave_the_program_running(folder: Path, keys: bytes) -> None:
    with closing(Host(folder, "work", str(int(signal.SIGSTOP)))) as host:
        for _ in range(10):
            with closing(host.join()) as user:
                user.shows("\x18")
                user.type(b"a")
                user.shows("<61>")
                user.type(keys)
                assert user.code() == 42
                assert b"\x1b[999H" in (user.pty.before or b"")  # below what is shown
        assert host.process.poll() is None


def test_a_program_that_the_size_of_a_joining_terminal_does_not_change_draws_anew(folder: Path) -> None:
    with closing(Host(folder, "size")) as host:
        for _ in range(3):
            with closing(host.join(24, 80)) as user:
                user.shows("<23x80>")
                user.shows("<24x80>")


def test_the_smallest_terminal_counts_and_a_resize_follows(folder: Path) -> None:
    with closing(Host(folder, "size")) as host, closing(host.join(50, 90)) as one:
        one.shows("<50x90>")
        with closing(host.join(40, 120)) as other:
            for each in (one, other):
                each.shows("<40x90>")
            other.pty.setwinsize(60, 70)
            for each in (one, other):
                each.shows("<50x70>")
        one.shows("<50x90>")


def test_a_terminal_that_hangs_up_detaches(folder: Path) -> None:
    with closing(Host(folder, "work", str(int(signal.SIGSTOP)))) as host:
        with closing(host.join()) as user:
            user.shows("\x18")
            user.pty.ptyproc.fileobj.close()  # type: ignore[attr-defined]  # its own would kill
            user.pty.ptyproc.closed = True  # type: ignore[attr-defined]
        with closing(host.join()) as user:
            user.shows("\x18")
            user.type(b"q")
            assert user.code() == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL])
def test_a_signal_to_a_terminal_leaves_the_program_running(folder: Path, number: signal.Signals) -> None:
    with closing(Host(folder, "work", str(int(signal.SIGSTOP)))) as host, closing(host.join()) as other:
        other.shows("\x18")
        with closing(host.join()) as user:
            user.shows("\x18")
            user.pty.kill(number)
            user.pty.expect(pexpect.EOF)
            user.pty.close()
            killed = number == signal.SIGKILL
            assert (user.pty.signalstatus if killed else user.pty.exitstatus) == (number if killed else 64 + number)
        other.type(b"a")
        other.shows("<61>")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_to_the_launcher_ends_all_and_is_told(folder: Path, number: signal.Signals) -> None:
    with closing(Host(folder, "stay")) as host, closing(host.join()) as user:
        user.shows("\x18")
        host.process.send_signal(number)
        assert user.code() == 128 + number
        assert host.process.wait() == 64 + number


def test_a_launcher_that_is_killed_is_lost(folder: Path) -> None:
    with closing(Host(folder, "stay")) as host, closing(host.join()) as user:
        user.shows("\x18")
        host.process.kill()
        assert user.code() == 43


def test_what_a_program_has_switched_on_is_given_to_one_that_joins_and_taken_from_one_that_leaves(folder: Path) -> None:
    modes = b"\x1b[?1049h\x1b[?1000h\x1b[?1006h\x1b[?2004h\x1b[?25l\x1b[>1u"
    with closing(Host(folder, "say_and_listen", modes.hex())) as host:
        for _ in range(2):
            with closing(host.join()) as user:
                before = user.shows("\x1b[?1049h\x1b[?1000h\x1b[?1006h\x1b[?2004h\x1b[?25l\x1b[>1u")
                assert b"\x1b[2J" not in before  # of the shell's screen, which is shown again afterwards
                user.type(b"\x1cd")
                user.shows("\x1b[<1u\x1b[?25h\x1b[?2004l\x1b[?1006l\x1b[?1000l\x1b[?1049l")
                assert user.code() == 42
                assert b"\x1b[999H" not in (user.pty.before or b"")  # the shell's cursor is where it was


def test_a_long_paste_arrives_whole(folder: Path) -> None:
    paste = random.Random(1).randbytes(1 << 20)
    with closing(Host(folder, "digest", str(len(paste)))) as host, closing(host.join()) as user:
        user.shows("\x18")
        sent = 0
        while sent < len(paste):
            select.select([], [user.pty.child_fd], [], GUARD)
            sent += os.write(user.pty.child_fd, paste[sent : sent + 1024])
        user.shows(f"<{sha256(paste).hexdigest()}>")


def test_a_terminal_that_takes_nothing_holds_nobody_up(folder: Path) -> None:
    """Its backlog is dropped; it gets a new screen once it reads again."""
    done = folder / "done"
    with closing(Host(folder, "flood_and_listen", "64", str(done))) as host, socket.socket(socket.AF_UNIX) as stuck:
        stuck.connect(str(host.path))
        stuck.sendall(b"".join(frames.frames(frames.SIZE, frames.size(30, 90))))
        before = host.memory()
        stuck.sendall(b"".join(frames.frames(frames.KEYS, b"f")))
        end = time.monotonic() + GUARD
        while not done.exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        assert host.memory() < before + (16 << 10)
        stuck.settimeout(GUARD)
        taken, shown = frames.Frames(), b""
        while b"\x1b[2J" not in shown[100:] or not shown.endswith(b"<30x90>"):
            for kind, data in taken.feed(stuck.recv(1 << 16)):
                assert kind == frames.SHOWN
                shown = shown[-(1 << 16) :] + data


def test_ctrl_z_stops_the_program_until_its_terminal_goes_on(folder: Path) -> None:
    with closing(Host(folder, "work", str(int(signal.SIGTSTP)))) as host:
        shell: pexpect.spawn[bytes] = pexpect.spawn(
            "bash", ["--norc", "--noprofile", "-i"], env={**ENV, "PS1": "ready> ", "TERM": "dumb"}, timeout=GUARD
        )
        with closing(shell):
            shell.expect_exact("ready> ")
            shell.sendline(f"{sys.executable} {PROGRAMS / 'tty_join.py'} {host.path}")
            shell.expect_exact("\x18")
            for key in (b"\x1a", b"\x1b[122;5u"):
                shell.send(key)
                shell.expect_exact("<stops>")
                shell.expect_exact("Stopped")
                shell.sendline("fg")
                shell.expect_exact("x80>")
            shell.send(b"\x1a")
            shell.expect_exact("Stopped")
            with closing(host.join()) as other:  # has it go on
                other.shows("x80>")
                other.type(b"q")
                assert other.code() == 7


@pytest.mark.parametrize("count", [0, 1 << 20])
def test_the_end_of_a_program_that_sleeps_is_seen_whatever_it_still_writes(folder: Path, count: int) -> None:
    with closing(Host(folder, "say_stopped", str(count))) as host, closing(Raw(host)) as user:
        user.hears(frames.SHOWN, b"<ready>")
        user.say(frames.KEYS, b"\x1a")
        user.hears(frames.STOPPED)
        user.hears(frames.ENDED, b"\x07")
        assert host.process.wait(GUARD) == 7


def test_a_program_that_is_killed_while_it_sleeps_has_ended(folder: Path) -> None:
    with closing(Host(folder, "work", str(int(signal.SIGTSTP)))) as host, closing(Raw(host)) as user:
        user.hears(frames.SHOWN, b"x80>")
        user.say(frames.KEYS, b"\x1a")
        user.hears(frames.STOPPED)
        [child] = Path(f"/proc/{host.process.pid}/task/{host.process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGKILL)
        user.hears(frames.ENDED)
        assert host.process.wait(GUARD) == 128 + signal.SIGKILL


def test_what_was_typed_before_a_stop_does_not_hide_that_its_terminal_goes_on(folder: Path) -> None:
    with closing(Host(folder, "work", str(int(signal.SIGTSTP)))) as host, closing(Raw(host)) as user:
        user.hears(frames.SHOWN, b"x80>")
        user.say(frames.KEYS, b"\x1a")
        user.hears(frames.STOPPED)
        user.say(frames.KEYS, b"x" * (700 << 10))
        user.say(frames.GO)
        user.hears(frames.SHOWN, b"<78")


def test_a_program_that_says_for_ever_that_it_stops_keeps_nobody_out(folder: Path) -> None:
    done = folder / "done"
    with closing(Host(folder, "insist", str(300_000), str(done))) as host:
        end = time.monotonic() + GUARD
        while not done.exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        with closing(Raw(host)) as user:
            user.hears(frames.SHOWN, b"\x18")


def test_a_paste_into_a_program_that_reads_nothing_keeps_nobody_out(folder: Path) -> None:
    with closing(Host(folder, "stay")) as host:
        for _ in range(17):  # one more than there are places
            with closing(Raw(host)) as user:
                user.hears(frames.SHOWN, b"\x18")
                user.paste()
                with closing(Raw(host)) as other:
                    other.hears(frames.SHOWN, b"\x18")


def test_a_stop_that_nobody_has_typed_is_undone(folder: Path) -> None:
    with closing(Host(folder, "work", str(int(signal.SIGSTOP)))) as host, closing(host.join(24, 80)) as user:
        user.shows("\x18")
        for _ in range(3):
            user.type(b"s")
            user.shows("<stops>")
            user.shows("x80>")


def test_what_says_nothing_of_ours_is_let_go(folder: Path) -> None:
    with closing(Host(folder, "work", str(int(signal.SIGSTOP)))) as host:
        for said in (b"k\xff\xff\xff\xff", b"s\0\0\0\x01x"):
            with socket.socket(socket.AF_UNIX) as odd:
                odd.settimeout(GUARD)
                odd.connect(str(host.path))
                odd.sendall(said)
                assert odd.recv(1) == b""
        with closing(host.join()) as user:
            user.shows("\x18")
            user.type(b"q")
            assert user.code() == 7


def test_a_socket_is_for_its_user_alone_whatever_its_path_is_as_long_as(folder: Path) -> None:
    path = folder / ("x" * 100) / "socket"
    path.parent.mkdir(mode=0o700)
    with terminal_host.listen(path) as listening:
        assert path.stat().st_mode & 0o777 == 0o600
        with terminal_client.connected(path):
            assert select.select([listening], [], [], GUARD)[0]


@pytest.mark.parametrize(
    ("chunks", "passed", "detached"),
    [
        ([b"\x1c", b"d"], [b"", b""], True),
        ([b"ab\x1c", b"d"], [b"ab", b""], True),
        ([b"\x1c", b"x"], [b"", b"\x1cx"], False),
        ([b"\x1c", b"\x1c", b"d"], [b"", b"\x1c", b"d"], False),
        ([b"\x1c", b"\x1c", b"\x1c", b"d"], [b"", b"\x1c", b"", b""], True),
        ([b"\x1c\x1b[92;5:3u", b"\x1b[100;1:1u"], [b"", b""], True),
        ([b"\x1b[92;5u", b"\x1b[92;5:3u", b"d"], [b"", b"", b""], True),
        ([b"x" * 100 + b"\x1cd"], [b"x" * 100 + b"\x1cd"], False),
        ([b"d"], [b"d"], False),
        ([b"\x1b[92;2u", b"d"], [b"\x1b[92;2u", b"d"], False),
    ],
)
def test_keys_that_detach(chunks: list[bytes], passed: list[bytes], detached: bool) -> None:
    keys = terminal_client.Keys()
    fed = [keys.feed(chunk) for chunk in chunks]
    assert ([keys for keys, _ in fed], fed[-1][1]) == (passed, detached)
