"""Lists of tasks in real bottles, each with the real Claude Code: answers, branches, and what a fault leaves."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.matrix import running
from tests.support.repos import Repo, users
from tests.support.sessions import CLI, GUARD, Bench, Ended, command_lines

PLANTED = "planted-7d1f0c"


@pytest.fixture
def user(bench: Bench) -> Repo:
    """The user's repository."""
    return users(bench.folder / "user", {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}, "the user's", file="1")


def write(bench: Bench, user: Repo, **prompts: str) -> Path:
    """Write a list with these prompts."""
    path = bench.folder / "tasks.yaml"
    tasks = [{"name": name, "prompt": prompt} for name, prompt in prompts.items()]
    path.write_text(json.dumps({"agent": bench.name, "repo": str(user.path), "tasks": tasks}))
    return path


def run(bench: Bench, path: Path, *words: str) -> tuple[Ended, dict[str, dict[str, object]]]:
    """Run a list to its end; return that, and each task's result."""
    ended = bench.run((str(CLI), "run", str(path), "--yes", "--json", *words), {})
    return ended, {each["task"]: each for each in json.loads(ended.out)}


def branches(user: Repo) -> dict[str, list[str]]:
    """Return the files that each branch of a task has made."""
    names = user.git("branch", "--format=%(refname:short)", "--list", "bottle/*").split()
    return {name: user.git("diff", "--name-only", "main", name).split() for name in names}


def making(name: str, *more: str) -> str:
    return "\n".join((f"RUN: echo {name} > {name}", *more, f"RUN: echo {name} is made"))


def launchers(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(one) for one in children if b"--task" in Path(f"/proc/{one}/cmdline").read_bytes()]


@pytest.mark.long
def test_four_tasks_are_four_answers_and_four_branches_and_only_a_failure_is_tried_again(
    bench: Bench, user: Repo
) -> None:
    bench.write({"env": {"KEY": "${A_KEY}"}})
    bench.environ["A_KEY"] = PLANTED
    prompts = {name: making(name) for name in ("one", "two")}
    prompts |= {"tells": making("tells", "RUN: echo $KEY"), "fails": f"FAIL: 400\n{making('fails')}"}
    path = write(bench, user, **prompts)
    ended, found = run(bench, path)
    assert ended.code == 1, ended
    assert {name: each["state"] for name, each in found.items()} == {
        **dict.fromkeys(("one", "two", "tells"), "done"), "fails": "failed (1)",
    }, ended  # fmt: skip
    out = bench.folder / "tasks.results"
    answers = {name: (out / f"{name}.txt").read_text() for name in ("one", "two", "tells")}
    assert all(text.endswith(f"{name} is made\n") for name, text in answers.items()), answers
    assert "[struck out]" in answers["tells"]
    made = {f"bottle/run-tasks/{name}": [name] for name in ("one", "two", "tells")}
    assert branches(user) == made
    assert {each["branch"] for name, each in found.items() if name != "fails"} == set(made)
    assert bench.left_at_last() == []

    again, same = run(bench, path)
    assert (again.code, again.err, same) == (1, "", found)
    last, now = run(bench, path, "--retry")
    assert (last.code, now["fails"]["state"]) == (0, "done"), last
    assert branches(user) == {**made, "bottle/run-tasks/fails": ["fails"]}
    secrets = (PLANTED, bench.token)
    assert not [each for each in out.iterdir() if any(secret in each.read_text() for secret in secrets)]


@pytest.mark.long
def test_ctrl_c_brings_the_work_back_and_the_next_run_does_the_rest(bench: Bench, user: Repo) -> None:
    held = f"HOLD: {bench.name}"
    path = write(bench, user, one=making("one", held), two=making("two", held), three=making("three"))
    with bench.on_terminal("run", str(path), "--yes", "-j", "2", screen=False) as terminal:
        until_held(bench, 2)
        outside = [line for line in command_lines() if not line.startswith(b"claude\0")]  # that one is in the bottle
        assert not [line for line in outside if held.encode() in line or bench.token.encode() in line]
        terminal.type(b"\x03")
        assert terminal.code() == 130
        rows = [
            line.split()[:2] for line in terminal.raw.decode().splitlines() if line.startswith(("one", "two", "three"))
        ]
    assert rows == [["one", "interrupted"], ["two", "interrupted"], ["three", "not"]]
    assert branches(user) == {f"bottle/run-tasks/{name}": [name] for name in ("one", "two")}
    assert bench.left_at_last() == []
    bench.world.release(bench.name)
    ended, found = run(bench, path)
    assert (ended.code, [each["state"] for each in found.values()]) == (0, ["done"] * 3), ended
    assert bench.left_at_last() == []


def until_held(bench: Bench, count: int) -> None:
    """Wait until so many sessions wait for the answer that is held back."""
    end = time.monotonic() + GUARD
    while (
        len(
            {
                each.prompt
                for each in bench.world.requests(bench.token)
                if each.runs and f"HOLD: {bench.name}" in each.prompt
            }
        )
        < count
    ):
        assert time.monotonic() < end
        time.sleep(0.5)
    bench.settled()


@pytest.mark.long
def test_a_launcher_that_is_killed_fails_alone(bench: Bench, user: Repo) -> None:
    path = write(bench, user, one=making("one", f"HOLD: {bench.name}"), two=making("two"))
    words = (str(CLI), "run", str(path), "--yes", "--json", "-j", "1")
    with running(words, bench.environ) as process:
        until_held(bench, 1)
        os.kill(launchers(process.process.pid)[0], signal.SIGKILL)
        ended = process.end()
    states = [each["state"] for each in json.loads(ended.out)]
    assert (ended.code, states) == (1, ["failed (137)", "done"]), ended
    assert branches(user) == {"bottle/run-tasks/two": ["two"]}


@pytest.mark.long
def test_if_it_is_killed_itself_its_sessions_end_in_order(bench: Bench, user: Repo) -> None:
    path = write(bench, user, one=making("one", f"HOLD: {bench.name}"))
    with running((str(CLI), "run", str(path), "--yes"), bench.environ) as process:
        until_held(bench, 1)
        process.process.kill()
        process.end()
    bench.await_nothing()
    assert branches(user) == {"bottle/run-tasks/one": ["one"]}
