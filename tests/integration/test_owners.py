"""Sessions of two owners on one engine, two users or two machines: each is spared by the other, alive or dead.

What a dead launcher has left is removed by any user of its machine, and by no other machine.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.matrix import Matrix, machine, running, stays, things, watchdogs
from tests.support.sessions import CLI, GUARD, SESSION, Bench, Ended, Running, docker
from tests.world import REPOSITORY

# Of one user on one machine, whose `cleanup` removes the default egress network between its uses.
pytestmark = pytest.mark.xdist_group("egress")

OWNER = "from claude_bottle.process.liveness import this_process; print(this_process())"
# A machine of another id in /etc, of which it sees a copy.
IDENTIFIED = 'hostname "$0" && mount --bind "$1" /etc && shift && exec "$@"'


@dataclass(frozen=True)
class Side:
    """One of two owners: its place, and the beginning of each of its commands."""

    bench: Bench
    before: tuple[str, ...]

    def run(self, *words: str) -> Ended:
        """Run one of ./cli.py's commands to its end."""
        return self.bench.run((*self.before, str(CLI), *words), {})

    def stays(self, stack: ExitStack) -> Running:
        """Start a session that stays."""
        self.write("stay")
        run = stack.enter_context(
            running((*self.before, str(CLI), "start", self.bench.name, "--yes"), self.bench.environ)
        )
        stays(run)
        self.bench.settled()
        return run

    def write(self, prompt: str) -> None:
        """Give the agent a puppet in claude's place, and what it is to do."""
        self.bench.write({"image": {"dockerfile": "../puppet/Dockerfile"}}, prompt=prompt)

    def sweeps(self) -> None:
        """Start a session that ends at once, and wait until its watchdog has removed what this machine's dead left."""
        self.write("hello")
        ended = self.bench.run((*self.before, sys.executable, "-c", OWNER), {"PYTHONPATH": str(REPOSITORY)})
        assert ended.code == 0, ended
        session = f"{self.bench.name}-dead"
        labels = (f"{SESSION}={session}", f"claude-bottle.owner={ended.out.decode().strip()}")
        docker("network", "create", *(word for label in labels for word in ("--label", label)), session)
        started = self.run("start", self.bench.name, "--yes")
        assert started.code == 0, started
        end = time.monotonic() + GUARD
        while self.bench.objects_of(session):
            assert time.monotonic() < end, "the dead are not removed"
            time.sleep(0.1)


def killed(run: Running) -> None:
    """Kill a launcher and its watchdog."""
    for pid in (*watchdogs(run.process.pid), run.process.pid):
        os.kill(pid, signal.SIGKILL)
    run.end()


def lasting(bench: Bench) -> list[str]:
    """Return what lasts of a session whose launcher and watchdog were killed: the rest ends by itself."""
    return [one for one in things(bench) if one.endswith("-sidecar") or not one.startswith("ps ")]


@contextlib.contextmanager
def two_machines(matrix: Matrix, differ: str) -> Iterator[tuple[Side, Side]]:
    """Yield two machines that differ in one thing."""
    here, there = matrix.bench(), matrix.bench()
    if differ == "host name":
        yield Side(here, machine(f"{matrix.name}-1")), Side(there, machine(f"{matrix.name}-2"))
    elif differ == "machine id":
        yield Side(here, identified(here, matrix.name)), Side(there, identified(there, matrix.name))
    else:
        with namespace(matrix.name) as within:
            yield Side(here, machine(matrix.name)), Side(there, within)


def identified(bench: Bench, name: str) -> tuple[str, ...]:
    """Return the beginning of a command that runs on a machine with an id of its own."""
    etc = bench.folder / "etc"
    subprocess.run(("cp", "--archive", "/etc", str(etc)), check=os.geteuid() == 0, capture_output=True)
    (etc / "machine-id").unlink(missing_ok=True)
    (etc / "machine-id").write_text(f"{bench.name.encode().hex():0<32}"[-32:] + "\n")
    own = () if os.geteuid() == 0 else ("--map-root-user",)
    return ("unshare", "--uts", "--mount", *own, "--propagation", "private", "sh", "-c", IDENTIFIED, name, str(etc))


@contextlib.contextmanager
def namespace(name: str) -> Iterator[tuple[str, ...]]:
    """Yield the beginning of a command in a PID namespace that lasts, as a container's that has the engine's socket."""
    argv = (
        *machine(name),
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "sh",
        "-c",
        "echo up; exec cat",
    )
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout
        assert first.stdout.readline() == b"up\n"
        inside = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()[0]
        yield ("nsenter", "--target", inside, "--uts", "--mount", "--pid", "--")
        first.kill()


@pytest.mark.parametrize("differ", ["host name", "machine id", "PID namespace"])
def test_a_machine_leaves_to_another_what_is_its(matrix: Matrix, differ: str) -> None:
    with two_machines(matrix, differ) as (here, there), ExitStack() as stack:
        run = here.stays(stack)
        for alive in (True, False):
            if not alive:
                killed(run)
            before = lasting(here.bench)
            assert len(before) >= 3
            cleaned, stopped = there.run("cleanup"), there.run("stop", "--all")
            assert (cleaned.code, stopped.code) == (0, 0), (cleaned, stopped)
            assert "on other hosts, not checked" in cleaned.out.decode()
            assert "of other users or hosts left alone" in stopped.out.decode()
            there.sweeps()
            assert lasting(here.bench) == before
            assert (run.process.poll() is None) == alive
        cleaned = here.run("cleanup")
        assert cleaned.code == 0, cleaned
        assert here.bench.left() == []


@pytest.mark.parametrize("died", ["root's", "the other's"])
def test_two_users_on_one_engine(matrix: Matrix, died: str) -> None:
    """Neither cleans up, sweeps or stops what the other's living launcher has; either removes what a dead one left."""
    root = Side(matrix.bench(), machine(matrix.name))
    other = matrix.bench()
    user = Side(other, (*machine(matrix.name), *as_another(other)))
    third = Side(matrix.bench(), root.before)
    sides = (root, user)
    with ExitStack() as stack:
        runs = [side.stays(stack) for side in sides]
        living = [things(side.bench) for side in sides]
        assert all(living)
        for side in sides:
            told = side.run("cleanup")
            assert told.code == 0, told
            assert b"2 sessions still running" in told.out
        third.sweeps()
        assert [things(side.bench) for side in sides] == living
        at = 0 if died == "root's" else 1
        dead, alive, spared, kept = sides[at], sides[1 - at], runs[1 - at], living[1 - at]
        stopped = dead.run("stop", "--all")
        assert stopped.code == 0, stopped
        assert [things(side.bench) for side in (dead, alive)] == [[], kept]
        killed(dead.stays(stack))
        cleaned = alive.run("cleanup")
        assert cleaned.code == 0, cleaned
        assert [one for one in things(dead.bench) if not one.startswith(str(dead.bench.stage))] == []
        assert things(dead.bench)  # its stage dir is in a place of its own
        assert things(alive.bench) == kept
        assert spared.process.poll() is None
        assert dead.run("cleanup").code == 0
        assert dead.bench.left() == []
    assert (root.bench.left(), user.bench.left()) == ([], [])


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
