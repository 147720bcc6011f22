"""What a step is given, and when, with real programs in the place of docker's clients."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from claude_bottle.cleanup.stack import Teardown
from claude_bottle.errors import LeftBehindError
from claude_bottle.session.runner import Runner, StepError
from claude_bottle.session.steps import Kind, Quote, Step

QUOTE = Quote("quoted", before="<", after=">\n")


def shell(name: str, text: str, kind: Kind = Kind.COMMAND) -> Step:
    return Step(name, ("sh", "-c", text), kind, undo=("true",))


@pytest.fixture
def runner() -> Iterator[Runner]:
    with Teardown() as undo:
        yield Runner(undo, os.environ, lambda _: None)


def quoting(text: str, kind: Kind = Kind.COMMAND, after: tuple[str, ...] = ("quoted",)) -> Step:
    return Step("quoting", ("sh", "-c", text), kind, stdin=b"first", quote=QUOTE, quote_after=after, undo=("true",))


@pytest.mark.parametrize("kind", [Kind.COMMAND, Kind.UNTIL_READY])
def test_only_the_quote_waits_for_what_is_quoted(runner: Runner, tmp_path: Path, kind: Kind) -> None:
    """What is quoted is printed once the other one has read the rest."""
    os.mkfifo(tmp_path / "read")
    quoted = shell("quoted", f"read -r it < {tmp_path}/read; echo up $it", Kind.UNTIL_READY)
    results = runner.run((quoted, quoting(f"head -c 5 > {tmp_path}/read; read -r line; echo $line", kind)))
    assert results["quoting"].stdout == b"<first>\n"


def test_the_quote_waits_for_all_that_it_is_to_wait_for(runner: Runner, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "read")
    quoted = shell("quoted", "echo up QQ==", Kind.UNTIL_READY)
    slow = shell("slow", f"cat {tmp_path}/read; echo > {tmp_path}/ended")
    text = f"head -c 5 > {tmp_path}/read; cat; test -e {tmp_path}/ended"
    results = runner.run((quoted, slow, quoting(text, after=("quoted", "slow"))))
    assert results["quoting"].stdout == b"<QQ==>\n"


def test_what_is_no_base64_is_not_quoted(runner: Runner) -> None:
    quoted = shell("quoted", "echo 'up a;b'", Kind.UNTIL_READY)
    assert runner.run((quoted, quoting("cat")))["quoting"].stdout == b"first<>\n"


def test_one_that_waits_for_its_quote_is_ended_if_another_fails(runner: Runner, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "read")
    quoted = shell("quoted", f"cat {tmp_path}/read >&2; exit 1", Kind.UNTIL_READY)
    with pytest.raises(StepError, match="quoted"):
        runner.run((quoted, quoting(f"head -c 5 > {tmp_path}/read; cat; echo > {tmp_path}/went-on")))
    assert not (tmp_path / "went-on").exists()


def test_one_that_ends_beside_another_does_not_wait_for_it_to_end(tmp_path: Path) -> None:
    """The first to be undone ends once the stdin of the other has ended."""
    os.mkfifo(tmp_path / "ended")
    other = shell("other", f"echo up; cat; echo > {tmp_path}/ended", Kind.LONG_RUNNING)
    first = shell("first", f"echo up; cat; cat {tmp_path}/ended; echo > {tmp_path}/seen", Kind.LONG_RUNNING)
    with Teardown() as undo:
        Runner(undo, os.environ, lambda _: None).run((other, replace(first, ends_beside="other")))
    assert (tmp_path / "seen").exists()


def undone(name: str, text: str, beside: str = "") -> Step:
    return Step(name, ("true",), undo=("sh", "-c", text), undone_beside=beside)


def test_one_that_is_undone_beside_another_is_undone_once_and_before_what_comes_later(tmp_path: Path) -> None:
    """The two wait for each other."""
    log, here, there = tmp_path / "log", tmp_path / "here", tmp_path / "there"
    for fifo in (here, there):
        os.mkfifo(fifo)
    steps = (
        undone("network", f"echo network >> {log}"),
        undone("sidecar", f"echo > {here}; cat {there}; echo sidecar >> {log}"),
        undone("gate", f"cat {here}; echo > {there}", "sidecar"),
    )
    with Teardown() as undo:
        Runner(undo, os.environ, lambda _: None).run(steps)
    assert log.read_text().splitlines() == ["sidecar", "network"]


def test_an_undo_beside_another_that_fails_is_reported_as_its_own(tmp_path: Path) -> None:
    steps = (
        undone("network", f"echo > {tmp_path}/gone"),
        undone("sidecar", "echo 'Error response from daemon: odd' >&2; exit 1"),
        undone("gate", "true", "sidecar"),
    )
    undo = Teardown()
    with pytest.raises(LeftBehindError, match=r"left behind: sidecar \(.*odd\); remove"), undo:
        Runner(undo, os.environ, lambda _: None).run(steps)
    assert (tmp_path / "gone").exists()


def test_without_a_thread_each_undo_waits_for_its_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    steps = (
        undone("sidecar", f"echo sidecar >> {log}"),
        undone("gate", f"echo gate >> {log}", "sidecar"),
    )

    def refuse(_: object) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    with Teardown() as undo:
        Runner(undo, os.environ, lambda _: None).run(steps)
        monkeypatch.setattr("threading.Thread.start", refuse)
    assert log.read_text().splitlines() == ["gate", "sidecar"]


def test_nothing_is_undone_beside_another_that_was_not_made(tmp_path: Path) -> None:
    with Teardown() as undo:
        Runner(undo, os.environ, lambda _: None).run([undone("gate", f"echo > {tmp_path}/gone", "sidecar")])
    assert (tmp_path / "gone").exists()
