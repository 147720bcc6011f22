"""Several engines by their docker contexts: here one engine under another name, and one that is not there."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.sessions import CLI, Bench

SILENT = "claude-bottle: engine dead does not answer: "


@pytest.fixture
def engines(bench: Bench) -> Bench:
    """Two contexts in a configuration of docker's of the test's own."""
    folder: Path = bench.folder / "docker"
    there = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    for name, host in (("build-1", there), ("dead", "tcp://127.0.0.1:1")):
        argv = ("docker", "context", "create", name, "--docker", f"host={host}")
        subprocess.run(argv, env=os.environ | {"DOCKER_CONFIG": str(folder)}, check=True, capture_output=True)
    bench.environ |= {"DOCKER_CONFIG": str(folder), "CLAUDE_BOTTLE_ENGINES": "dead build-1"}
    return bench


def test_a_session_on_any_engine_is_listed_and_stopped_and_a_dead_one_holds_nobody_up(engines: Bench) -> None:
    with engines.running("--yes", "--on", "any", "--print", f"HOLD: {engines.name}") as run:
        session = engines.held()
        listed = engines.run((str(CLI), "list", "--json"), {})
        [own] = [each for each in json.loads(listed.out) if each["session"] == session]
        assert (listed.code, bool(own["engine"]), listed.err.startswith(SILENT)) == (0, True, True), listed
        for words in (("logs", session), ("stop", session)):
            done = engines.run((str(CLI), *words), {})
            assert (done.code, f"claude-bottle: {session} is on " in done.err) == (0, True), done
        ended = run.end()
    assert (ended.code, "\nengine  build-1\n" in ended.err) == (143, True), ended


def test_a_list_of_tasks_runs_on_the_engines_that_answer(engines: Bench) -> None:
    path = engines.folder / "tasks.yaml"
    tasks = [{"name": name, "prompt": f"SAY: {name}"} for name in ("one", "two")]
    path.write_text(json.dumps({"agent": engines.name, "tasks": tasks}))
    ended = engines.run((str(CLI), "run", str(path), "--yes", "--json", "--on", "any"), {})
    found = [(each["task"], each["state"], each["engine"]) for each in json.loads(ended.out)]
    assert (ended.code, found) == (0, [("one", "done", "build-1"), ("two", "done", "build-1")]), ended
    assert ended.err.startswith(SILENT)
    assert (engines.folder / "tasks.results" / "two.txt").read_text() == "two\n"
