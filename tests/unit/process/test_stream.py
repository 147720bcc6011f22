"""Bytes to a program and from it: whole, in time, and no more than is wanted."""

import os
import signal
import subprocess
import sys

import pytest

from claude_bottle.host import console
from claude_bottle.process import command, stream


def test_what_is_taken_in_parts_is_whole() -> None:
    class Sparing:
        def __init__(self) -> None:
            self.data = b""

        def write(self, data: memoryview) -> int:
            self.data += data[:7]
            return len(data[:7])

    file = Sparing()
    argv = ("head", "-c", "100000", "/dev/zero")
    stream.pump(command.start(argv, dict(os.environ)), what="", seconds=60, into=file)
    assert file.data == bytes(100_000)


def test_what_takes_long_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(console, "_TICK", 0.0)
    argv = (sys.executable, "-c", "import sys; sys.stdout.write(sys.stdin.read())")
    text = b"x" * 1_000_000
    result = stream.pump(command.start(argv, os.environ), what="clone", seconds=60, head=text, limit=len(text))
    assert (result.ok, result.stdout) == (True, text)
    assert capsys.readouterr().err == "claude-bottle: clone ...\n"
    with pytest.raises(stream.TooMuch):
        stream.pump(command.start(argv, os.environ), what="", seconds=60, head=text, limit=len(text) - 1)


def test_a_command_that_does_not_end_is_ended() -> None:
    client = command.start(("sleep", "600"), dict(os.environ))
    result = stream.pump(client, what="", seconds=0.1, head=b"x" * 1_000_000)
    assert result.timed_out
    assert client.process.returncode == -signal.SIGTERM


def test_one_that_wants_no_more_ends_as_it_likes() -> None:
    with subprocess.Popen(("yes",), stdout=subprocess.PIPE) as endless:
        client = command.start(("head", "-c", "4"), os.environ)
        result = stream.pump(client, what="", seconds=60, head=b"a", source=endless.stdout)
        endless.kill()
    assert result.stdout == b"ay\ny"
