"""Sessions in the background: started, joined, waited for, and what is left of them when something dies."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.support.matrix import Matrix, things, until_no_watchdog, until_nothing_is_left, watchdogs, write
from tests.support.sessions import CLI, GUARD, Bench, Terminal, docker, forwarded
from tests.support.tmux import COLUMNS, PROMPT, SHELL, tmux
from tests.world import shells

DETACH = b"\x1cd"


def cli(bench: Bench, *words: str) -> tuple[int, str, str]:
    """Run a command; return its exit code, stdout and stderr."""
    ended = bench.run((str(CLI), *words), {})
    return ended.code, ended.out.decode(), ended.err


def detached(bench: Bench, *words: str, **environ: str) -> str:
    """Start a session in the background as a script does; return its id, which alone is on stdout."""
    ended = bench.start("--yes", "--detach", *words, **environ)
    assert ended.code == 0, ended
    [session] = ended.out.decode().splitlines()
    assert "isolation" in ended.err
    assert session in bench.sessions()
    return session


def facts(bench: Bench, session: str) -> dict[str, object]:
    """Return what the record of a session says."""
    path = bench.folder / "state" / "claude-bottle" / "sessions" / session / "session.json"
    return dict(json.loads(path.read_text()))


def launcher(bench: Bench, session: str) -> int:
    """Return the process id of a session's launcher, which its labels name."""
    label = docker("inspect", "--format", '{{index .Config.Labels "claude-bottle.owner"}}', f"claude-bottle-{session}")
    assert label.strip() == facts(bench, session)["owner"]
    return int(label.split(":")[2])


@contextlib.contextmanager
def background(bench: Bench, *words: str) -> Iterator[str]:
    """Run a session in the background; a test that fails meanwhile ends it."""
    session = detached(bench, *words)
    try:
        yield session
    finally:
        if session in bench.sessions():
            cli(bench, "stop", session)


EACH_SIGNAL = pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGKILL], ids=lambda n: n.name
)


def ends_by_a_key(bench: Bench, session: str) -> None:
    """Join a session whose puppet chatters, and end it from there."""
    with bench.on_terminal("attach", session, screen=False) as terminal:
        terminal.until_bytes(b"<chatter>")
        terminal.type(b"q")
        assert terminal.code() == 7


def alone(terminal: Terminal, text: bytes) -> None:
    """Type a question, and Enter once it is shown."""
    terminal.type(text)
    terminal.until(text.decode())
    terminal.type(b"\r")


def test_the_real_claude_is_joined_and_left_and_joined_again(bench: Bench) -> None:
    bench.write(prompt=f"RUN: echo $((6 * 7))-{bench.name}")
    with background(bench, "--name", "one") as session:
        pid = launcher(bench, session)
        assert os.getsid(pid) == pid
        assert Path(f"/proc/{pid}/fd/0").readlink() == Path(os.devnull)
        with bench.on_terminal("attach") as terminal:
            terminal.until_bytes(b"Ctrl-\\ d")
            terminal.until(f"42-{bench.name}")
            alone(terminal, b"RUN: echo $((50 + 1))-second")
            terminal.until("51-second")
            terminal.type(DETACH)
            assert terminal.code() == 0
        with bench.on_terminal("attach", "one") as terminal:
            terminal.until("51-second")
            terminal.resize(40, 120)
            terminal.until("─" * 120)
            alone(terminal, b"/exit")
            terminal.until("requests allowed")
            assert terminal.code() == 0
        assert cli(bench, "wait", "one")[0] == 0
        assert f"{session}  one" in cli(bench, "list")[1]
        assert "ended (0)" in cli(bench, "list")[1]
    bench.await_nothing()


