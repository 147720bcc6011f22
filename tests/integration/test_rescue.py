"""The link to an engine on another machine is cut: nothing of the agent runs on, and its work comes back."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from claude_bottle.bottle import docker_flags
from claude_bottle.process.container import AGENT
from claude_bottle.process.container import GUARD as GUARD_USER
from tests.support.far import Far
from tests.support.matrix import watchdogs
from tests.support.repos import Repo, users
from tests.support.sessions import CLI, GUARD, Bench, Running, docker

LOST = "claude-bottle: the link to the engine was lost"


@pytest.fixture
def user(bench: Bench) -> Repo:
    return users(bench.folder / "user", {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"})


@pytest.fixture
def far(bench: Bench) -> Far:
    """A way to the engine, for an agent with a key for ssh."""
    bench.puppet("stay")
    far = Far(bench)
    host = (far.folder / "host.pub").read_text().rpartition(" ")[0]
    ssh = {"host": "git.example.org", "key": str(far.folder / "user"), "known_host": host}
    bench.write({"image": {"dockerfile": "../puppet/Dockerfile"}, "ssh": [ssh]}, prompt="stay")
    return far


@contextlib.contextmanager
def working(bench: Bench, far: Far, user: Repo) -> Iterator[tuple[Running, str]]:
    """Run a session with a repository in which something is left; yield it and its id."""
    run = Running((str(CLI), "start", bench.name, "--yes", "--repo", str(user.path)), bench.environ | far.env)
    try:
        assert run.process.stdout
        assert run.process.stdout.read(9) == b"<staying>", run.end()
        session = bench.sessions()[0]
        docker(
            "exec",
            "--user",
            AGENT,
            f"claude-bottle-{session}",
            "sh",
            "-c",
            "echo mine > left; sleep 600 > /dev/null 2>&1 &",
        )
        yield run, session
    finally:
        far.down.unlink(missing_ok=True)
        run.process.terminate()
        run.end()


def until(done: Callable[[], bool], guard: float = GUARD) -> None:
    end = time.monotonic() + guard
    while not done():
        assert time.monotonic() < end
        time.sleep(0.2)


def users_of(session: str) -> set[str]:
    """Return the numbers of the users whose processes are in a session's bottle."""
    return {line.split()[1] for line in docker("top", f"claude-bottle-{session}", "-eo", "pid,uid").splitlines()[1:]}


def names_in(session: str) -> set[str]:
    """Return the names of the processes in a session's bottle."""
    return {line.split()[1] for line in docker("top", f"claude-bottle-{session}", "-eo", "pid,comm").splitlines()[1:]}


def containers(bench: Bench) -> set[str]:
    return {name.rpartition("-")[2] for name in bench.objects() if name.startswith("ps ")}


def cut(far: Far) -> None:
    """Have the connection end, and no other begin."""
    far.down.touch()
    for pid in far.connections():
        os.kill(pid, signal.SIGKILL)


def test_after_a_cut_only_files_are_left_and_they_come_back(bench: Bench, far: Far, user: Repo) -> None:
    with working(bench, far, user) as (run, session):
        assert users_of(session) == {"65532", AGENT.partition(":")[0]}
        assert {"gate", "holder"} < containers(bench)  # the credential proxy and the key-holder
        cut(far)
        until(lambda: users_of(session) == {"65532"})
        until(lambda: containers(bench) == {session.rpartition("-")[2], "sidecar"})
        run.until(LOST)
        far.down.unlink()
        ended = run.end()
    assert ended.code == 69, ended
    assert "the link to the engine was lost, which ended the session" in ended.err
    assert user.git("show", f"bottle/{session}:left") == "mine"
    bench.await_nothing()


def test_a_launcher_that_is_killed_then_leaves_it_to_the_watchdog(bench: Bench, far: Far, user: Repo) -> None:
    with working(bench, far, user) as (run, _):
        run.process.kill()
        run.end()
        bench.await_nothing()


