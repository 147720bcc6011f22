"""Several commands side by side: each one's lines, whole and as they come."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from claude_bottle.errors import EngineError
from claude_bottle.process import command


def shell(text: str) -> tuple[str, ...]:
    return ("sh", "-c", text)


def test_lines_of_several_commands_come_as_they_are_written(tmp_path: Path) -> None:
    for fifo in ("one", "two"):
        os.mkfifo(tmp_path / fifo)
    codes = list[int]()
    one = shell(f"echo one; cat {tmp_path}/one; exit 3")
    two = shell(f"echo two; cat {tmp_path}/two")
    lines = command.merged((one, two), os.environ, ended=codes.append)
    assert {next(lines), next(lines)} == {b"one", b"two"}
    for fifo, text in (("two", "second"), ("one", "first")):
        (tmp_path / fifo).write_text(f"{text}\n")
        assert next(lines) == text.encode()
    assert list(lines) == []
    assert sorted(codes) == [0, 3]


def test_lines_are_whole_however_they_come_and_cut_if_they_are_too_long() -> None:
    long = shell("head -c 300000 /dev/zero | tr '\\0' x; echo; printf 'a\\r\\f\\n\\nb'")
    lines = list(command.merged((long, shell("echo c")), os.environ, longest=100_000))
    assert sorted(lines) == sorted([b"x" * 100_000, b"a\r\x0c", b"", b"b", b"c"])


def test_what_nobody_reads_any_more_is_terminated() -> None:
    lines = command.merged((shell("echo $$; exec sleep 600"), shell("echo $$; exec sleep 600")), os.environ)
    pids = [int(next(lines)), int(next(lines))]
    lines.close()  # type: ignore[attr-defined]  # it is a generator
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_one_that_cannot_be_started_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    started = list[subprocess.Popen[bytes]]()
    real = command._popen

    def noted(*args: Any, **options: Any) -> "subprocess.Popen[bytes]":
        started.append(real(*args, **options))
        return started[-1]

    monkeypatch.setattr(command, "_popen", noted)
    with pytest.raises(EngineError, match="is not on PATH"):
        list(command.merged((shell("exec sleep 600"), ("no-such-program",)), os.environ))
    assert [process.returncode for process in started] == [-signal.SIGTERM]


@pytest.mark.parametrize("stream", [1, 2])
def test_a_client_that_runs_on_is_never_held_up_by_what_it_prints(stream: int) -> None:
    client = command.start(shell(f"echo up; head -c 1000000 /dev/zero >&{stream}"), os.environ)
    assert client.ready(b"", 60).stdout == b"up\n"
    assert client.ended_within(60)
    client.close_stdin()
    assert client.process.returncode == 0
