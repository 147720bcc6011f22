"""Sessions that reach their limit of time: an ordinary end, in order, with the work."""

import json
import os

import pytest

from tests.support.repos import users
from tests.support.sessions import CLI, Bench, docker

pytestmark = pytest.mark.long  # each waits for its limit, which leaves time to begin

OVER = "claude-bottle: the session has reached its limit of time, {}, which ended it"
TOLD = "claude-bottle: the session ends in {}, at its limit of time"


def test_a_headless_session_is_told_and_ends_with_its_work(bench: Bench) -> None:
    """What is committed comes back, and what is not."""
    repo = users(bench.folder / "user", {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}, "the user's", file="1")
    bench.puppet("stay")
    with bench.running("--yes", "--repo", str(repo.path), "--for", "60s") as run:
        assert run.process.stdout
        assert run.process.stdout.read(9) == b"<staying>"
        session = bench.sessions()[0]
        work = "echo 1 >committed; git add .; git commit --quiet -m one; echo 2 >left"
        docker("exec", "--user", "1000:1000", f"claude-bottle-{session}", "bash", "-ec", work)
        listed = bench.run((str(CLI), "list", "--json"), {})
        [own] = [one for one in json.loads(listed.out) if one["session"] == session]
        assert 0 <= own["left"] <= 60
        ended = run.end()
    assert ended.code == 124, ended
    assert TOLD.format("30s") in ended.err
    assert OVER.format("1m") in ended.err.splitlines()
    branch = f"bottle/{session}"
    assert f"branch  {branch} in {repo.path}\n" in ended.err
    assert [repo.git("show", f"{branch}:{name}") for name in ("committed", "left")] == ["1", "2"]


@pytest.mark.parametrize("how", ["terminal", "print"])
def test_claude_that_ignores_sigterm_is_ended_all_the_same(bench: Bench, how: str) -> None:
    bench.puppet("deaf")
    if how == "print":
        ended = bench.start("--yes", "--for", "30s")
        assert (ended.code, ended.out) == (124, b"<deaf>"), ended
        assert ended.err.splitlines()[-1] == OVER.format("30s")
        return
    with bench.terminal("--yes", "--for", "30s", screen=False) as terminal:
        terminal.until_bytes(b"<deaf>")
        said = terminal.until_bytes(OVER.format("30s").encode())
        assert b"at its limit of time" not in said  # nothing came between the bytes of claude's screen
        assert terminal.code() == 124


def test_claude_on_a_terminal_is_ended_and_the_terminal_is_as_before(bench: Bench) -> None:
    bench.write({"limits": {"time": "40s"}}, prompt=f"HOLD: {bench.name}\n")
    with bench.terminal("--yes") as terminal:
        terminal.until(OVER.format("40s"))
        assert terminal.code() == 124
