"""The view of all sessions, with the real Claude Code: its states by its own hooks, renewed in place, notified of."""

import contextlib
import json
import os
import signal
import sys
import time

import pytest

from tests.integration.test_commands import command
from tests.support.scene import PATCHED, ROOT
from tests.support.sessions import GUARD, Bench, Terminal, docker

QUESTION = json.dumps({"questions": [{"question": "Which?", "header": "One", "multiSelect": False, "options": [
    {"label": "Left", "description": "left"}, {"label": "Right", "description": "right"}]}]})  # fmt: skip
HOSTILE = r"""
import os, pathlib, sys
file, n = pathlib.Path.home() / ".claude-bottle/state", 0
def fresh(make):
    other = file.with_name("other")
    try:
        other.unlink()
    except FileNotFoundError:
        pass
    make(other)
    os.replace(other, file)
makes = (
    os.mkfifo,
    lambda path: path.symlink_to("/dev/zero"),
    lambda path: (path.touch(), os.truncate(path, 10 << 30)),
    lambda path: path.write_bytes(b"\x1b]0;x\x07\xff" * 9999),
    lambda path: path.symlink_to("/proc/self/mem"),
)
print("flips", flush=True)
chosen = makes if sys.argv[1] == "all" else (makes[int(sys.argv[1])],)
while True:
    for make in chosen:
        fresh(make)
"""


# With more patience than a second: the states are asked for here, not whether a loaded machine is quick.
PATIENT = (sys.executable, str(PATCHED), json.dumps({"session.states._SECONDS": 60}), "list")


def listed(bench: Bench, *words: str) -> dict[str, object]:
    """Return what `list --json` has of the test's session."""
    done = bench.run((*PATIENT, "--json", *words), {"PYTHONPATH": str(ROOT)})
    assert done.code == 0, done
    [one] = [one for one in json.loads(done.out) if one["agent"] == bench.name]
    return dict(one)


def until(bench: Bench, state: str, *words: str) -> dict[str, object]:
    """List until the session is in a state."""
    end, seen = time.monotonic() + GUARD, list[object]()
    while (one := listed(bench, *words))["state"] != state:
        seen.append(one["state"])
        assert time.monotonic() < end, seen
    return one


def typed(terminal: Terminal, text: str) -> None:
    """Type a message, and send it once it is shown."""
    terminal.type(text.encode())
    terminal.until(text[:20])
    terminal.type(b"\r")


def test_the_states_of_a_session_on_a_terminal_and_what_is_notified_of(bench: Bench) -> None:
    program, told = bench.folder / "notify", bench.folder / "told"
    program.write_text(f'#!/bin/sh\necho "$* $CLAUDE_BOTTLE_OAUTH_TOKEN" >> {told}\nexec sleep 3600\n')
    program.chmod(0o755)
    with bench.terminal("--yes", CLAUDE_BOTTLE_NOTIFY=str(program)) as terminal:
        terminal.until("bypass permissions on")
        assert until(bench, "waits")["branch"] is None
        [session] = bench.sessions()
        bench.await_file(told)
        assert told.read_text() == f"waits {session} \n"
        typed(terminal, f"HOLD: {bench.name}")
        bench.held()
        until(bench, "working")
        bench.world.release(bench.name)
        until(bench, "waits")
        typed(terminal, f"TOOL: AskUserQuestion {QUESTION}")
        terminal.until("Which?")
        terminal.until("Left")
        until(bench, "waits")
        os.kill(terminal.launcher(), signal.SIGTERM)
        assert terminal.code() == 128 + signal.SIGTERM
    *before, last = told.read_text().splitlines()
    assert (set(before), last) == ({f"waits {session} "}, f"ended {session} ")


def test_a_conversation_that_goes_on_waits_for_its_user(bench: Bench) -> None:
    first = bench.start("--yes", "--keep", "--print", f"SAY: {bench.name}")
    assert first.code == 0, first
    [kept] = (bench.folder / "state" / "claude-bottle" / "sessions").iterdir()
    with bench.terminal("--yes", "--resume", kept.name) as terminal:
        terminal.until("isolation")
        until(bench, "waits")
        typed(terminal, "/exit")
        assert terminal.code() == 0


