"""Packed starts as jobs of Slurm, by the recipe in docs/fleet/slurm.sh: more of them than slots."""

import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from claude_bottle.repository.clone import WORKDIR
from tests.support.repos import Repo, users
from tests.support.sessions import CLI, GUARD, Bench, Running, docker
from tests.support.slurm import Slurm, cluster
from tests.world import REPOSITORY

RECIPE = str(REPOSITORY / "docs/fleet/slurm.sh")
STAYING = b"<staying>"
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="a node has a host name of its own"),
    pytest.mark.xdist_group("slurm"),
]


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    """A cluster of two slots; its sockets have short paths."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    try:
        with cluster(folder) as made:
            yield made
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def user(bench: Bench) -> Repo:
    """The user's repository, of one commit."""
    return users(bench.folder / "user", {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}, "first", a="1")


def packed(bench: Bench, question: str, user: Repo) -> str:
    words = (str(CLI), "fleet", "pack", bench.name, "--print", question, "--repo", str(user.path))
    ended = bench.run(words, {})
    assert ended.code == 0, ended
    path = bench.folder / f"{secrets.token_hex(4)}.tar"
    path.write_bytes(ended.out)
    return str(path)


def submitted(bench: Bench, slurm: Slurm, task: str, out: Path, *words: str) -> Running:
    out.mkdir(exist_ok=True)
    return Running((RECIPE, bench.name, task, str(out), *words), bench.environ | slurm.environ)


def test_more_tasks_than_slots_all_answer_and_leave_their_work(bench: Bench, slurm: Slurm, user: Repo) -> None:
    secret = f"made-up-{secrets.token_hex(16)}"
    bench.write({"env": {"RENAMED": "${SECRET}"}})
    bench.environ["SECRET"] = secret
    out = bench.folder / "out"
    with ExitStack() as stack:
        jobs = []
        for number in range(4):
            task = packed(
                bench,
                f"RUN: echo {number} > b && git add b && git commit -qm work && echo done-$((40 + {number}))",
                user,
            )
            run = submitted(bench, slurm, task, out, f"--job-name=task-{number}")
            stack.callback(run.end)
            stack.callback(run.process.terminate)
            jobs.append(run)
        ended = [run.end() for run in jobs]
    assert [each.code for each in ended] == [0] * 4, ended
    assert [f"done-{40 + number}".encode() in each.out for number, each in enumerate(ended)] == [True] * 4
    bundles = sorted(out.iterdir())
    contents = set()
    for bundle in bundles:
        user.git("fetch", "--quiet", str(bundle), f"refs/claude-bottle/out:{bundle.stem}")
        contents.add(user.git("show", f"{bundle.stem}:b").strip())
    assert contents == {"0", "1", "2", "3"}
    assert bench.left() == []
    assert slurm.holds("task-3")  # it looks where something is to be seen
    assert [slurm.holds(word) for word in (bench.token, secret)] == [[], []]


def test_a_job_that_is_cancelled_leaves_the_work_of_its_agent(bench: Bench, slurm: Slurm, user: Repo) -> None:
    bench.puppet()
    out = bench.folder / "out"
    run = submitted(bench, slurm, packed(bench, "stay", user), out, "--job-name=stays", "--unbuffered")
    try:
        assert run.process.stdout
        assert run.process.stdout.read(len(STAYING)) == STAYING, run.end()
        [session] = bench.sessions()
        docker("exec", "--user", "1000:1000", f"claude-bottle-{session}", "touch", f"{WORKDIR}/left")
        slurm.ask("scancel", "--signal=TERM", "--name=stays")
    finally:
        ended = run.end()
    assert ended.code == 128 + signal.SIGTERM, ended
    [bundle] = out.iterdir()
    user.git("fetch", "--quiet", str(bundle), "refs/claude-bottle/out:work")
    assert "left" in user.git("ls-tree", "--name-only", "work").split()
    bench.await_nothing()


def test_a_job_whose_time_is_up_ends_in_order(bench: Bench, slurm: Slurm, user: Repo) -> None:
    """By the limit in its payload, before Slurm's own."""
    bench.puppet()
    words = (str(CLI), "fleet", "pack", bench.name, "--print", "stay", "--repo", str(user.path), "--for", "1m")
    task = bench.folder / "task.tar"
    task.write_bytes(bench.run(words, {}).out)
    begun = time.monotonic()
    run = submitted(bench, slurm, str(task), bench.folder / "out", "--time=10")
    ended = run.end()
    assert ended.code == 124, ended
    assert time.monotonic() - begun < GUARD
    bench.await_nothing()
