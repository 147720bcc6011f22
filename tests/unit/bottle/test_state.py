"""What an agent does: the hooks that write it, and the reading of a file in which the agent can put anything."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from claude_bottle.bottle import home, state
from claude_bottle.bottle.state import Usage
from claude_bottle.process import container


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The state's file as it is staged, in a home of the test's own."""
    path = tmp_path / state.FILE
    path.parent.mkdir()
    path.write_bytes(state.first())
    return path


def here(script: str, folder: Path) -> str:
    return script.replace(container.HOME, str(folder))


def asked(folder: Path, *, usage: bool = False) -> bytes:
    """Return what the query says, run on this machine."""
    script = here(state.query("x", usage=usage)[-1], folder)
    return subprocess.run(
        ("/bin/bash", "-c", script), stdin=subprocess.DEVNULL, capture_output=True, check=False
    ).stdout


def events(*, idle: bool = False) -> dict[str, str]:
    """Return the command of each hook."""
    found: dict[str, list[dict[str, list[dict[str, str]]]]] = dict(state.hooks(idle=idle))  # type: ignore[arg-type]
    return {event: matched[0]["hooks"][0]["command"] for event, matched in found.items()}


def test_the_file_is_in_our_folder() -> None:
    assert state.FILE.startswith(f"{home.FOLDER}/")


def test_each_event_writes_its_word(file: Path, tmp_path: Path) -> None:
    assert state.word(asked(tmp_path)) == "starting"
    seen = {}
    for event, command in events(idle=True).items():
        done = subprocess.run(("sh", "-c", here(command, tmp_path)), capture_output=True, check=True)
        assert done.stdout + done.stderr == b""
        seen[event] = state.word(asked(tmp_path))
    working = {"UserPromptSubmit", "PreToolUse", "PostToolUse", "ElicitationResult"}
    assert {event for event, word in seen.items() if word == "working"} == working
    assert {word for event, word in seen.items() if event not in working} == {"waits"}
    assert file.stat().st_size == len(state.first())


def test_only_a_session_without_a_prompt_begins_by_waiting() -> None:
    assert events(idle=True).keys() - events().keys() == {"SessionStart"}


def fifo(path: Path) -> None:
    os.mkfifo(path)


def zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link(path: Path) -> None:
    path.with_name("other").write_text("waits   ")
    path.symlink_to("other")


def huge(path: Path) -> None:
    with path.open("wb") as opened:
        opened.truncate(10 << 30)


def rubbish(path: Path) -> None:
    path.write_bytes(b"\x1b]0;x\x07\xffwaits\n" * 1000)


def longer(path: Path) -> None:
    path.write_text("waitsforever")


HOSTILE = [Path.mkdir, fifo, zeros, link, huge, rubbish, longer, lambda path: None]


@pytest.mark.parametrize("make", HOSTILE, ids=["folder", "fifo", "zeros", "link", "huge", "rubbish", "longer", "none"])
def test_whatever_the_file_is_reading_ends_and_the_word_is_unknown(
    file: Path, tmp_path: Path, make: Callable[[Path], object]
) -> None:
    file.unlink()
    make(file)
    said = asked(tmp_path)
    assert (state.word(said), len(said) <= 8) == ("?", True)
    # Nor does a hook hold Claude up or fail, which could forbid what it is about.
    for command in (events()["Stop"], events()["PreToolUse"]):
        done = subprocess.run(("sh", "-c", here(command, tmp_path)), capture_output=True, check=False, timeout=60)
        assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_before_the_home_is_filled_a_session_starts(tmp_path: Path) -> None:
    assert state.word(asked(tmp_path)) == "starting"


@pytest.mark.parametrize(
    ("said", "word"),
    [
        (b"waits   ", "waits"), (b"working ", "working"), (b"starting", "starting"), (b"waits\n", "waits"),
        (b"", "?"), (b" waits", "?"), (b"WAITS   ", "?"), (b"waits\0\0\0", "?"), (b"\xff\xfe", "?"), (b"?", "?"),
        (b"\x1b[2J\x1b[H", "?"),
    ],
)  # fmt: skip
def test_only_a_known_word_counts(said: bytes, word: str) -> None:
    assert state.word(said) == word


def test_the_usage_comes_from_the_kernel(file: Path, tmp_path: Path) -> None:
    """Of this machine's own cgroup, where there is one; a word that has more to say gives none."""
    assert file.exists()
    root = tmp_path / "cgroup"
    root.mkdir()
    (root / "cpu.stat").write_text("usage_usec 5\nuser_usec 3\n")
    (root / "memory.current").write_text("3145728\n")
    (root / "memory.stat").write_text("anon 9\ninactive_file 1048576\n")
    assert usage_of(root, tmp_path) == Usage(0.0, 2 << 20)
    (root / "cpu.stat").unlink()
    for name, text in (("cpuacct/cpuacct.usage", "7\n"), ("memory/memory.usage_in_bytes", "4096\n")):
        (root / name).parent.mkdir()
        (root / name).write_text(text)
    (root / "memory.current").unlink()
    (root / "memory.stat").unlink()
    (root / "memory/memory.stat").write_text("inactive_file 1\ntotal_inactive_file 96\n")
    assert usage_of(root, tmp_path) == Usage(0.0, 4000)


def usage_of(root: Path, folder: Path) -> Usage | None:
    script = here(state.query("x", usage=True)[-1], folder).replace("/sys/fs/cgroup", str(root))
    return state.usage(subprocess.run(("/bin/bash", "-c", script), capture_output=True, check=True).stdout)


@pytest.mark.parametrize(
    ("said", "usage"),
    [
        (b"waits   \n10.000000 1000000000\n10.250000 1125000000\n5000\n1000\n", Usage(50.0, 4000)),
        (b"waits   \n10.000000 5\n10.250000 4\n1000\n5000\n", Usage(0.0, 0)),
        (b"waits   \n10.250000 5\n10.000000 6\n1000\n500\n", None),
        (b"waits   \n10.000000 5\n10.250000 6\n\n\n", None),
        (b"waits   ", None),
        (b"waits   \n10.000000 5\n10.250000 6\n9999999999999999999999\n5\n", None),
        (b"waits   \n10.000000 5\n10.250000 6\n5\n5\nmore\n", None),
    ],
)
def test_a_usage_that_is_none_is_nothing(said: bytes, usage: Usage | None) -> None:
    assert state.usage(said) == usage
