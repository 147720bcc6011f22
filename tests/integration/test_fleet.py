"""A start that is packed here and run elsewhere: the answer, the work as a bundle, and nothing else."""

import json
import os
import secrets
import signal
import subprocess
import time
from pathlib import Path

import pytest

from claude_bottle.repository.clone import WORKDIR
from tests.support.hunt import on_disk
from tests.support.repos import Repo, users
from tests.support.sessions import CLI, GUARD, Bench, Ended, Running, docker

STAYING = b"<staying>"


@pytest.fixture
def user(bench: Bench) -> Repo:
    """The user's repository, of one commit."""
    return users(bench.folder / "user", {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}, "first", a="1")


def packed(bench: Bench, question: str, *words: str) -> bytes:
    ended = bench.run((str(CLI), "fleet", "pack", bench.name, "--print", question, *words), {})
    assert ended.code == 0, ended
    return ended.out


def command(bench: Bench, out: Path) -> tuple[str, ...]:
    """Return the command of a launcher that has none of the user's secrets in its environment, but for its own 3."""
    script = 'exec 3< "$1" && shift && exec "$@"'
    values = bench.run((str(CLI), "fleet", "secrets", bench.name), {}).out
    assert json.loads(values)["CLAUDE_BOTTLE_OAUTH_TOKEN"] == bench.token
    (bench.folder / "secrets").write_bytes(values)
    words = (str(CLI), "fleet", "run", "--secrets-fd", "3", "--out", str(out))
    return ("sh", "-c", script, "sh", str(bench.folder / "secrets"), *words)


def run(bench: Bench, payload: bytes, out: Path) -> Ended:
    out.mkdir(exist_ok=True)
    env = {"CLAUDE_BOTTLE_OAUTH_TOKEN": "", "CLAUDE_BOTTLE_AGENTS": "/nonexistent"}
    return bench.run(command(bench, out), env, stdin=payload)


def test_a_packed_start_answers_and_leaves_its_work(bench: Bench, user: Repo) -> None:
    before, out = user.snapshot(), bench.folder / "out"
    payload = packed(bench, "RUN: echo new > b && git add b && git commit -qm second; pwd", "--repo", str(user.path))
    assert bench.environ["CLAUDE_BOTTLE_OAUTH_TOKEN"].encode() not in payload
    ended = run(bench, payload, out)
    assert (ended.code, WORKDIR.encode() in ended.out) == (0, True), ended
    assert "checks passed" in ended.err
    (bundle,) = out.iterdir()
    assert user.snapshot() == before
    user.git("fetch", "--quiet", str(bundle), "refs/claude-bottle/out:work")
    assert user.git("log", "--format=%s", "work").split() == ["second", "first"]
    assert bench.left() == []


def test_a_launcher_that_is_ended_leaves_the_work_of_its_agent(bench: Bench, user: Repo) -> None:
    bench.puppet()
    out = bench.folder / "out"
    out.mkdir()
    payload = bench.folder / "task.tar"
    payload.write_bytes(packed(bench, "stay", "--repo", str(user.path)))
    argv = ("sh", "-c", 'exec "$@" < "$0"', str(payload), *command(bench, out))
    launcher = Running(argv, bench.environ | {"CLAUDE_BOTTLE_OAUTH_TOKEN": ""})
    try:
        assert launcher.process.stdout
        assert launcher.process.stdout.read(len(STAYING)) == STAYING, launcher.end()
        [session] = bench.sessions()
        argv = ("docker", "exec", "--user", "1000:1000", f"claude-bottle-{session}", "touch", f"{WORKDIR}/left")
        subprocess.run(argv, check=True)
        launcher.process.send_signal(signal.SIGTERM)
    finally:
        ended = launcher.end()
    assert ended.code == 128 + signal.SIGTERM, ended
    bundle = out / f"{session}.bundle"
    user.git("fetch", "--quiet", str(bundle), "refs/claude-bottle/out:work")
    assert "left" in user.git("ls-tree", "--name-only", "work").split()
    bench.await_nothing()


def test_a_secret_that_is_missing_is_named_before_anything_is_made(bench: Bench) -> None:
    bench.write({"env": {"KEY": "${HOST_KEY}"}})
    bench.environ["HOST_KEY"] = "planted-value"
    payload = packed(bench, "Why?")
    assert b"planted-value" not in payload
    (bench.folder / "none").write_text("{}")
    words = ("sh", "-c", 'exec 3< "$0" && exec "$@"', str(bench.folder / "none"))
    ended = bench.run((*words, str(CLI), "fleet", "run", "--secrets-fd", "3"), {}, stdin=payload)
    assert (ended.code, ended.out) == (2, b"")
    assert "not among the secrets: CLAUDE_BOTTLE_OAUTH_TOKEN, HOST_KEY" in ended.err
    assert bench.left() == []


