"""The launcher dies, and its watchdog too: nothing of its session is left, and nothing of another's is touched."""

import contextlib
import json
import os
import random
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from claude_bottle.process.liveness import this_process
from tests.support.matrix import (
    Case,
    Matrix,
    machine,
    run_on,
    running,
    stays,
    things,
    until_nothing_is_left,
    watchdogs,
    write,
)
from tests.support.sessions import CLI, GUARD, SESSION, Bench, docker

ALONE = 30  # seconds until a test gives up waiting for a bottle to end; 5 are enough on a machine that is not busy


@pytest.fixture
def beside(matrix: Matrix) -> Iterator[Bench]:
    """A session that runs beside a test, and answers at its end."""
    bench = matrix.bench()
    question = f"HOLD: {bench.name}\nSAY: still here"
    with running(
        (*machine(matrix.name), str(CLI), "start", bench.name, "--yes", "--print", question), bench.environ
    ) as run:
        bench.held()
        yield bench
        bench.world.release(bench.name)
        ended = run.end()
    assert (ended.code, ended.out) == (0, b"still here\n"), ended
    assert bench.left() == []


@pytest.mark.usefixtures("beside")
def test_kill_of_the_whole_process_group(matrix: Matrix) -> None:
    def case(row: str) -> Case:
        moment = stays if row == "session" else lambda run: run.until(f": {row} ...")
        return Case(row, matrix.bench(), signal.SIGKILL, (), moment, prefix=("setsid",), send=os.killpg)

    matrix.run([case(row) for row in ("network", "sidecar", "bottle", "lock", "selftest", "session")])


@pytest.mark.usefixtures("beside")
@pytest.mark.parametrize("moment", ["lock ...", "<staying>"])
def test_closing_of_the_terminal(matrix: Matrix, moment: str) -> None:
    bench = matrix.bench()
    write(bench, "stay")
    with bench.terminal("--yes", "-v", screen=False) as terminal:
        terminal.until_bytes(moment.encode())
        terminal.child.closed = True
        terminal.child.ptyproc.fileobj.close()  # type: ignore[attr-defined]  # its own would kill
        until_nothing_is_left(bench, time.monotonic())


@pytest.mark.xdist_group("egress")  # cleanup removes the default egress network between its uses
@pytest.mark.parametrize("command", ["cleanup", "start"])
def test_what_is_left_where_the_watchdog_was_killed_too(matrix: Matrix, beside: Bench, command: str) -> None:
    bench = matrix.bench()
    name = bench.name  # a machine of its own: the reapers of other sessions must not be first
    write(bench, "stay")
    left = orphaned(bench, name)
    try:
        living = things(beside)
        assert run_on("elsewhere", beside, "cleanup").code == 0
        shown = run_on(name, bench, "cleanup", "--dry-run").out.decode().splitlines()
        kinds = [
            line.removeprefix("would remove ").rpartition(" ")[0]
            for line in shown
            if line.startswith("would remove ") and not line.endswith("-egress")
        ]
        assert kinds == ["container", "network", "volume", "volume", "stage dir"]
        assert things(bench) == left
        if command == "start":
            write(bench, "hello")
            assert run_on(name, bench, "start", bench.name, "--yes").code == 0
        else:
            assert run_on(name, bench, "cleanup").code == 0
        until_nothing_is_left(bench, time.monotonic())
        assert things(beside) == living
    finally:
        bench.remove_left()


def orphaned(bench: Bench, name: str) -> list[str]:
    """Run a session, kill its watchdog and its launcher; return what is left when its lifelines have ended the rest."""
    with running((*machine(name), str(CLI), "start", bench.name, "--yes"), bench.environ) as run:
        stays(run)
        [session] = bench.sessions()
        for pid in (*watchdogs(run.process.pid), run.process.pid):
            os.kill(pid, signal.SIGKILL)
        run.end()
    end = time.monotonic() + GUARD
    ending = {f"ps {session} claude-bottle-{session}{part}" for part in ("", "-key-holder")}
    while ending & set(things(bench)):
        assert time.monotonic() < end
        time.sleep(0.1)
    left = things(bench)
    kinds = [one.partition(" ")[0] for one in left if not one.startswith("/")]
    assert sorted(kinds) == ["network", "ps", "volume", "volume"]  # the sidecar, its volume, and the key-holder's
    return left


