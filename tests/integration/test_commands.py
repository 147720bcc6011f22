"""The commands about sessions that run: seen, entered, widened, stopped; and what is left of those that were killed."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.matrix import machine
from tests.support.sessions import CLI, Bench, Ended, Running, Terminal, docker

EXTRA = "extra.test"
# Another test counts the egress networks that sessions make.
KEEP_EGRESS = "'network ls --quiet --filter name=^claude-bottle-egress'*) exit 0;;"


def command(bench: Bench, *words: str, stdin: str = "", before: tuple[str, ...] = (), **env: str) -> Ended:
    """Run one of ./cli.py's commands to its end."""
    return bench.run((*before, str(CLI), *words), env, stdin.encode())


@contextlib.contextmanager
def staying(bench: Bench, before: tuple[str, ...] = ()) -> Iterator[tuple[Running, str]]:
    """Run a session whose claude stays until it is ended; yield it and the id of the first one there is."""
    run = Running((*before, str(CLI), "start", bench.name, "--yes"), bench.environ)
    try:
        assert run.process.stdout
        assert run.process.stdout.read(9) == b"<staying>", run.end()
        yield run, bench.sessions()[0]
    finally:
        run.process.terminate()
        run.end()


def code_of(bench: Bench, session: str, url: str) -> str:
    """Return the status that curl in a session's bottle gets, and the one that the sidecar gave it."""
    curl = f"curl -s -o /dev/null -w '%{{http_code}} %{{http_connect}}' {url}\n"
    return command(bench, "shell", session, stdin=curl).out.decode()


@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", "<&- >&- 2>&-", ">/dev/full"])
def test_a_session_runs_whoever_reads_what_it_prints(bench: Bench, streams: str) -> None:
    before = ("/bin/sh", "-c", f'exec "$@" {streams}', "sh")
    ended = command(bench, "start", bench.name, "--yes", "--print", "RUN: echo answer", before=before)
    assert "Traceback" not in ended.err
    assert ended.out == (b"answer\n" if streams.startswith("2>") else b"")
    if streams == ">/dev/full":
        assert (ended.code, "no space left on device" in ended.err) == (1, True), ended
    else:
        assert ended.code == 0, ended


def test_a_session_is_listed_entered_widened_and_stopped(bench: Bench) -> None:
    bench.puppet("stay")
    with staying(bench) as (run, session):
        inside = command(bench, "shell", session[:-2], stdin="id -un; pwd; printenv CLAUDE_CODE_OAUTH_TOKEN; exit 3\n")
        assert (inside.code, inside.out) == (3, b"agent\n/work\n")

        assert code_of(bench, session, f"https://{EXTRA}/") == "000 403"
        assert command(bench, "allow", session, EXTRA).out.decode() == f"now allowed: {EXTRA}\n"
        assert code_of(bench, session, f"https://{EXTRA}/").endswith(" 200")
        again = command(bench, "allow", session, EXTRA)
        assert again.out.decode() == f"{EXTRA} was already allowed; nothing changed\n"
        told = json.loads(command(bench, "shell", session, stdin="cat ~/.claude-bottle/reach.json\n").out)
        assert (EXTRA in told["hosts"], told["allowed_since_the_start"]) == (True, [EXTRA])
        why = command(bench, "why", session, EXTRA).out.decode()
        assert why == f"{EXTRA}: allowed, by `./cli.py allow` since the session's start\n"

        [listed] = [one for one in json.loads(command(bench, "list", "--json").out) if one["session"] == session]
        shown = {key: listed[key] for key in ("agent", "bottle", "mode", "blocked")}
        assert shown == {"agent": bench.name, "bottle": bench.name, "mode": "headless", "blocked": 1}
        assert listed["allowed"] >= 1
        assert session in command(bench, "list").out.decode()
        lines = [line.split() for line in command(bench, "logs", session).out.decode().splitlines()]
        assert [line[1:3] for line in lines if line[2] == EXTRA] == [["blocked", EXTRA], ["allowed", EXTRA]]

        with subprocess.Popen((CLI, "logs", "-f", "--blocked", session), env=bench.environ, stdout=-1) as follow:
            assert follow.stdout
            assert follow.stdout.readline().split()[1:3] == [b"blocked", EXTRA.encode()]
            stopped = command(bench, "stop", session)
            assert follow.wait() == 0
        assert (stopped.code, stopped.out.decode()) == (0, f"stopped {session}\n")
        ended = run.end()
    assert ended.code == 128 + signal.SIGTERM
    assert "ended by SIGTERM, which ./cli.py stop sends" in ended.err
    assert f"refused: {EXTRA} 1 time" in ended.err
    assert f"claude-bottle: refused: {EXTRA}; to allow it: ./cli.py allow {session} {EXTRA}\n" in ended.err


def test_what_is_refused_is_asked_for_on_a_terminal(bench: Bench) -> None:
    bench.puppet("stay")
    with staying(bench) as (_, session):
        assert code_of(bench, session, f"https://{EXTRA}/") == "000 403"
        with bench.on_terminal("allow", session, "--ask") as terminal:
            terminal.until(f"{EXTRA} was refused. Allow it? [y/N]")
            terminal.type(b"y\r")
            terminal.until(f"now allowed: {EXTRA}")
            assert code_of(bench, session, f"https://{EXTRA}/").endswith(" 200")
            assert code_of(bench, session, "https://other.test/") == "000 403"
            terminal.until("other.test was refused. Allow it? [y/N]")
            terminal.type(b"n\r")
            assert command(bench, "stop", session).code == 0
            assert terminal.code() == 0


