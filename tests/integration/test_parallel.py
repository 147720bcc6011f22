"""Many sessions at once, and those of two users on one engine."""

import os
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from tests.support.matrix import Matrix, machine, running, stays, things
from tests.support.sessions import CLI, SESSION, Bench, Running, docker

SESSIONS = 40
POOL = 30  # networks that Docker makes of its own pools


@pytest.mark.long
@pytest.mark.xdist_group("matrix")  # not beside that: either alone is work enough for a small machine
def test_forty_sessions_at_once(matrix: Matrix) -> None:
    """The real Claude Code in each; all of them run before the first one ends, and each has its own answer."""
    benches = [matrix.bench() for _ in range(SESSIONS)]
    with ExitStack() as stack:
        started = {bench.name: stack.enter_context(asking(bench)) for bench in benches}
        for bench in benches:
            bench.held()
        names = docker("network", "ls", "--filter", f"label={SESSION}", "--format", "{{.Name}}").splitlines()
        own = {name for name in names if any(bench.name in name for bench in benches)}
        assert len(own) == SESSIONS > POOL
        for bench in benches:
            bench.world.release(bench.name)
        for name, run in started.items():
            ended = run.end()
            assert (ended.code, ended.out.decode()) == (0, f"answer to {name}\n"), ended
    assert [bench.left() for bench in benches] == [[]] * SESSIONS


def asking(bench: Bench) -> AbstractContextManager[Running]:
    """Start a session with a question that is answered once it is released."""
    question = f"HOLD: {bench.name}\nSAY: answer to {bench.name}"
    return running((str(CLI), "start", bench.name, "--yes", "--print", question), bench.environ)


@pytest.mark.xdist_group("egress")  # cleanup removes the default egress network between its uses
def test_two_users_on_one_engine(matrix: Matrix) -> None:
    """Neither cleans up or stops what the other's living launcher has."""
    root, other = matrix.bench(), matrix.bench()
    user = as_another(other)
    with ExitStack() as stack:
        for bench, who in ((root, ()), (other, user)):
            bench.write({"image": {"dockerfile": "../puppet/Dockerfile"}}, prompt="stay")
            command = (*machine(matrix.name), *who, str(CLI), "start", bench.name, "--yes")
            stays(stack.enter_context(running(command, bench.environ)))
        living = [things(bench) for bench in (root, other)]
        assert all(living)
        for who in ((), user):
            told = other.run((*machine(matrix.name), *who, str(CLI), "cleanup"), {})
            assert told.code == 0, told
            assert b"2 sessions still running" in told.out
        stopped = other.run((*machine(matrix.name), *user, str(CLI), "stop", "--all"), {})
        assert stopped.code == 0, stopped
        assert [things(bench) for bench in (root, other)] == [living[0], []]
    assert (root.left(), other.left()) == ([], [])


def as_another(bench: Bench) -> tuple[str, ...]:
    """Return the beginning of a command of another user, who may use the engine and whom the bench then belongs to.

    The capability lets the user read this checkout and its Python, wherever they are.
    """
    socket = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
    uid, group = 61234, Path(socket).stat().st_gid
    home = bench.folder / "home"
    home.mkdir()
    bench.environ |= {"HOME": str(home), "XDG_STATE_HOME": str(home / "state")}
    for folder in (home, bench.stage):
        os.chown(folder, uid, uid)
    reads = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
    return ("setpriv", "--reuid", str(uid), "--regid", str(uid), "--groups", str(group), *reads)
