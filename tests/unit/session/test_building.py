"""What is seen of a build, with a shell in the place of docker."""

import os

import pytest

from claude_bottle.process import command
from claude_bottle.session import building
from claude_bottle.session.building import Build, Shown, printable

SAID = "echo one; echo two >&2; printf three"


def run(build: Build, script: str = SAID) -> int:
    return build.run(command.start(("sh", "-c", script), os.environ, mixed=True), b"").returncode


def test_all_of_it_is_printed_in_order_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Build("image", Shown.ALL), f"{SAID}; exit 3") == 3
    assert capsys.readouterr() == ("", "one\ntwo\nthree\n")


def test_nothing_is_printed_until_it_is_to_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    build = Build("image", Shown.NOTHING)
    run(build)
    assert capsys.readouterr() == ("", "")
    build.tell()
    build.tell()
    assert capsys.readouterr() == ("", "one\ntwo\nthree\n")


def test_what_was_printed_before_is_shown_with_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    build = Build("image", Shown.NOTHING)
    run(build)
    build.show(Shown.ALL)
    assert capsys.readouterr() == ("", "one\ntwo\n")


def test_only_the_end_of_much_output_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(building, "_MOST", 1 << 20)
    build = Build("image", Shown.NOTHING)
    run(build, "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end")
    build.tell()
    said = capsys.readouterr().err
    assert said.startswith("[only the last 1 MiB are kept]\nxxx")
    assert said.endswith("xxx\nend\n")
    assert len(said) == (1 << 20) + len("[only the last 1 MiB are kept]\n")


def test_stdin_is_passed_on_and_a_process_that_stays_does_not_hold_it_up(capsys: pytest.CaptureFixture[str]) -> None:
    build = Build("image", Shown.ALL)
    client = command.start(("sh", "-c", "cat; sleep 1000 & echo $!"), os.environ, mixed=True)
    assert build.run(client, b"given\n").ok
    given, pid = capsys.readouterr().err.split()
    os.kill(int(pid), 9)
    assert given == "given"


def test_output_cannot_move_the_cursor() -> None:
    assert printable(b"a\tb\x1b[2J\r\n50%\r100%\n\xff") == "a\tb\\x1b[2J\n50%\n100%\n\ufffd"