def test_a_bottle_ends_by_its_lifeline_alone_whatever_its_agent_has_done_to_it(matrix: Matrix) -> None:
    """Launcher, watchdog and docker's clients are killed at once; nobody else looks after sessions of this machine."""
    bench = matrix.bench()
    write(bench, "attack")
    try:
        with running((*machine(bench.name), str(CLI), "start", bench.name, "--yes"), bench.environ) as run:
            assert run.process.stdout
            told = b""
            while not told.endswith(b"]>"):
                told += run.process.stdout.read(1)
            others, _, done = told.decode().removeprefix("<attacked ").removesuffix(">").partition(" ")
            assert int(others) >= 2, told  # it has seen its guard
            [session] = bench.sessions()
            for pid in (*watchdogs(run.process.pid), run.process.pid, *clients(session)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            since = time.monotonic()
            ending = {f"ps {session} claude-bottle-{session}{part}" for part in ("", "-key-holder")}
            while left := ending & set(things(bench)):
                assert time.monotonic() < since + ALONE, left
                time.sleep(0.1)
            run.end()
        assert json.loads(done) == []
    finally:
        bench.remove_left()


def clients(session: str) -> list[int]:
    """Return the process ids of docker's clients that have to do with a session."""
    found = []
    for path in (each / "cmdline" for each in Path("/proc").glob("[0-9]*")):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if words[0].endswith(b"docker") and session.encode() in b" ".join(words):
                found.append(int(path.parent.name))
    return found


@pytest.mark.xdist_group("egress")  # cleanup removes the default egress network between its uses
def test_only_the_certainly_dead_are_cleaned_up(matrix: Matrix) -> None:
    """By their labels: what this test makes has no launcher."""
    bench = matrix.bench()
    own = this_process()
    here = replace(own, machine=f"{bench.name}/{own.machine.partition('/')[2]}")
    with subprocess.Popen("true") as ended:
        gone = ended.pid
    owners = {
        "living": here,
        "gone": replace(here, pid=gone),
        "reused": replace(here, started="1"),
        "rebooted": replace(here, boot="another-boot"),
        "elsewhere": replace(here, machine="elsewhere/12345678", pid=gone, started="1"),
        "nonsense": "x",
    }
    try:
        for name, owner in owners.items():
            labels = shlex.split(f"--label {SESSION}={bench.name}-{name} --label claude-bottle.owner={owner}")
            network(f"{bench.name}-{name}", *labels)
            docker("volume", "create", *labels, f"{bench.name}-{name}")
            docker("create", "--name", f"{bench.name}-{name}", *labels, bench.world.base_image, "true")
        told = run_on(bench.name, bench, "cleanup")
        left = {one.split("-")[-1] for one in things(bench)}
    finally:
        bench.remove_left()
    assert told.code == 0, told
    assert left == {"living", "elsewhere", "nonsense"}
    assert len(re.findall(f"^removed .* {bench.name}-", told.out.decode(), re.MULTILINE)) == 9, told
    assert bench.left() == []


def network(name: str, *labels: str) -> None:
    """Make a network on any free range from which no session takes its own."""
    while True:
        subnet = f"10.212.{random.randrange(256)}.{random.randrange(32) * 8}/29"
        argv = ("docker", "network", "create", "--internal", "--subnet", subnet, *labels, name)
        made = subprocess.run(argv, capture_output=True, text=True, check=False)
        if made.returncode == 0:
            return
        assert "Pool overlaps" in made.stderr, made