def fleet(bench: Bench, *words: str) -> Ended:
    return bench.run((str(CLI), "fleet", *words), {})


def submitted(bench: Bench, question: str, *words: str) -> str:
    ended = fleet(bench, "submit", bench.name, "--yes", "--print", question, *words)
    assert ended.code == 0, ended
    return ended.out.decode().strip()


def await_claude(bench: Bench) -> str:
    """Wait until a task's claude, which stays, runs; return its session's id."""
    end = time.monotonic() + GUARD
    while time.monotonic() < end:
        for session in bench.sessions():
            argv = ("docker", "top", f"claude-bottle-{session}", "-eo", "pid,args")
            if b"claude --" in subprocess.run(argv, capture_output=True, check=False).stdout:
                return session
        time.sleep(0.2)
    raise AssertionError("claude does not start")


def exit_of(bench: Bench, task: str) -> int:
    """Return a task's exit code once it has ended."""
    end = time.monotonic() + GUARD
    while time.monotonic() < end:
        [found] = [each for each in json.loads(fleet(bench, "list", "--json").out) if each["task"] == task]
        if found["exit"] is not None:
            return int(found["exit"])
        time.sleep(0.2)
    raise AssertionError("the task does not end")


def objects(bench: Bench, task: str) -> list[str]:
    """Return what a task has on the engine: its own container, and its session's objects."""
    own = docker("ps", "--all", "--quiet", "--filter", f"label=claude-bottle.task={task}").split()
    return [*own, *bench.objects()]


def test_a_task_needs_its_submitter_no_more(bench: Bench, user: Repo) -> None:
    """Its answer, log and work stay on its engine until they are fetched; then nothing is left."""
    task = submitted(bench, "RUN: echo new > b && git add b && git commit -qm second; pwd", "--repo", str(user.path))
    assert exit_of(bench, task) == 0
    result = fleet(bench, "result", task)
    assert (result.code, WORKDIR.encode() in result.out) == (0, True), result
    assert "checks passed" in result.err
    assert user.git("log", "--format=%s", f"bottle/{task}").split() == ["second", "first"]
    assert objects(bench, task) == []
    assert fleet(bench, "result", task).code == 2


def test_a_tasks_secrets_are_never_on_its_engines_disk(bench: Bench) -> None:
    """Nor in what docker tells, while it runs and after."""
    secret = f"made-up-{secrets.token_hex(16)}"
    bench.puppet()
    bench.write({"image": {"dockerfile": "../puppet/Dockerfile"}, "env": {"RENAMED": "${SECRET}"}})
    bench.environ["SECRET"] = secret
    planted, since = (bench.token, secret), time.time() - 1
    task = submitted(bench, "stay")
    session = await_claude(bench)
    during, told = on_disk(bench.world, since, (*planted, session)), docker("inspect", f"claude-bottle-task-{task}")
    assert fleet(bench, "cancel", task).code == 0
    after = on_disk(bench.world, since, planted)
    told += fleet(bench, "result", task).err
    assert during[session]  # it looks where something is to be seen
    for seen in (during, after):
        assert {word: seen[word] for word in planted} == {word: set() for word in planted}
    assert not [word for word in planted if word in told]


@pytest.mark.parametrize("how", ["cancel", "stop"])
def test_a_task_that_is_ended_keeps_its_work(bench: Bench, user: Repo, how: str) -> None:
    bench.puppet()
    task = submitted(bench, "stay", "--repo", str(user.path))
    session = await_claude(bench)
    running = fleet(bench, "result", task)
    assert (running.code, "still runs" in running.err) == (2, True), running
    docker("exec", "--user", "1000:1000", f"claude-bottle-{session}", "touch", f"{WORKDIR}/left")
    ended = fleet(bench, "cancel", task) if how == "cancel" else bench.run((str(CLI), "stop", session), {})
    assert ended.code == 0, ended
    result = fleet(bench, "result", task)
    assert result.code == 128 + signal.SIGTERM, result
    assert "left" in user.git("ls-tree", "--name-only", f"bottle/{task}").split()
    assert objects(bench, task) == []


@pytest.mark.xdist_group("egress")  # cleanup removes the default egress network between its uses
def test_a_task_whose_container_is_killed_leaves_what_cleanup_removes(bench: Bench) -> None:
    """Its engine knows that it is dead; as long as it runs, its session is nobody's to remove."""
    bench.puppet()
    task = submitted(bench, "stay")
    await_claude(bench)
    assert bench.run((str(CLI), "cleanup"), {}).code == 0
    assert bench.sessions()
    docker("kill", f"claude-bottle-task-{task}")
    assert exit_of(bench, task) == 128 + signal.SIGKILL
    bench.run((str(CLI), "cleanup"), {})
    assert bench.objects() == []
    assert fleet(bench, "result", task).code == 128 + signal.SIGKILL
    assert objects(bench, task) == []
