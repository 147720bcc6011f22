"""Many sessions at once."""

from contextlib import AbstractContextManager, ExitStack

import pytest

from tests.support.matrix import Matrix, running
from tests.support.sessions import CLI, SESSION, Bench, Running, docker

SESSIONS = 40
POOL = 30  # networks that Docker makes of its own pools
GUARD = 600  # seconds, for a machine that is busy with other things too; so long claude waits for its answer


@pytest.mark.long
@pytest.mark.xdist_group("matrix")  # not beside that: either alone is work enough for a small machine
def test_forty_sessions_at_once(matrix: Matrix) -> None:
    """The real Claude Code in each; all of them run before the first one ends, and each has its own answer."""
    benches = [matrix.bench() for _ in range(SESSIONS)]
    with ExitStack() as stack:
        started = {bench.name: stack.enter_context(asking(bench)) for bench in benches}
        for bench in benches:
            bench.held(GUARD)
        names = docker("network", "ls", "--filter", f"label={SESSION}", "--format", "{{.Name}}").splitlines()
        own = {name for name in names if any(bench.name in name for bench in benches)}
        assert len(own) == SESSIONS > POOL
        for bench in benches:
            bench.world.release(bench.name)
        for name, run in started.items():
            ended = run.end()
            assert (ended.code, ended.out.decode()) == (0, f"answer to {name}\n"), ended
    assert [bench.left() for bench in benches] == [[]] * SESSIONS


def asking(bench: Bench) -> AbstractContextManager[Running]:
    """Start a session with a question that is answered once it is released."""
    question = f"HOLD: {bench.name}\nSAY: answer to {bench.name}"
    return running((str(CLI), "start", bench.name, "--yes", "--print", question), bench.environ)