def test_the_limit_of_time_ends_a_session_that_sleeps(bench: Bench) -> None:
    """Stopped by Ctrl-Z at the only terminal that shows it; its messages have the notice."""
    bench.write(prompt=f"RUN: echo $((6 * 7))-{bench.name}")
    with background(bench, "--for", "120s") as session, bench.job_shell() as terminal:
        terminal.type(f"{CLI} attach {session}\r".encode())
        terminal.until(f"42-{bench.name}")
        terminal.type(b"\x1a")
        terminal.until_bytes(b"Stopped")
        assert cli(bench, "wait", session)[0] == 124
        terminal.type(b"fg; echo code $?.\r")
        terminal.until("code 124.")
    record = bench.folder / "state" / "claude-bottle" / "sessions" / session
    assert "the session ends in 1m, at its limit of time" in (record / "messages").read_text()


def test_resized_while_nobody_looks_and_seen_by_two(bench: Bench) -> None:
    bench.write(prompt=f"RUN: echo $((6 * 7))-{bench.name}")
    with background(bench) as session:
        with bench.on_terminal("attach", session) as one:
            one.until("─" * 101)
            with bench.on_terminal("attach", session) as two:
                two.resize(30, 90)
                for each in (one, two):
                    each.until_bytes("─".encode() * 90 + b"\r")
                alone(two, b"RUN: echo $((60 + 1))-both")
                for each in (one, two):
                    each.until_bytes(b"61-both")
                two.type(DETACH)
                assert two.code() == 0
            one.until("─" * 101)
            one.type(DETACH)
            assert one.code() == 0
        with bench.on_terminal("attach", session) as again:
            again.resize(50, 130)
            again.until("─" * 130)
            again.type(DETACH)
            assert again.code() == 0


def test_in_tmux_joined_ten_times_under_output_resized_and_by_two(bench: Bench) -> None:
    """The real Claude Code, which moves all the time while it works, in a real terminal."""
    shells.ensure()
    bench.write(prompt=f"HOLD: {bench.name}\nRUN: echo $((6 * 7))-{bench.name}")
    join, line = '"$CLI" attach; echo code $?.', "─"
    with background(bench) as session, tmux(bench.folder, {**bench.environ, "CLI": str(CLI)}) as terminal:
        bench.held()
        before = terminal.modes()
        for turn in range(10):
            terminal.enter(join)
            terminal.until(line * COLUMNS)
            terminal.until(f"HOLD: {bench.name}")
            assert terminal.modes().startswith("1 ")  # the alternate screen
            terminal("send-keys", "C-\\", "d")
            terminal.until("code 0.")
            assert terminal.modes() == before
            assert "leaves it running" in terminal.shown()  # what was there before is shown again
            terminal.enter(f"clear; echo left-$((10 * {turn}))")
            terminal.until(f"left-{10 * turn}\n")
        terminal("resize-window", "-x", "131", "-y", "40")
        terminal.enter(join)
        terminal.until(line * 131)
        terminal("split-window", "-h", "-l", "50", SHELL)
        terminal.until(PROMPT, 1)
        terminal.enter(join, 1)
        bench.world.release(bench.name)
        for pane in (0, 1):
            terminal.until(f"42-{bench.name}", pane)
            terminal.until(f"\n{line * 50}\n", pane)  # the smaller one's size
        terminal.enter("/exit", 1)
        for pane in (0, 1):
            terminal.until("code 0.", pane)
            assert terminal.modes(pane) == before
        assert cli(bench, "wait", session)[0] == 0


def test_joined_ten_times_under_output_and_no_pipe_is_kept(bench: Bench) -> None:
    bench.puppet("chatter")
    with background(bench) as session:
        for _ in range(10):
            with bench.on_terminal("attach", session, screen=False) as terminal:
                terminal.until_bytes(b"<chatter>")
                terminal.type(DETACH)
                assert terminal.code() == 0
        ends_by_a_key(bench, session)
        assert cli(bench, "wait", session)[0] == 7


def test_a_terminal_that_is_closed_detaches(bench: Bench) -> None:
    bench.puppet("chatter")
    with background(bench) as session:
        with bench.on_terminal("attach", session, screen=False) as terminal:
            terminal.until_bytes(b"<chatter>")
            terminal.child.closed = True
            terminal.child.ptyproc.fileobj.close()  # type: ignore[attr-defined]  # its own would kill
        ends_by_a_key(bench, session)


