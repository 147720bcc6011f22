"""The search for tokens: what it finds where, and that nothing holds it up."""

import hmac
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from claude_bottle.bottle.plan import Plan
from claude_bottle.host.machine import TOKEN_SHAPE
from claude_bottle.selftest import probe, receipt, search
from tests.support import plans, systems

KEY = "0123"
TOKEN = f"sk-ant-oat01-{secrets.token_hex(16)}"  # no other test's, whose processes are seen here as well


def digest(token: str) -> str:
    """Return a token's digest under KEY."""
    return hmac.new(bytes.fromhex(KEY), token.encode(), "sha1").hexdigest()


def searched(root: Path) -> set[object]:
    """Return what is found below a folder that stands for the bottle's; all of it was searched."""
    found = search.search(TOKEN_SHAPE, KEY, str(root))
    assert found["whole"] is True
    digests = found["digests"]
    assert isinstance(digests, list)
    return set(digests)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of a bottle's files."""
    for name in ("etc", "home/agent/.claude", "var/tmp", "work", "usr"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("place", ["etc/x", "home/agent/.claude/.x", "var/tmp/x", "work/x"])
@pytest.mark.parametrize("text", ["{}", 'A="{}"\n', "Bearer {}", "x\0{}\0y", "\\n{}"])
def test_a_token_in_a_file_is_found(root: Path, place: str, text: str) -> None:
    assert digest(TOKEN) not in searched(root)
    (root / place).write_text(text.format(TOKEN))
    assert digest(TOKEN) in searched(root)


def test_a_token_elsewhere_is_not_searched_for(root: Path) -> None:
    (root / "usr/x").write_text(TOKEN)
    assert digest(TOKEN) not in searched(root)


@systems.needs_linux("/proc")
@pytest.mark.parametrize("given", ["argument", "variable"])
def test_a_token_of_a_process_is_found(root: Path, given: str) -> None:
    word, env = (TOKEN, {}) if given == "argument" else ("", {"X": f"a {TOKEN}"})
    argv = (sys.executable, "-c", "print(flush=True); input()", word)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert digest(TOKEN) in searched(root)
        process.communicate(b"\n")
    assert digest(TOKEN) not in searched(root)


def test_nothing_but_files_is_opened(root: Path) -> None:
    """Opening a pipe would wait for a writer; a link would lead out of the bottle, or in a circle."""
    os.mkfifo(root / "etc/pipe")
    (root / "usr/x").write_text(TOKEN)
    (root / "etc/link").symlink_to(root / "usr/x")
    (root / "etc/folder").symlink_to(root / "usr")
    (root / "etc/self").symlink_to(".")
    assert digest(TOKEN) not in searched(root)


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(root: Path) -> None:
    """Between the look at a folder and the opening, one may have been put there."""
    os.mkfifo(root / "etc/pipe")
    with open(root / "etc/pipe", "rb", opener=search._without_waiting) as file:
        assert file.read() == b""


def test_what_cannot_be_read_is_left_out(root: Path) -> None:
    (root / "etc/b").write_text(TOKEN)
    deep = "home/agent/" + "x" * 200
    (root / deep).mkdir()
    (root / "etc/a").symlink_to("nowhere")
    assert digest(TOKEN) in searched(root)


def test_a_search_ends_in_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "etc/x").write_text(TOKEN)
    ticks = iter([0.0, 0.0, *[9.0] * 99])
    monkeypatch.setattr("time.monotonic", lambda: next(ticks))
    assert search.search(TOKEN_SHAPE, KEY, str(root)) == {"digests": [], "whole": False}


def test_a_search_that_finds_too_much_ends(root: Path) -> None:
    for name in ("a", "b"):
        (root / "etc" / name).write_text("".join(f"sk-ant-oat01-{name}-{number:08}\n" for number in range(1001)))
    found = search.search(TOKEN_SHAPE, KEY, str(root))
    assert found["whole"] is False


def test_the_program_of_the_agents_search_answers(plan: Plan) -> None:
    argv = (sys.executable, "-I", "-S", "-")
    done = subprocess.run(
        argv, input=receipt.search_program(plan), capture_output=True, check=True, env={"X": plans.TOKEN}
    )
    found = json.loads(done.stdout)
    assert found["whole"] in (True, False)  # this machine's own files may be many
    assert plan.signing.token in found["digests"]


def test_no_name_of_the_search_is_one_of_the_probes() -> None:
    """They are one program there."""
    own = {name for name, value in vars(search).items() if not name.startswith("__")}
    shared = {name for name in own & vars(probe).keys() if vars(search)[name] is vars(probe)[name]}
    assert own & vars(probe).keys() == shared
