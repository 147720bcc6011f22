"""A start that is packed here and run elsewhere: the answer, the work as a bundle, and nothing else."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.repos import Repo, users
from tests.support.sessions import CLI, Bench, Ended, Running

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
    secrets = bench.run((str(CLI), "fleet", "secrets", bench.name), {}).out
    assert json.loads(secrets)["CLAUDE_BOTTLE_OAUTH_TOKEN"] == bench.environ["CLAUDE_BOTTLE_OAUTH_TOKEN"]
    (bench.folder / "secrets").write_bytes(secrets)
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
    assert (ended.code, b"/work" in ended.out) == (0, True), ended
    assert "checks passed" in ended.err
    (bundle,) = out.iterdir()
    session = bundle.stem
    assert user.snapshot() == before
    user.git("fetch", "--quiet", str(bundle), f"bottle/{session}:work")
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
        argv = ("docker", "exec", "--user", "1000:1000", f"claude-bottle-{session}", "touch", "/work/left")
        subprocess.run(argv, check=True)
        launcher.process.send_signal(signal.SIGTERM)
    finally:
        ended = launcher.end()
    assert ended.code == 128 + signal.SIGTERM, ended
    bundle = out / f"{session}.bundle"
    user.git("fetch", "--quiet", str(bundle), f"bottle/{session}:work")
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
