"""Signals: whenever one comes, the session ends with 128+n and nothing is left (the fixture looks)."""

import signal

import pytest

from tests.engine.sessions import Bench


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_signal_while_claude_runs(bench: Bench, number: signal.Signals) -> None:
    with bench.running("--yes", "--print", f"HOLD: {bench.name}") as run:
        bench.held()
        run.process.send_signal(number)
        ended = run.end()
    assert (ended.code, ended.out) == (128 + number, b""), ended


@pytest.mark.parametrize("step", ["network ...", "bottle ...", "sidecar-config ...", "lock ...", "gate ", "fill "])
def test_signals_while_steps_run(bench: Bench, step: str) -> None:
    bench.puppet("stay")
    with bench.running("--yes", "-v") as run:
        run.until(step)
        run.process.send_signal(signal.SIGTERM)
        run.process.send_signal(signal.SIGINT)
        ended = run.end()
    assert (ended.code, ended.out) in [(128 + signal.SIGTERM, b""), (128 + signal.SIGINT, b"")], ended


def test_second_signal_does_not_cut_the_teardown_short(bench: Bench) -> None:
    """The docker of this test tells that it removes, and waits until the second signal was sent."""
    bench.puppet("stay")
    told, go = bench.folder / "told", bench.folder / "go"
    path = bench.wrap(f"rm*) touch {told}; until [ -e {go} ]; do sleep 0.01; done;;")
    with bench.running("--yes", PATH=path) as run:
        assert run.process.stdout
        assert run.process.stdout.read(9) == b"<staying>"
        run.process.send_signal(signal.SIGTERM)
        bench.await_file(told)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            run.process.send_signal(number)
        go.touch()
        assert run.end().code == 128 + signal.SIGTERM


def test_what_cannot_be_removed_is_told_and_the_rest_removed(bench: Bench) -> None:
    bench.puppet("hello")
    path = bench.wrap('"network rm"*) echo no such luck >&2; exit 1;;')
    ended = bench.start("--yes", PATH=path)
    left = bench.left()
    bench.remove_left()
    assert ended.code == 75, ended
    assert ended.err.splitlines()[-1].startswith("claude-bottle: left behind: network (no such luck)")
    assert [one.partition(" ")[0] for one in left] == ["network"]
