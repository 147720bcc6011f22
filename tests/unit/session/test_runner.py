"""What a step is given, and when, with real programs in the place of docker's clients."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from claude_bottle.cleanup.stack import Teardown
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