@EACH_SIGNAL
def test_a_signal_on_an_attached_client_leaves_the_session(bench: Bench, number: signal.Signals) -> None:
    bench.puppet("chatter")
    with background(bench) as session:
        command = [str(CLI), "attach", session]
        client: pexpect.spawn[bytes] = pexpect.spawn(command[0], command[1:], env=bench.environ, timeout=GUARD)
        client.expect_exact(b"<chatter>")
        client.kill(number)
        client.expect(pexpect.EOF)
        client.close()
        ends_by_a_key(bench, session)


@EACH_SIGNAL
def test_a_signal_on_the_launcher_leaves_nothing(matrix: Matrix, number: signal.Signals) -> None:
    bench = matrix.bench()
    write(bench, "stay")
    session = detached(bench)
    pid = launcher(bench, session)
    killed = number == signal.SIGKILL
    with bench.on_terminal("attach", session, screen=False) as terminal:
        terminal.until_bytes(b"leaves it running")
        os.kill(pid, number)
        assert terminal.code() == 128 + number
    until_nothing_is_left(bench, time.monotonic())
    until_no_watchdog(pid)
    assert bench.left() == []
    assert cli(bench, "wait", session)[0] == 128 + number
    assert facts(bench, session)["code"] == (None if killed else 128 + number)
    assert f"ended ({128 + number})" in cli(bench, "list")[1]


def test_the_watchdog_is_killed_and_then_the_launcher(matrix: Matrix) -> None:
    bench = matrix.bench()
    write(bench, "stay")
    session = detached(bench)
    pid = launcher(bench, session)
    for each in watchdogs(pid):
        os.kill(each, signal.SIGKILL)
    assert cli(bench, "stop", session)[0] == 0
    assert things(bench) == []


def test_launcher_and_watchdog_are_killed_at_once(matrix: Matrix) -> None:
    """The lifeline ends the bottle, `cleanup` removes the rest."""
    bench = matrix.bench()
    write(bench, "stay")
    session = detached(bench)
    pid = launcher(bench, session)
    for each in (*watchdogs(pid), pid):
        os.kill(each, signal.SIGKILL)
    end = time.monotonic() + GUARD
    while f"ps {session} claude-bottle-{session}" in things(bench):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert cli(bench, "cleanup")[0] == 0
    until_nothing_is_left(bench, time.monotonic())
    assert cli(bench, "wait", session)[0] == 128 + signal.SIGKILL


def test_the_engine_vanishes_and_comes_back(bench: Bench) -> None:
    """The launcher says in the record why it ended, and its watchdog removes what it could not."""
    bench.puppet("stay")
    path = bench.folder / "engine"
    with forwarded(f"unix:{path}") as (engine, forwarder):
        session = detached(bench, DOCKER_HOST=engine)
        pid = launcher(bench, session)
        forwarder.kill()
        assert cli(bench, "wait", session)[0] == 75
    assert str(facts(bench, session)["error"]).startswith("left behind: ")
    record = bench.folder / "state" / "claude-bottle" / "sessions" / session
    assert "docker cannot be used: " in (record / "messages").read_text()
    path.unlink()
    with forwarded(f"unix:{path}"):
        until_nothing_is_left(bench, time.monotonic())
        until_no_watchdog(pid)
    assert "ended (75)" in cli(bench, "list")[1]


def test_all_that_is_done_with_a_session_on_a_remote_engine(bench: Bench) -> None:
    bench.puppet("chatter")
    with forwarded("127.0.0.1:0") as (engine, _):
        bench.environ["DOCKER_HOST"] = engine
        with background(bench) as session:
            with bench.on_terminal("attach", session, screen=False) as terminal:
                terminal.until_bytes(b"<chatter>")
                terminal.type(DETACH)
                assert terminal.code() == 0
            code, listed, _ = cli(bench, "list", "--stats", "--json")
            [memory] = [one["memory"] for one in json.loads(listed) if one["session"] == session]
            assert (code, memory > 1 << 20) == (0, True)
            ends_by_a_key(bench, session)
            assert cli(bench, "wait", session)[0] == 7
        with background(bench, "--print", "said so") as asked:
            assert cli(bench, "wait", asked)[0] == 0
            assert cli(bench, "answer", asked)[1].endswith('"said so"]\n')


