"""A process that is split in two (programs/split.py): what its caller sees, and who ends whom."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pexpect
import pytest

PROGRAM = Path(__file__).parents[2] / "support" / "programs" / "split.py"
GUARD = 300  # seconds; no test comes near it


def started(folder: Path, *words: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    command = (*prefix, sys.executable, str(PROGRAM), str(folder / "pid"), *words)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, stderr=pipe)


def text(path: Path) -> str:
    """Return what a file has, once it is there."""
    end = time.monotonic() + GUARD
    while not path.exists() or not path.read_text():
        assert time.monotonic() < end, path
        time.sleep(0.01)
    return path.read_text()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    pid = tmp_path / "pid"
    if pid.exists() and Path(f"/proc/{pid.read_text()}").exists():
        os.kill(int(pid.read_text()), signal.SIGKILL)


def test_the_caller_gets_one_line_and_no_pipe_is_kept(folder: Path) -> None:
    messages, output = folder / "messages", folder / "output"
    front = started(folder, "ready", str(messages), str(output))
    out, err = front.communicate(timeout=GUARD)  # to the ends of both pipes
    assert (out, err, front.returncode) == (b"an-id\n", b"", 0)
    assert text(output) == "True b''\n"
    assert text(messages) == "a message\n"
    os.kill(int(text(folder / "pid")), signal.SIGTERM)
    assert text(folder / "pid.ended") == str(64 + signal.SIGTERM)


@pytest.mark.parametrize(("words", "code"), [(("leave", "0"), 0), (("leave", "66"), 66), (("die",), 128 + 9)])
def test_the_code_of_one_that_ends_before_it_is_ready(folder: Path, words: tuple[str, ...], code: int) -> None:
    front = started(folder, *words)
    out, _ = front.communicate(timeout=GUARD)
    assert (out, front.returncode) == (b"", code)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_signals_are_passed_on(folder: Path, number: signal.Signals) -> None:
    front = started(folder, "stay")
    text(folder / "pid")
    front.send_signal(number)
    front.communicate(timeout=GUARD)
    assert front.returncode == 64 + number
    assert text(folder / "pid.ended") == str(64 + number)


@pytest.mark.parametrize(("prefix", "number"), [((), signal.SIGHUP), (("nohup",), signal.SIGTERM)])
def test_the_end_of_the_front_one_ends_the_other(folder: Path, prefix: tuple[str, ...], number: int) -> None:
    front = started(folder, "stay", prefix=prefix)
    text(folder / "pid")
    front.kill()
    assert text(folder / "pid.ended") == str(64 + number)
    front.communicate(timeout=GUARD)


def test_ctrl_z_does_not_leave_a_stopped_process_behind(folder: Path) -> None:
    front = started(folder, "stay")
    pid = int(text(folder / "pid"))
    front.send_signal(signal.SIGTSTP)
    front.send_signal(signal.SIGTERM)
    front.communicate(timeout=GUARD)
    assert front.returncode == 64 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def in_a_shell(folder: Path, line: str) -> "pexpect.spawn[bytes]":
    """Type a line, in which PROGRAM is one that asks, into a shell with jobs."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "PS1": "ready> ", "TERM": "dumb"}
    shell: pexpect.spawn[bytes] = pexpect.spawn("bash", ["--norc", "--noprofile", "-i"], env=env, timeout=GUARD)
    shell.expect_exact("ready> ")
    shell.sendline(line.replace("PROGRAM", f"{sys.executable} {PROGRAM} asks {folder / 'pid'}"))
    return shell


def test_one_that_asks_waits_for_the_foreground_even_after_bg(folder: Path) -> None:
    with closing(in_a_shell(folder, "set -b; PROGRAM leave 7 &")) as shell:
        shell.expect_exact("Stopped")
        shell.sendline("bg")
        shell.expect_exact("Stopped")
        assert not (folder / "pid").exists()
        shell.sendline("fg")
        shell.expect_exact("leave 7")
        shell.expect_exact("ready> ")
        shell.sendline("echo code=$?")
        shell.expect_exact("code=7")


def test_one_that_asks_is_refused_where_nothing_stops_it(folder: Path) -> None:
    with closing(in_a_shell(folder, "trap '' TTIN; PROGRAM leave 7 & wait $!; echo code=$?")) as shell:
        shell.expect_exact("RefusedError: cannot prompt: the terminal is another job's")
        shell.expect_exact("code=1")
        assert not (folder / "pid").exists()
