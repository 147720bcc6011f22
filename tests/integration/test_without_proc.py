"""The whole life of sessions on a system without /proc, such as macOS: owners and liveness come from ps alone."""

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_bottle.process.container import AGENT
from tests.support.matrix import things, watchdogs
from tests.support.repos import Repo, users
from tests.support.sessions import CLI, GUARD, Bench, Ended, Running, docker

# One after the other: to each, the others' sessions are of its own machine, and their dead ones are cleaned up.
pytestmark = pytest.mark.xdist_group("without-proc")

STAND_IN = Path(__file__).parents[1] / "support" / "programs" / "bsd_ps.py"
# A mount namespace: the real /proc beside the stand-in alone, and the stand-in in place of the system's own ps.
WITHOUT_PROC = """
set -e
mount --rbind /proc "$0/proc"
mount -t tmpfs none /proc
mount --bind "$0/ps" "$1"
shift
exec "$@"
"""


class Bare:
    """A test's system without /proc."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.folder = bench, bench.folder / "bare"
        (self.folder / "proc").mkdir(parents=True)
        ps = self.folder / "ps"
        ps.write_text(f"#!{sys.executable} -IS\n{STAND_IN.read_text().replace('@FOLDER@', str(self.folder))}")
        ps.chmod(0o755)
        own = () if os.geteuid() == 0 else ("--map-root-user",)
        real = os.path.realpath(shutil.which("ps", path=os.defpath) or "")
        words = ("sh", "-c", WITHOUT_PROC, str(self.folder), real)
        self.prefix = ("unshare", "--mount", *own, "--propagation", "private", *words)

    def break_ps(self) -> None:
        """Have ps fail from now on."""
        (self.folder / "broken").touch()

    def run(self, *words: str, **env: str) -> Ended:
        """Run one of ./cli.py's commands to its end."""
        return self.bench.run((*self.prefix, str(CLI), *words), env)

    @contextlib.contextmanager
    def working(self, repo: Repo) -> Iterator[tuple[Running, str]]:
        """Run a session with a repository whose claude stays; yield it and its id."""
        words = (str(CLI), "start", self.bench.name, "--yes", "--repo", str(repo.path))
        run = Running((*self.prefix, *words), self.bench.environ)
        try:
            assert run.process.stdout
            assert run.process.stdout.read(9) == b"<staying>", run.end()
            yield run, self.bench.sessions()[0]
        finally:
            run.process.terminate()
            run.end()


@pytest.fixture
def bare(bench: Bench) -> Bare:
    """A system without /proc, on which the agent's claude stays."""
    bench.puppet("stay")
    return Bare(bench)


@pytest.fixture
def user(bench: Bench) -> Repo:
    """The user's repository."""
    return users(bench.folder / "user", {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"})


def work(session: str, text: str) -> None:
    """Leave something uncommitted in a bottle."""
    docker("exec", "--user", AGENT, f"claude-bottle-{session}", "sh", "-c", f"echo {text} > left")


def owner(session: str) -> str:
    """Return the label of a session's owner."""
    label = '{{index .Config.Labels "claude-bottle.owner"}}'
    return docker("inspect", "--format", label, f"claude-bottle-{session}").strip()


@pytest.mark.parametrize("ps", ["answers", "fails", "fails later"])
def test_a_living_launcher_is_spared_by_cleanup_and_asked_by_stop(bare: Bare, user: Repo, ps: str) -> None:
    if ps == "fails":
        bare.break_ps()
    with bare.working(user) as (run, session):
        if ps == "fails later":
            bare.break_ps()
        _, boot, pid, started = owner(session).split(":")
        assert (boot, pid) == ("-", str(run.process.pid))
        assert (started == "-") == (ps == "fails")
        assert session in bare.run("list").out.decode()
        cleaned = bare.run("cleanup", "--dry-run")
        assert session not in cleaned.out.decode(), cleaned
        assert "still running" in cleaned.out.decode(), cleaned
        work(session, "first")
        fetched = bare.run("fetch", session)
        assert fetched.code == 0, fetched
        assert user.git("show", f"bottle/{session}:left") == "first"
        work(session, "second")
        stopped = bare.run("stop", session)
        assert (stopped.code, stopped.out.decode(), stopped.err.count("\n")) == (0, f"stopped {session}\n", 0), stopped
        ended = run.end()
    assert ended.code == 128 + signal.SIGTERM, ended
    (branch,) = [line.split()[1] for line in ended.err.splitlines() if line.startswith("branch ")]
    assert user.git("show", f"{branch}:left") == "second"


def test_a_killed_launcher_leaves_nothing(bare: Bare, user: Repo) -> None:
    with bare.working(user) as (run, _):
        run.process.kill()
        run.end()
        bare.bench.await_nothing()


def test_the_watchdog_ends_a_client_in_flight(bare: Bare, user: Repo) -> None:
    noted = bare.bench.folder / "client"
    hang = f"echo $$ > {noted}.new; mv {noted}.new {noted}; exec sleep 600"
    path = bare.bench.wrap(f"*'network create --driver bridge --internal'*) {hang};;")
    words = (str(CLI), "start", bare.bench.name, "--yes", "--repo", str(user.path))
    run = Running((*bare.prefix, *words), bare.bench.environ | {"PATH": path})
    bare.bench.await_file(noted)
    client = Path("/proc") / noted.read_text().strip()
    assert client.exists()
    run.process.kill()
    run.end()
    end = time.monotonic() + GUARD
    while client.exists():
        assert time.monotonic() < end, "the client goes on"
        time.sleep(0.05)
    bare.bench.await_nothing()


@pytest.mark.parametrize("ps", ["answers", "fails"])
def test_cleanup_removes_what_the_dead_left(bare: Bare, user: Repo, ps: str) -> None:
    if ps == "fails":
        bare.break_ps()
    with bare.working(user) as (run, session):
        for pid in (*watchdogs(run.process.pid), run.process.pid):
            os.kill(pid, signal.SIGKILL)
        run.end()
        assert things(bare.bench)
        assert session in bare.run("list").out.decode()
        cleaned = bare.run("cleanup")
        assert cleaned.code == 0, cleaned
        assert f"removed network claude-bottle-{session}\n" in cleaned.out.decode()
        assert "removed stage dir" in cleaned.out.decode()
        bare.bench.await_nothing()