def test_a_headless_session_works_and_prints_nothing_else(bench: Bench) -> None:
    with bench.running("--yes", "--print", f"HOLD: {bench.name}\nSAY: done") as run:
        bench.held()
        one = until(bench, "working", "--stats")
        assert isinstance(one["memory"], int)
        assert 1 << 20 < one["memory"] < 4 << 30
        assert isinstance(one["cpu"], float)
        bench.world.release(bench.name)
        assert run.end().out == b"done\n"


def test_the_users_own_hooks_go_on_beside_ours(bench: Bench) -> None:
    """Those of a repository's settings, or of `--settings`, are added to those of the home."""
    hook = {"type": "command", "command": "cat ~/.claude-bottle/state >> /tmp/own"}
    settings = json.dumps({"hooks": {"PreToolUse": [{"matcher": "Bash", "hooks": [hook]}]}})
    answer = bench.ask("RUN: echo ran\nRUN: cat /tmp/own", "--", "--settings", settings)
    assert "working" in answer


def test_without_the_hooks_file_a_session_is_unknown(bench: Bench) -> None:
    """As one that an older version has started."""
    with bench.running("--yes", "--print", f"HOLD: {bench.name}\nSAY: done") as run:
        session = bench.held()
        docker(
            "exec", "--user", "1000", f"claude-bottle-{session}", "rm", "--force", "/home/agent/.claude-bottle/state"
        )
        assert listed(bench)["state"] == "?"
        bench.world.release(bench.name)
        run.end()


@pytest.mark.parametrize("which", ["all", "0", "1", "2", "3", "4"])
def test_whatever_a_hostile_bottle_does_to_its_state_list_returns(bench: Bench, which: str) -> None:
    with bench.running("--yes", "--print", f"HOLD: {bench.name}\nSAY: done") as run:
        session = bench.held()
        container = f"claude-bottle-{session}"
        docker("exec", "--interactive", "--user", "1000", container, "tee", "/tmp/hostile.py", stdin=HOSTILE.encode())
        docker("exec", "--detach", "--user", "1000", "--env", "HOME=/home/agent", container,
               "sh", "-c", f"python3 /tmp/hostile.py {which} > /tmp/flips")  # fmt: skip
        end = time.monotonic() + GUARD
        while docker("exec", container, "cat", "/tmp/flips") != "flips\n":
            assert time.monotonic() < end
        for _ in range(5):
            assert listed(bench, "--stats")["state"] == "?"
            done = command(bench, "list", "--stats")
            assert (done.code, done.err, b"\x1b" in done.out) == (0, "", False)
            assert session in done.out.decode()
        bench.world.release(bench.name)
        assert run.end().out == b"done\n"


@pytest.mark.parametrize("end", [b"q", b"\x03", signal.SIGTERM], ids=["q", "Ctrl-C", "TERM"])
def test_a_watch_is_renewed_in_place_and_gives_the_terminal_back(bench: Bench, end: bytes | signal.Signals) -> None:
    terminal = Terminal((*PATIENT, "--watch"), bench.environ | {"PYTHONPATH": str(ROOT)}, screen=True)
    with contextlib.closing(terminal.child):
        terminal.until("q ends")
        with bench.running("--yes", "--print", f"HOLD: {bench.name}\nSAY: done") as run:
            session = bench.held()
            terminal.until(session)
            terminal.until("working")
            terminal.resize(20, 60)
            bench.world.release(bench.name)
            run.end()
        while session in terminal.frames[-1]:
            terminal._read("its end")
        if isinstance(end, bytes):
            terminal.type(end)
        else:
            os.kill(terminal.launcher(), end)
        code = terminal.code()
    assert code == {b"q": 0, b"\x03": 130}.get(end if isinstance(end, bytes) else b"", 143)
    assert b"\x1b[?1049h" not in terminal.raw[terminal.raw.rindex(b"\x1b[?1049l") :]
