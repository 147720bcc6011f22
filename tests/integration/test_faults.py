"""What goes wrong while a session runs or is made: one clear line, the right exit code, and nothing left."""

import os
import shutil
import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from claude_bottle.host.machine import Machine
from claude_bottle.manifest.bottle import Bottle
from claude_bottle.process.liveness import this_process
from claude_bottle.session import planning
from tests.support.matrix import Matrix, stays, until_no_watchdog, until_nothing_is_left
from tests.support.sessions import CLI, GUARD, Bench, Ended, docker, forwarded


def last(ended: Ended) -> str:
    """Return the last line that the user saw."""
    return ended.err.splitlines()[-1]


def test_sidecar_dies_in_the_session(bench: Bench) -> None:
    bench.puppet("stay")
    with bench.running("--yes") as run:
        stays(run)
        docker("kill", f"claude-bottle-{bench.sessions()[0]}-sidecar")
        ended = run.end()
    assert ended.code == 70, ended
    assert ended.err.count("the sidecar has exited, which ended the session") == 1, ended


def test_docker_vanishes_in_the_session_and_comes_back(bench: Bench) -> None:
    """The launcher cannot clean up and says so; its watchdog does, once it can."""
    bench.puppet("stay")
    client = bench.folder / "bin" / "docker"
    client.parent.mkdir()
    client.symlink_to(shutil.which("docker") or "")
    for name in ("cmp", "readlink"):  # what the launcher needs
        (client.parent / name).symlink_to(shutil.which(name) or "")
    with bench.running("--yes", PATH=str(client.parent)) as run:
        stays(run)
        client.rename(client.with_name("gone"))
        run.process.send_signal(signal.SIGTERM)
        ended = run.end()
    assert ended.code == 128 + signal.SIGTERM, ended
    assert "left behind: " in last(ended)
    assert "docker is not on PATH" in last(ended)
    client.with_name("gone").rename(client)
    until_nothing_is_left(bench, time.monotonic())
    until_no_watchdog(run.process.pid)


@pytest.mark.parametrize("full", ["size=4k", "nr_inodes=2"], ids=["blocks", "inodes"])
def test_disk_full_while_staging(bench: Bench, full: str) -> None:
    """The temporary directory takes a first file, or none at all in the stage dir."""
    bench.puppet("stay")
    own = () if os.geteuid() == 0 else ("--map-root-user",)
    script = 'mount -t tmpfs -o "$1" tmpfs "$TMPDIR" && shift && "$@"; code=$?; ls "$TMPDIR"; exit $code'
    words = ("start", bench.name, "--yes")
    ended = bench.run(("unshare", "--mount", *own, "sh", "-c", script, "sh", full, str(CLI), *words), {})
    assert (ended.code, ended.out) == (70, b""), ended
    assert last(ended).startswith(f"claude-bottle: cannot write the stage dir {bench.stage}/claude-bottle-"), ended
    assert last(ended).endswith(": No space left on device"), ended


def test_build_is_interrupted(bench: Bench) -> None:
    folder = bench.agents / "slow"
    folder.mkdir()
    text = f"ARG BASE_IMAGE\nFROM $BASE_IMAGE\nRUN echo building {bench.name}; exec sleep 600\n"
    (folder / "Dockerfile").write_text(text)
    bench.write({"image": {"dockerfile": "../slow/Dockerfile"}})
    with bench.running("--yes", "--print", "hello") as run:
        run.until(f"building {bench.name}\n")
        run.process.send_signal(signal.SIGINT)
        ended = run.end()
    assert (ended.code, ended.out) == (130, b""), ended
    machine = Machine(bench.environ, Path.home(), interactive=False, owner=this_process())
    *_, own = planning.images(machine, Bottle("", Path(), dockerfile=folder / "Dockerfile"))
    assert docker("image", "ls", "--quiet", own.tag) == ""
    end = time.monotonic() + GUARD
    while any(
        bench.name in one for one in docker("ps", "--all", "--no-trunc", "--format", "{{.Command}}").splitlines()
    ):
        assert time.monotonic() < end, "the build's container is still there"
        time.sleep(0.1)


