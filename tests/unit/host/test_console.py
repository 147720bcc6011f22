"""The console: what is printed where, also if nobody reads it any more, and what counts as a yes."""

import io
import os
import subprocess
import sys

import pexpect
import pytest

from claude_bottle.host import console
from tests.support import systems
from tests.support.scene import ROOT

START = "import sys\nfrom claude_bottle.host import console\n"


class Gone(io.StringIO):
    """A stream whose reader has gone."""

    def write(self, _: str) -> int:
        raise BrokenPipeError


def run(program: str, *, stdout: int = subprocess.PIPE, closed: int | None = None) -> tuple[int, str, str]:
    """Run a program that uses the console; `closed` is a descriptor that it starts without."""
    shell = ("sh", "-c", f'exec "$@" {closed}>&-', "sh") if closed is not None else ()
    done = subprocess.run(
        (*shell, sys.executable, "-c", START + program), cwd=ROOT, check=False, text=True,
        stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE,
    )  # fmt: skip
    return done.returncode, done.stdout or "", done.stderr


def full() -> int:
    """Return a descriptor of a disk that is always full."""
    return os.open(systems.full(), os.O_WRONLY)


def test_results_go_to_stdout_and_all_else_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    console.output("data")
    console.report("done\n")
    console.output("")
    console.say("a message")
    console.show("two\nlines")
    assert capsys.readouterr() == ("data\ndone\n", "claude-bottle: a message\ntwo\nlines\n")


@pytest.mark.parametrize("stream", [Gone(), None], ids=["gone", "closed at the start"])
def test_a_stream_that_has_gone_is_no_failure(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None) -> None:
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setattr("sys.stderr", stream)
    console.say("a message")
    console.show("a text")
    console.report("done")
    progress = console.Progress("clone")
    progress.say("a message")
    progress.close()


def test_a_stream_that_was_closed_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr("sys.stderr", closed)
    console.say("a message")
    console.Progress("clone").close()


def test_a_result_that_nobody_gets_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", Gone())
    with pytest.raises(BrokenPipeError):
        console.output("data")


def test_a_report_that_cannot_be_written_leaves_the_exit_code_as_it_is() -> None:
    descriptor = full()
    try:
        assert run("console.report('x')\nconsole.report('y')\nsys.exit(7)", stdout=descriptor) == (7, "", "")
        code, _, err = run("console.output('x')\nsys.exit(0)", stdout=descriptor)
        assert code != 0
        assert "No space left on device" in err
    finally:
        os.close(descriptor)


def test_a_message_never_ends_up_among_the_results() -> None:
    assert run("console.say('x')\nconsole.show('y')\nprint(console.ask('z'))", closed=2) == (0, "False\n", "")
    assert run("console.output('x')\nconsole.say('y')", closed=1) == (0, "", "claude-bottle: y\n")


@pytest.mark.parametrize(
    ("typed", "yes"),
    [(b"y\n", True), (b" YES \n", True), (b"\n", False), (b"", False), (b"yep\n", False), (b"\xff", False)],
)
def test_only_a_yes_is_a_yes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: bytes, yes: bool
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(typed)))
    assert console.ask("Go on?") == yes
    assert capsys.readouterr() == ("", "Go on? [y/N] ")


@pytest.mark.parametrize(
    ("typed", "chosen"),
    [
        (b"1\n", 0),
        (b" 2 \n", 1),
        (b"0\n", None),
        (b"3\n", None),
        (b"\n", None),
        (b"", None),
        (b"01\n", None),
        (b"\xb2\n", None),
    ],
)
def test_only_the_number_of_a_choice_chooses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: bytes, chosen: int | None
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(typed)))
    assert console.choose("Which?", ["one", "two"]) == chosen
    assert capsys.readouterr() == ("", "Which?\n  1  one\n  2  two\n[1-2] ")


def test_a_choice_that_nobody_sees_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"1\n")))
    monkeypatch.setattr("sys.stderr", Gone())
    assert console.choose("Which?", ["one"]) is None
    monkeypatch.setattr("sys.stdin", None)
    assert console.choose("Which?", ["one"]) is None


def test_a_question_that_nobody_sees_has_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"y\n")))
    monkeypatch.setattr("sys.stderr", Gone())
    assert not console.ask("Go on?")


def test_without_stdin_the_answer_is_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert not console.ask("Go on?")


def test_progress_is_shown_once_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = console.Progress("quick")
    quick.tick()
    quick.close()
    monkeypatch.setattr(console, "_TICK", 0.0)
    for what in ("clone", ""):
        progress = console.Progress(what)
        progress.tick()
        progress.tick()
        progress.close()
    progress = console.Progress("fetch")
    progress.say("Ctrl-C again gives it up")
    assert capsys.readouterr() == ("", "claude-bottle: clone ...\nclaude-bottle: fetch: Ctrl-C again gives it up\n")


@pytest.mark.parametrize(("columns", "width"), [(200, 80), (40, 40), (0, 80)])
def test_progress_is_one_line_of_a_terminal(columns: int, width: int) -> None:
    program = """
console._TICK = 0.0
progress = console.Progress("w" * 100)
progress.tick()
progress.tick()
progress.say("over")
"""
    words = ["-c", START + program]
    child: pexpect.spawn[bytes] = pexpect.spawn(sys.executable, words, cwd=str(ROOT), dimensions=(24, columns))
    child.expect(pexpect.EOF)
    child.close()
    line = b"\r" + f"claude-bottle: {'w' * 100}".encode()[: width - 1] + b"\x1b[K"
    assert child.before == line * 2 + b"\r\x1b[K" + b"claude-bottle: " + b"w" * 100 + b": over\r\n"


def test_of_several_at_once_the_first_has_the_line() -> None:
    program = """
console._TICK = 0.0
first, second = console.Progress("first"), console.Progress("second")
first.detail = "step 1/2"
for each in (first, second, first):
    each.tick()
second.close()
first.tick()
first.close()
"""
    words = ["-c", START + program]
    child: pexpect.spawn[bytes] = pexpect.spawn(sys.executable, words, cwd=str(ROOT), dimensions=(24, 80))
    child.expect(pexpect.EOF)
    child.close()
    assert child.before == b"\rclaude-bottle: first: 0 s, step 1/2\x1b[K" * 3 + b"\r\x1b[K"


def test_a_files_content_does_nothing_to_a_terminal_and_passes_a_pipe_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    data = b"\x1b[31mred\tcell\xff\nlast"
    console.emit(data)
    assert capfdbinary.readouterr().out == data
    monkeypatch.setattr(console, "_is_terminal", lambda _: True)
    console.emit(data)
    assert capfdbinary.readouterr().out == b"\\x1b[31mred\tcell\\xff\nlast\n"
