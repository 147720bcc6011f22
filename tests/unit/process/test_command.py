"""Several commands side by side: each one's lines, whole and as they come."""

import errno
import os
import signal
import subprocess
import threading
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


@pytest.mark.parametrize("parting", [b"", b"end\n"])
def test_a_client_gets_its_parting_before_its_stdin_is_closed(tmp_path: Path, parting: bytes) -> None:
    client = command.start(shell(f"echo up; exec cat > {tmp_path}/given"), os.environ)
    client.parting = parting
    assert client.ready(b"first\n", 60).stdout == b"up\n"
    client.close_stdin(60)
    assert (tmp_path / "given").read_bytes() == b"first\n" + parting


@pytest.mark.parametrize("stream", [1, 2])
def test_a_client_that_runs_on_is_never_held_up_by_what_it_prints(stream: int) -> None:
    client = command.start(shell(f"echo up; head -c 1000000 /dev/zero >&{stream}"), os.environ)
    assert client.ready(b"", 60).stdout == b"up\n"
    assert client.ended_within(60)
    client.close_stdin()
    assert client.process.returncode == 0


def test_what_is_given_comes_before_the_rest_and_while_the_client_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "got")
    client = command.start(shell(f"head -c 3 > {tmp_path}/got; cat"), os.environ)
    client.give(b"one")
    assert (tmp_path / "got").read_bytes() == b"one"
    assert client.wait(b"two", 60).stdout == b"two"


def test_what_is_given_may_be_longer_than_a_pipe_and_so_may_the_answer() -> None:
    data = b"x" * 1_000_000
    client = command.start(shell("cat; echo end >&2"), os.environ)
    client.give(data)
    result = client.wait(b"y", 60)
    assert (result.stdout == data + b"y", result.stderr, result.returncode) == (True, "end\n", 0)


def test_a_client_that_ends_before_it_has_taken_all_is_no_error() -> None:
    client = command.start(shell("exit 3"), os.environ)
    client.give(b"x" * 1_000_000)
    assert client.wait(b"y", 60).returncode == 3


def test_a_client_that_takes_what_it_is_given_and_does_not_end_is_terminated() -> None:
    client = command.start(shell("exec sleep 600"), os.environ)
    client.give(b"x" * 1_000_000)
    assert client.wait(b"y", 0).timed_out
    assert client.process.returncode == -signal.SIGTERM


def test_the_first_line_may_come_in_parts_and_what_follows_it_is_dropped(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    client = command.start(shell(f"printf u; cat {tmp_path}/go; printf 'p\\nmore'; cat"), os.environ)
    client.give(b"a")
    (tmp_path / "go").write_text("")
    assert client.ready(b"b", 60).stdout == b"up\n"
    client.let_go()
    assert client.ended_within(60)
    client.close_stdin()


def test_a_client_that_does_not_end_its_line_is_terminated() -> None:
    client = command.start(shell("printf u; exec sleep 600"), os.environ)
    assert client.ready(b"", 0.1).timed_out
    assert client.process.returncode == -signal.SIGTERM
    client.close_stdin()


def test_a_client_that_ends_within_its_line_is_not_ready() -> None:
    client = command.start(shell("printf u; echo why >&2; exit 3"), os.environ)
    result = client.ready(b"", 60)
    assert (result.returncode, result.stdout, result.stderr) == (3, b"u", "why\n")


def test_what_is_attached_is_heard_and_shown(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    heard = bytearray()
    flood = shell("head -c 300000 /dev/zero | tr '\\0' x; echo said >&2; exit 3")
    assert command.attach(flood, os.environ, silent=True, heard=heard.extend) == 3
    assert capfdbinary.readouterr() == (b"x" * 300_000, b"said\n")
    assert heard == b"x" * 300_000


def test_what_is_attached_is_heard_once_stdout_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    heard, tried = bytearray(), list[int]()

    def gone(descriptor: int, data: bytes) -> int:
        tried.append(len(data))
        raise BrokenPipeError(descriptor)

    monkeypatch.setattr("os.write", gone)
    assert command.attach(shell("head -c 300000 /dev/zero"), os.environ, silent=True, heard=heard.extend) == 0
    assert (len(heard), len(tried)) == (300_000, 1)


def test_what_is_attached_is_heard_whole_and_a_full_disk_is_an_error_at_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    heard = bytearray()

    def full(_descriptor: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.write", full)
    flood = shell(f"head -c 300000 /dev/zero; exec >&-; echo ended > {tmp_path}/ended")
    with pytest.raises(OSError, match="No space left on device: 'stdout'"):
        command.attach(flood, os.environ, silent=True, heard=heard.extend)
    assert len(heard) == 300_000
    assert (tmp_path / "ended").read_text() == "ended\n"


def test_what_is_attached_waits_for_a_stdout_that_takes_no_more_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program may have made it non-blocking, as ssh and node do."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    full, shown, write, stdout = threading.Event(), bytearray(), os.write, os.dup(1)

    def written(descriptor: int, data: bytes) -> int:
        try:
            return write(descriptor, data)
        except BlockingIOError:
            full.set()
            raise

    def read() -> None:
        full.wait()
        while data := os.read(reading, 1 << 16):
            shown.extend(data)

    monkeypatch.setattr("os.write", written)
    reader = threading.Thread(target=read)
    reader.start()
    os.dup2(writing, 1)
    os.close(writing)
    try:
        code = command.attach(shell("head -c 300000 /dev/zero"), os.environ, silent=True, heard=lambda _: None)
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
        full.set()
        reader.join()
        os.close(reading)
    assert (code, len(shown)) == (0, 300_000)
