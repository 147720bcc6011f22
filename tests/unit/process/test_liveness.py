"""Whether an owner lives, as /proc and ps show it."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from claude_bottle.process import liveness as alive
from claude_bottle.process.liveness import (
    Process,
    is_dead,
    is_launcher,
    is_same,
    liveness,
    look,
    stamp,
    start_time,
    this_process,
)
from tests.support import systems
from tests.support.owners import ELSEWHERE, OBSERVER, REBOOTED, launcher

MACOS = (
    b"Ss   Sun Mar  1 01:02:03 2026     /Library/Frameworks/Python.app/Contents/MacOS/Python -I /a b/cli.py start x\n"
)


def test_a_process_is_judged_by_machine_boot_and_start() -> None:
    with launcher() as (process, owner):
        owners = (owner, replace(owner, started="1"), REBOOTED, ELSEWHERE, replace(owner, machine="another"))
        assert [liveness(one, OBSERVER) for one in owners] == ["ours", "dead", "dead", "elsewhere", "elsewhere"]
        assert process.poll() is None


def test_only_the_certainly_dead_are_judged_so() -> None:
    with subprocess.Popen("true") as child:
        pass
    gone = replace(OBSERVER, pid=child.pid)
    assert is_dead(gone, OBSERVER)
    assert is_dead(replace(OBSERVER, started="1"), OBSERVER), "another process has its number"
    assert is_dead(replace(OBSERVER, boot="another"), OBSERVER), "the machine was booted since"
    assert is_dead(replace(OBSERVER, pid=10**30), OBSERVER), "no machine has so many"
    assert not is_dead(OBSERVER, OBSERVER)
    assert not is_dead(replace(gone, machine="another"), OBSERVER)


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="needs os.waitid, which Python has on macOS from 3.13 on")
def test_a_zombie_is_dead() -> None:
    with subprocess.Popen("true") as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # a zombie until it is waited for
        assert is_dead(replace(OBSERVER, pid=ended.pid), OBSERVER)


@pytest.mark.parametrize(("shown", "expected"), [("7", "theirs"), ("-", "theirs"), ("8", "dead")])
def test_a_process_of_another_user_lives_unless_it_is_seen_to_be_another(
    monkeypatch: pytest.MonkeyPatch, shown: str, expected: str
) -> None:
    """Root may signal anybody, so the kernel's refusal is the test's own, as is what /proc shows."""

    def refuse(_pid: int, _signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr("os.kill", refuse)
    monkeypatch.setattr("claude_bottle.process.liveness.look", lambda _: Process(shown))
    assert liveness(replace(OBSERVER, pid=1, started="7"), OBSERVER) == expected


def test_what_is_not_known_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with launcher() as (process, owner):
        assert liveness(replace(owner, started="-"), OBSERVER) == "ours"
        monkeypatch.setattr("claude_bottle.process.liveness.look", lambda _: Process())
        assert liveness(owner, OBSERVER) == "ours"
        assert is_launcher(process.pid)


class Ps:
    """A system without /proc, whose ps prints what the test has it print."""

    def __init__(self, prints: bytes) -> None:
        self.prints = prints
        self.asked: list[tuple[Sequence[str], dict[str, str]]] = []

    def output(self, argv: Sequence[str], env: dict[str, str]) -> bytes:
        self.asked.append((argv, env))
        return self.prints


@pytest.fixture
def ps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ps:
    made = Ps(MACOS)
    monkeypatch.setattr(alive, "PROC", tmp_path)
    monkeypatch.setattr("claude_bottle.process.command.output", made.output)
    return made


def test_without_proc_a_start_is_read_from_ps_in_seconds_since_1970(ps: Ps) -> None:
    seen = look(7)
    assert (seen.started, seen.ended) == ("1772326923", False)
    assert seen.command.endswith("Python -I /a b/cli.py start x")
    [(argv, env)] = ps.asked
    assert (argv[0], argv[-2:], env) == ("ps", ("-p", "7"), {"LC_ALL": "C", "TZ": "UTC"})
    with launcher() as (_, owner):
        assert liveness(replace(owner, started="1772326923"), OBSERVER) == "ours"
        assert liveness(replace(owner, started="1772326924"), OBSERVER) == "dead", "another process has its number"


@pytest.mark.parametrize(
    "prints", [b"", b"\n", b"ps: operation not permitted\n", b"S Mon", b"\xff" * 9, b"S a b c d e f"]
)
def test_a_ps_that_fails_makes_nobody_dead(ps: Ps, prints: bytes) -> None:
    ps.prints = prints
    assert start_time(7) == "-"
    with launcher() as (process, owner):
        assert liveness(owner, OBSERVER) == "ours"
        process.kill()
        process.wait()
        assert is_dead(owner, OBSERVER), "the kernel has no such process"


def test_without_proc_a_process_that_has_ended_is_dead(ps: Ps) -> None:
    ps.prints = b"Z    Sun Mar  1 01:02:03 2026     (Python)\n"
    assert start_time(7) == "-"
    with launcher() as (_, owner):
        assert is_dead(replace(owner, started="1772326923"), OBSERVER)


def test_the_systems_own_ps_shows_what_proc_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with launcher() as (process, _):
        shown = look(process.pid)
        monkeypatch.setattr(alive, "PROC", tmp_path)
        seen = look(process.pid)
        assert (seen.command, seen.ended) == (shown.command, False)
        assert process.pid >= 0
        assert int(seen.started) > 1_700_000_000
        assert is_launcher(process.pid)


@pytest.mark.parametrize(
    ("words", "launches"),
    [
        ("/a b/.venv/bin/python -I /a b/cli.py start demo --task", True),
        ("/usr/bin/python3 /home/me/.local/bin/claude-bottle start demo", True),
        ("/usr/bin/python3 -I -m claude_bottle start demo", True),  # as it starts itself anew under a PYTHONPATH
        ("/usr/bin/python3 -I -m claude_bottle list", False),
        ("/usr/bin/python3 -I /a/cli.py run tasks.yaml", False),  # whose launchers are its children
        ("vim cli.py start", False),
    ],
)
def test_a_launcher_is_known_by_its_command_line(ps: Ps, words: str, launches: bool) -> None:
    ps.prints = f"Ss   Sun Mar  1 01:02:03 2026     {words}\n".encode()
    assert is_launcher(1) == launches


def test_macos_is_known_by_its_hardware_whatever_its_network(
    ps: Ps, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("claude_bottle.host.owner.MACHINE_ID", tmp_path / "none")
    monkeypatch.setattr("uuid.getnode", lambda: 7)
    found = set()
    ps.prints = b'    "IOPlatformUUID" = "01234567-89AB-CDEF-0123-456789ABCDEF"\n'
    for name in ("home.local", "work.example"):
        monkeypatch.setattr("socket.gethostname", lambda name=name: name)
        found.add(this_process().machine)
    assert len(found) == 1
    assert found.pop().startswith("-/0123456789ab/")
    ps.prints = b""
    assert this_process().machine.startswith("work.example/000000000007/")


def test_a_stamp_distinguishes_a_process_from_a_later_one_with_its_number(ps: Ps) -> None:
    """Without asking ps, whose answer can come too late."""
    before = int(stamp(7))
    assert ps.asked == []
    assert is_same(7, str(before)), "it started in March"
    assert is_same(7, "1772326923")
    assert not is_same(7, "1772326922")
    ps.prints = b""
    assert not is_same(7, str(before))


@systems.needs_linux("/proc")
def test_with_proc_a_stamp_is_the_start() -> None:
    with launcher() as (process, owner):
        assert stamp(process.pid) == owner.started
        assert is_same(process.pid, owner.started)
        assert not is_same(process.pid, str(int(owner.started) + 1))
        assert not is_same(process.pid, "-")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("/x/.venv/bin/python -I /x/cli.py start demo --yes", True),
        ("/usr/bin/python3.11 -I /home/a b/cli.py start demo", True),
        ("/x/Python.app/Contents/MacOS/Python -I /x/cli.py verify", True),
        ("/x/bin/python /x/bin/claude-bottle start demo", True),
        ("/x/bin/python -I /x/cli.py list", False),
        ("vim cli.py start", False),
        ("/usr/bin/python3 /x/other-cli.py start", False),
        ("python cli.py starting", False),
        ("sleep 600", False),
    ],
)
def test_a_launcher_is_known_by_its_command(monkeypatch: pytest.MonkeyPatch, command: str, expected: bool) -> None:
    monkeypatch.setattr(alive, "look", lambda _: Process(command=command))
    assert is_launcher(1) == expected