def test_who_gives_up_is_told_what_is_left(bench: Bench, far: Far, user: Repo) -> None:
    with working(bench, far, user) as (run, _):
        cut(far)
        run.until(LOST)
        while run.process.poll() is None:  # the first ones end the session, if it has not noticed yet itself
            run.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.process.wait(1)
        ended = run.end()
        assert "Ctrl-C again gives it up" in ended.err, ended
        assert "left behind: link" in ended.err, ended
        far.down.unlink()
        assert bench.run((str(CLI), "cleanup"), {}).code == 0
        bench.await_nothing()


def test_without_launcher_and_watchdog_nothing_runs_on(bench: Bench, far: Far, user: Repo) -> None:
    with working(bench, far, user) as (run, session):
        for pid in (*watchdogs(run.process.pid), run.process.pid):
            os.kill(pid, signal.SIGKILL)
        run.end()
        until(lambda: users_of(session) == {"65532"})
        assert bench.run((str(CLI), "cleanup"), {}).code == 0
        bench.await_nothing()


@pytest.mark.long
def test_after_silence_nothing_of_the_agent_runs_on(bench: Bench, far: Far, user: Repo) -> None:
    with working(bench, far, user) as (run, session):
        far.down.touch()
        with far.frozen():  # nothing is closed, and nothing comes through
            until(lambda: users_of(session) == {"65532"})
            until(lambda: containers(bench) == {session.rpartition("-")[2], "sidecar"})
            run.until(LOST)
            far.down.unlink()
            ended = run.end()
    assert ended.code == 69, ended
    assert user.git("show", f"bottle/{session}:left") == "mine"
    bench.await_nothing()


@pytest.mark.long
def test_a_link_that_is_back_early_waits_until_the_bottle_has_noticed(bench: Bench, far: Far, user: Repo) -> None:
    with working(bench, far, user) as (run, session), far.frozen():  # until the end nothing of the old one is closed
        run.until("claude-bottle: the link is there again")
        assert users_of(session) != {"65532"}
        until(lambda: docker_flags.PAUSED in names_in(session))
        assert user.git("branch", "--list", "bottle/*") == ""
        ended = run.end()
    assert ended.code == 69, ended
    assert user.git("show", f"bottle/{session}:left") == "mine"
    bench.await_nothing()


def test_a_second_cut_in_the_midst_of_the_hand_back_costs_nothing(bench: Bench, far: Far, user: Repo) -> None:
    now, on = far.folder / "now", far.folder / "on"
    # The first command that would send the work waits for its connection to be cut.
    path = bench.wrap(f"*' - bundle '*) [[ -e {now} ]] || {{ > {now}; until [[ -e {on} ]]; do sleep 0.1; done; }};;")
    far.env["PATH"] = f"{far.env['PATH'].partition(':')[0]}:{path}"
    with working(bench, far, user) as (run, session):
        cut(far)
        run.until(LOST)
        far.down.unlink()
        until(now.exists)
        cut(far)
        on.touch()
        run.until(LOST)
        far.down.unlink()
        ended = run.end()
    assert ended.code == 69, ended
    assert user.git("show", f"bottle/{session}:left") == "mine"
    bench.await_nothing()


@pytest.mark.parametrize("left", ["", "sleep 600", "f() { f & }; f"], ids=["nothing", "one", "ever another"])
def test_the_pause_ends_and_is_for_files_alone(image: str, left: str) -> None:
    """With a process of the agent's left there is none: else this would take 900 s."""
    name = f"claude-bottle-t-pause-{os.getpid()}"
    script = docker_flags._GUARD.replace("-t 900", "-t 900" if left else "-t 3")
    words = ("docker", "run", "--rm", "--init", "--interactive", "--name", name, "--user", GUARD_USER)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        (*words, "--entrypoint", "bash", image, "-c", f"echo up; {script}"), stdin=pipe, stdout=pipe
    ) as run:
        assert run.stdin
        assert run.stdout
        assert run.stdout.readline() == b"up\n"
        if left:
            docker("exec", "--detach", "--user", AGENT, name, "bash", "-c", left)
        run.stdin.close()
        run.wait(GUARD)
