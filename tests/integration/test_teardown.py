"""Signals: whenever one comes, the session ends with 128+n and nothing is left (the fixture looks)."""

import signal

import pytest

from tests.support.sessions import Bench


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_signal_while_claude_runs(bench: Bench, number: signal.Signals) -> None:
    with bench.running("--yes", "--print", f"HOLD: {bench.name}") as run:
        bench.held()
        run.process.send_signal(number)
        ended = run.end()
    assert (ended.code, ended.out) == (128 + number, b""), ended


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


def test_what_cannot_be_removed_is_told_the_rest_removed_and_another_try_made(bench: Bench) -> None:
    """The docker of this test fails to remove the network once, and again when the test has looked."""
    bench.puppet("hello")
    failed, go = bench.folder / "failed", bench.folder / "go"
    path = bench.wrap(
        f'"network rm"*) mkdir {failed} 2> /dev/null && {{ echo no such luck >&2; exit 1; }}\n'
        f"until [ -e {go} ]; do sleep 0.01; done;;"
    )
    ended = bench.start("--yes", PATH=path)
    left = bench.objects()
    go.touch()
    assert ended.code == 75, ended
    assert "claude-bottle: left behind: network (no such luck)" in ended.err
    assert [one.partition(" ")[0] for one in left] == ["network"]
    bench.await_nothing()