def test_headless_in_the_background(bench: Bench) -> None:
    late = ("--print", f"HOLD: {bench.name}\nSAY: late")
    with background(bench, "--print", "SAY: one two", "--name", "asked") as session, background(bench, *late) as other:
        assert cli(bench, "wait", "asked")[0] == 0
        bench.held()
        code, _, said = cli(bench, "attach", other)
        assert (code, "needs a terminal" in said) == (2, True)
        bench.world.release(bench.name)
        assert cli(bench, "wait", other, session)[0] == 0
    record = bench.folder / "state" / "claude-bottle" / "sessions" / session
    assert (record / "answer").read_bytes() == b"one two\n"
    assert "requests allowed" in (record / "messages").read_text()
    assert json.loads((record / "receipt.json").read_text())
    assert {path.stat().st_mode & 0o777 for path in record.iterdir()} == {0o600}
    assert record.stat().st_mode & 0o777 == 0o700


def test_wait_returns_the_first_code_that_is_not_zero_in_the_order_given(bench: Bench) -> None:
    bench.puppet()
    with background(bench, "--print", "leave 3") as three, background(bench, "--print", "leave 5") as five:
        assert cli(bench, "wait", three, five)[0] == 3
        assert cli(bench, "wait", five, three)[0] == 5
        code, _, said = cli(bench, "wait", "nobody", three)
        assert code == 68
        assert 'nothing is kept of a session "nobody"' in said


def test_a_name_is_unique_among_those_that_run(bench: Bench) -> None:
    bench.puppet("stay")
    with background(bench, "--name", "mine") as session:
        again = bench.start("--yes", "--detach", "--name", "mine")
        assert (again.code, again.out) == (2, b"")
        assert 'a session named "mine" is running' in again.err
        assert bench.sessions() == [session]
        assert cli(bench, "stop", "mine") == (0, f"stopped {session}\n", "")
    with background(bench, "--name", "mine"):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda n: n.name)
def test_a_signal_on_the_caller_before_it_is_ready_ends_the_start(matrix: Matrix, number: signal.Signals) -> None:
    bench = matrix.bench()
    write(bench, "stay")
    pipe = subprocess.PIPE
    command = (str(CLI), "start", bench.name, "--yes", "--detach", "-v")
    with subprocess.Popen(command, env=bench.environ, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe) as front:
        assert front.stderr
        for line in front.stderr:
            if b": bottle ..." in line:
                break
        front.send_signal(number)
        out, _ = front.communicate()
    assert (out, front.returncode) == (b"", -number if number == signal.SIGKILL else 128 + number)
    until_nothing_is_left(bench, time.monotonic())
    bench.await_nothing()
    assert not list((bench.folder / "state" / "claude-bottle").glob("sessions/*"))


def test_a_start_that_fails_says_so_on_the_terminal_and_leaves_no_record(bench: Bench) -> None:
    path = bench.wrap('*" nft "*) exit 1 ;;')
    ended = bench.start("--yes", "--detach", PATH=path)
    assert (ended.code, ended.out) == (66, b""), ended
    assert "does the engine" in ended.err, ended
    assert not (bench.folder / "state" / "claude-bottle" / "sessions").exists()
    assert bench.left() == []


def test_the_question_is_asked_on_the_terminal_and_ctrl_c_ends_it(bench: Bench) -> None:
    bench.puppet("stay")
    for answer, code in ((b"n\r", 65), (b"\x03", 130)):
        with bench.terminal("--detach") as terminal:
            terminal.until("Start this session? [y/N]")
            terminal.type(answer)
            assert terminal.code() == code
    with bench.terminal("--detach") as terminal:
        terminal.until("Start this session? [y/N]")
        terminal.type(b"y\r")
        terminal.until("isolation")
        terminal.until("leaves it again")
        assert terminal.code() == 0
    [session] = bench.sessions()
    assert cli(bench, "stop", session)[0] == 0