@pytest.mark.parametrize("gone", [False, True], ids=["with its socket there", "with its socket"])
def test_engine_vanishes_in_the_session_and_comes_back(bench: Bench, *, gone: bool) -> None:
    """The lifeline ends the bottle, the launcher says why and what it could not remove, its watchdog removes it."""
    bench.puppet("stay")
    path = bench.folder / "engine"
    with forwarded(f"unix:{path}") as (engine, forwarder), bench.running("--yes", DOCKER_HOST=engine) as run:
        stays(run)
        if gone:
            path.unlink()  # as where systemd stops both
        forwarder.kill()
        ended = run.end()
    assert ended.code == 75, ended
    assert "claude-bottle: docker cannot be used: " in ended.err, ended
    assert "which ended the session" not in ended.err, ended  # no container is to blame
    assert last(ended).startswith("claude-bottle: left behind: "), ended  # lock and gate may have been on their way
    assert " bottle (" in last(ended)
    path.unlink(missing_ok=True)
    with forwarded(f"unix:{path}"):
        until_nothing_is_left(bench, time.monotonic())
        until_no_watchdog(run.process.pid)


@pytest.mark.long
def test_a_remote_bottle_lives_through_a_set_up_of_a_minute(bench: Bench) -> None:
    """It gives up after 45 s without a heartbeat."""
    bench.puppet("hello")
    slow = bench.wrap('*"tar --extract --file"*) sleep 60 ;;')
    with forwarded("127.0.0.1:0") as (engine, _):
        ended = bench.start("--yes", DOCKER_HOST=engine, PATH=slow)
    assert ended.code == 0, ended


@pytest.mark.long
def test_a_link_that_is_cut_silently_ends_the_bottle(matrix: Matrix) -> None:
    """Within a minute; not one whose link is as it was, nor one whose launcher is suspended, remote or local.

    One with a repository holds its files: see test_rescue.py.
    """
    benches = cut, whole, away, local = [matrix.bench() for _ in range(4)]
    for bench in benches:
        bench.write({"image": {"dockerfile": "../puppet/Dockerfile"}}, prompt="stay")
    with (
        forwarded("127.0.0.1:0") as (one, forwarder), forwarded("127.0.0.1:0") as (other, _),
        cut.running("--yes", DOCKER_HOST=one) as run, whole.running("--yes", DOCKER_HOST=other) as beside,
        away.running("--yes", DOCKER_HOST=other) as remote, local.running("--yes") as suspended, ExitStack() as stack,
    ):  # fmt: skip
        for each in (run, beside, remote, suspended):
            stays(each)
        bottles = {bench: bottle(bench) for bench in benches}
        for each in (remote, suspended):
            each.process.send_signal(signal.SIGSTOP)
            stack.callback(each.process.send_signal, signal.SIGCONT)
        past = time.monotonic() + 65
        forwarder.send_signal(signal.SIGSTOP)
        stack.callback(forwarder.send_signal, signal.SIGCONT)
        end = time.monotonic() + 90  # the promise is a minute, on a machine that is not busy
        while bottles[cut] in cut.objects():
            assert time.monotonic() < end, "the bottle is still there"
            time.sleep(1)
        time.sleep(max(0.0, past - time.monotonic()))  # a heartbeat that has stopped would be missed by now
        assert [bottles[bench] in bench.objects() for bench in (whole, away, local)] == [True] * 3
        stack.close()
        ended = run.end()
        assert ended.code == 70, ended
        assert last(ended).endswith(", which ended the session"), ended  # by whichever of its containers went first
    assert [bench.left() for bench in benches] == [[], [], [], []]


def bottle(bench: Bench) -> str:
    """Return the agent container of a session, as `objects` has it."""
    [name] = bench.sessions()
    return f"ps {name} claude-bottle-{name}"
