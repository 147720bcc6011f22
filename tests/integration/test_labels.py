"""Labels that somebody else has written: by an image, or by whoever uses the engine."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from claude_bottle.process.liveness import start_time, this_process
from tests.integration.test_commands import command, staying
from tests.support.repos import Repo, users
from tests.support.sessions import SESSION, Bench, docker


@pytest.fixture
def user(bench: Bench) -> Repo:
    """A repository of the user's, which no session was started with."""
    return users(bench.folder / "user", {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"})


@contextlib.contextmanager
def foreign(bench: Bench, name: str, **labels: str) -> Iterator[str]:
    """Make a container with these labels; yield its name."""
    flags = [word for key, value in labels.items() for word in ("--label", f"claude-bottle.{key}={value}")]
    docker("create", "--name", f"{bench.name}-{name}", *flags, bench.world.base_image, "true")
    try:
        yield f"{bench.name}-{name}"
    finally:
        docker("rm", "--force", f"{bench.name}-{name}")


def test_an_image_gives_a_session_no_repository(bench: Bench, user: Repo) -> None:
    bench.puppet("stay")
    head = user.git("rev-parse", "HEAD")
    with (bench.agents / "puppet" / "Dockerfile").open("a") as file:
        file.write(f'LABEL claude-bottle.repository="{head} {head} {user.path}" claude-bottle.proof="{"0" * 64}"\n')
    before = user.snapshot()
    with staying(bench) as (_, session):
        shown = docker("inspect", "--format", '{{json (index .Config.Labels "claude-bottle.repository")}}',
                       f"claude-bottle-{session}")  # fmt: skip
        assert shown == '""\n'
        fetched = command(bench, "fetch", session)
    assert (fetched.code, fetched.err) == (
        2, f"claude-bottle: {session} has no repository: it was started without --repo\n",
    )  # fmt: skip
    assert user.snapshot() == before


def test_a_container_of_somebody_else_with_all_labels_has_nothing_written(bench: Bench, user: Repo) -> None:
    label = f"{user.git('rev-parse', 'HEAD')} {user.git('rev-parse', 'HEAD')} {user.path}"
    manifest = bench.agents / "bottles" / f"{bench.name}.yaml"
    before, text = user.snapshot(), manifest.read_text()
    owner, session = str(this_process()), f"{bench.name}-forged"
    labels = {"role": "agent", "owner": owner, "repository": label, "manifest": str(manifest), "proof": "0" * 64}
    with foreign(bench, "x", session=session, **labels):
        fetched = command(bench, "fetch", session)
        saved = command(bench, "allow", session, "a.test", "--save")
    told = f"no label proves that this user started {session}"
    assert (fetched.code, fetched.err) == (2, f"claude-bottle: {user.path} is not written to: {told}\n")
    assert (saved.code, saved.err) == (64, f"{manifest}: not saved, {told}; nothing was allowed\n")
    assert (user.snapshot(), manifest.read_text()) == (before, text)


def test_stop_signals_no_process_on_the_word_of_a_label(bench: Bench) -> None:
    session = f"{bench.name}-forged"
    with subprocess.Popen(("sleep", "600")) as process:
        owner = replace(this_process(), pid=process.pid, started=start_time(process.pid))
        with foreign(bench, "x", session=session, role="agent", owner=str(owner)):
            stopped = command(bench, "stop", session)
            assert process.poll() is None
            assert bench.sessions() == []
        process.kill()
    told = f"no label proves that this user started {session}; removing the session without a signal"
    assert (stopped.code, stopped.out.decode()) == (0, f"stopped {session}\n")
    assert stopped.err == f"claude-bottle: {told}\n"


def test_a_line_break_in_a_label_names_no_other_container(bench: Bench) -> None:
    dead = replace(this_process(), started="1")
    victim = f"claude-bottle-{bench.name}-victim"
    line = f"x\n{victim}\t{bench.name}-1\t{dead}\tagent"
    with foreign(bench, "x", session=f"{bench.name}-0", role=line, owner="x"):
        for kind in ("volume", "network"):
            docker(kind, "create", "--label", f"{SESSION}={line}", f"{bench.name}-{kind}")
        try:
            shown = command(bench, "cleanup", "--dry-run")
        finally:
            for kind in ("volume", "network"):
                docker(kind, "rm", f"{bench.name}-{kind}")
    assert shown.code == 0
    assert victim not in shown.out.decode()