def test_a_new_port_passes_list_and_gate_and_is_saved(bench: Bench) -> None:
    bench.puppet("stay")
    manifest = bench.agents / "bottles" / f"{bench.name}.yaml"
    text = f"# mine\n{manifest.read_text()}egress:  # few\n  allow:\n    - '*.example.com' # why\n"
    manifest.write_text(text)
    with staying(bench) as (_, session):
        command(bench, "allow", session, EXTRA)
        assert code_of(bench, session, f"https://{EXTRA}:8443/") == "000 502"
        done = command(bench, "allow", session, f"{EXTRA}:8443", "*.w.example.com", "--save")
        assert done.out.decode() == f"now allowed: {EXTRA}:8443, *.w.example.com\nsaved in {manifest}\n", done
        assert code_of(bench, session, f"https://{EXTRA}:8443/") == "000 502"
        reasons = [line for line in command(bench, "logs", session).out.decode().splitlines() if ":8443" in line]
        # Nothing listens there: the gate lets the second try through to be told so.
        assert ["refused" in line for line in reasons] == [False, True], reasons
        assert manifest.read_text() == f'{text}    - {EXTRA}:8443\n    - "*.w.example.com"\n'

        manifest.write_text("egress: null\n")
        refused = command(bench, "allow", session, "other.test", "--save")
        assert refused.code == 64
        assert "nothing was allowed" in refused.err
        assert manifest.read_text() == "egress: null\n"
        config = docker("cp", f"claude-bottle-{session}-sidecar:/config/pipelock.yaml", "-")
        assert "other.test" not in config


def test_a_shell_has_the_terminal(bench: Bench) -> None:
    bench.puppet("stay")
    with staying(bench) as (_, session):
        terminal = Terminal((str(CLI), "shell", session), bench.environ, screen=True)
        terminal.until("agent@")
        terminal.type(b'echo "$(tput cols)x$((6 * 7))$TERM"\r')
        terminal.until("101x42xterm-256color")
        terminal.type(b"exit 5\r")
        assert terminal.code() == 5


def test_from_another_machine_stop_removes_and_cleanup_does_not_judge(bench: Bench) -> None:
    bench.puppet("stay")
    path, elsewhere = bench.wrap(KEEP_EGRESS), machine(bench.name)
    with staying(bench) as (run, session):
        cleaned = command(bench, "cleanup", before=elsewhere, PATH=path)
        assert "on other hosts, not checked" in cleaned.out.decode(), cleaned
        assert bench.sessions() == [session]
        assert command(bench, "allow", session, EXTRA, "--save", before=elsewhere).code == 64
        stopped = command(bench, "stop", session, before=elsewhere)
        assert (stopped.code, stopped.out.decode()) == (0, f"stopped {session}\n"), stopped
        ended = run.end()
    assert ended.code == 70
    assert "which ended the session" in ended.err  # whichever of its containers was seen to go first


def test_cleanup_removes_what_the_dead_left_and_spares_the_living(bench: Bench) -> None:
    """On a machine where nobody else does that in passing: it is this test's own, and the living watchdog waits."""
    bench.puppet("stay")
    path, own = bench.wrap(KEEP_EGRESS), machine(bench.name)
    with staying(bench, own) as (dead, first), staying(bench, own) as (living, _):
        [second] = [one for one in bench.sessions() if one != first]
        with paused(watchdog(living.process.pid)):
            os.kill(watchdog(dead.process.pid), signal.SIGKILL)
            dead.process.kill()
            dead.end()
            would = command(bench, "cleanup", "--dry-run", before=own, PATH=path)
            assert f"would remove container claude-bottle-{first}-sidecar\n" in would.out.decode()
            assert first in bench.sessions()
            done = command(bench, "cleanup", before=own, PATH=path)
        assert done.code == 0, done
        assert f"removed network claude-bottle-{first}\n" in done.out.decode()
        assert "removed stage dir" in done.out.decode()
        assert bench.sessions() == [second]
        assert [one for one in bench.left() if first in one] == []
        assert living.process.poll() is None


@contextlib.contextmanager
def paused(pid: int) -> Iterator[None]:
    """Have a process wait."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def watchdog(launcher: int) -> int:
    """Return the process id of a launcher's watchdog."""
    for path in (each / "cmdline" for each in Path("/proc").glob("[0-9]*")):
        with contextlib.suppress(OSError):
            line = path.read_bytes()
            if b"claude_bottle.cleanup.watchdog" in line and b":%d:" % launcher in line:
                return int(path.parent.name)
    raise AssertionError(f"{launcher} has no watchdog")


@pytest.mark.parametrize("typed", ["cli.py", "./cli.py", "/any/where/cli.py", "bottle"])
def test_bash_completes_for_a_path_and_for_an_alias(bench: Bench, typed: str) -> None:
    """Bash looks a command up by its path and then by its last part; what it finds is called as bash calls it."""
    script = command(bench, "completion", "bash", "bottle").out.decode()
    ask = f"""
source /dev/stdin <<< "$SCRIPT"
spec=$(complete -p {typed} 2>/dev/null || complete -p {typed.rpartition("/")[2]})
function=$(grep -o '_[a-z_]*completion' <<< "$spec")
COMP_WORDS=({typed} sta) COMP_CWORD=1
"$function" {typed} sta {typed}
echo "${{COMPREPLY[@]}}"
"""
    assert bench.run(("bash", "-c", ask), {"SCRIPT": script}, cwd="/").out == b"start\n"
