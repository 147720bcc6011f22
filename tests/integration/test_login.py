"""Signing in, on the real engine; the sign-in page itself cannot be played without Anthropic.

So a puppet shows a token where claude would, and the real `claude setup-token` gets as far as its URL.
"""

import os
import re
import secrets
import signal
from pathlib import Path

import pytest

from claude_bottle.host.machine import Machine
from claude_bottle.process.liveness import this_process
from claude_bottle.session import planning
from tests.support.keychains import Standin
from tests.support.sessions import CLI, PUPPET, Bench, Terminal, docker

PROMPT, PAGE, URL = "Keep the token in", "Paste code here", "https://claude.ai/oauth/authorize?"
VARIABLE = "CLAUDE_BOTTLE_OAUTH_TOKEN"


def base(**environ: str) -> str:
    """Return the tag of the base image that sessions with these settings have."""
    machine = Machine(environ, Path.home(), interactive=False, owner=this_process())
    return planning.images(machine)[0].tag


@pytest.fixture
def puppet(bench: Bench) -> str:
    """A setting with which the base image's claude is the puppet; the test's environment has no token."""
    bench.environ[VARIABLE] = ""
    setting = "puppet:base"  # its image is on the engine already, so that nothing is built on this one
    argument = f"BASE_IMAGE={base(**bench.environ)}"
    docker("build", "--build-arg", argument, "--tag", base(CLAUDE_BOTTLE_BASE_IMAGE=setting), str(PUPPET))
    return setting


def session(terminal: Terminal) -> str:
    """Return the session's id."""
    found = re.search(rb"session (login-[0-9a-f]{8})", terminal.raw)
    assert found
    return found[1].decode()


def code() -> str:
    """Return what makes a token that has the length of a real one."""
    return secrets.token_urlsafe(95)[:95]


def sign_in(terminal: Terminal, answer: bytes, typed: str) -> str:
    """Choose a place and type a code; return the session's id."""
    terminal.resize(33, 80)
    terminal.until(PROMPT)
    terminal.type(answer + b"\r")
    terminal.until(PAGE)
    found = session(terminal)
    terminal.type(f"{typed}\r".encode())
    return found


@pytest.mark.parametrize(("name", "title"), [("secret-tool", "the Secret Service"), ("security", "the macOS keychain")])
def test_login_then_start_then_logout(bench: Bench, puppet: str, name: str, title: str) -> None:
    keychain = Standin.make(bench.folder / "keychain", name)
    bench.environ["PATH"] = f"{keychain.folder}:{bench.environ['PATH']}"
    token = f"sk-ant-oat01-{(typed := code())}"
    with bench.on_terminal("login", CLAUDE_BOTTLE_BASE_IMAGE=puppet) as terminal:
        used = sign_in(terminal, b"1", typed)
        assert terminal.code() == 0, terminal.raw[-2000:]
    shown = terminal.raw.decode()
    assert token not in shown  # it was wrapped
    assert f"signed in; the token is in {title}" in shown
    assert (keychain.secret, bench.objects_of(used), list(bench.stage.iterdir())) == (token, [], [])

    assert bench.ask("SAY: yes") == "yes\n"
    assert bench.world.wait(token, lambda request: request.runs)
    assert [call for call in keychain.calls if token in " ".join(call.argv)] == []

    ended = [bench.run((str(CLI), "logout"), {}) for _ in range(2)]
    assert [one.code for one in ended] == [0, 0]
    assert ended[0].out.decode().startswith(f"removed the token from {title}")
    assert ended[1].out == b"no token is kept; nothing changed\n"
    assert keychain.secret is None
    assert [
        path for path in bench.folder.rglob("*") if path.is_file() and token in path.read_text(errors="replace")
    ] == [keychain.folder / "calls"]
    assert bench.start("--yes").code == 78


def test_only_a_start_queries_the_keychain(bench: Bench, puppet: str) -> None:
    keychain = Standin.make(bench.folder / "keychain", "secret-tool")
    bench.environ["PATH"] = f"{keychain.folder}:{bench.environ['PATH']}"
    with bench.on_terminal("login", CLAUDE_BOTTLE_BASE_IMAGE=puppet) as terminal:
        sign_in(terminal, b"1", code())
        assert terminal.code() == 0, terminal.raw[-2000:]
    before = keychain.calls
    for words in (("start", bench.name, "--dry-run"), ("check",), ("agents",), ("verify", bench.name), ("doctor",)):
        assert bench.run((str(CLI), *words), {}).code == 0, words
    assert bench.start("--yes", "--print", "SAY: yes", **{VARIABLE: bench.token}).code == 0
    assert keychain.calls == before


def test_the_bottle_of_a_login_has_nothing_of_the_users(bench: Bench, puppet: str) -> None:
    (bench.folder / "gitconfig").write_text("[user]\n\tname = Ada\n\temail = ada@example.org\n")
    bench.environ |= {"GIT_CONFIG_GLOBAL": str(bench.folder / "gitconfig"), VARIABLE: bench.token}
    with bench.on_terminal("login", CLAUDE_BOTTLE_BASE_IMAGE=puppet) as terminal:
        terminal.until(PROMPT)
        terminal.type(b"1\r")
        terminal.until(PAGE)
        bottle = f"claude-bottle-{session(terminal)}"
        asked = "find ~ /work -type f; cat /proc/$(pgrep --exact claude)/environ"
        inside = docker("exec", "--user", "agent", bottle, "bash", "-c", asked)
        terminal.type(code().encode() + b"\r")
        assert terminal.code() == 0, terminal.raw[-2000:]
    assert ".claude.json" in inside
    assert "PATH=" in inside
    assert not {word for word in ("skills", "prompt", "gitconfig", "OAUTH", bench.token) if word in inside}, inside
    assert f"but {VARIABLE} is set, and comes first" in terminal.raw.decode()


def test_a_login_that_shows_no_token_keeps_none_and_leaves_nothing(bench: Bench, puppet: str) -> None:
    with bench.on_terminal("login", CLAUDE_BOTTLE_BASE_IMAGE=puppet) as terminal:
        used = sign_in(terminal, b"1", "no")
        assert terminal.code() == 78
    assert "not signed in: claude has shown no token" in terminal.raw.decode()
    assert (bench.objects_of(used), list(bench.stage.iterdir())) == ([], [])
    assert not (bench.folder / "state" / "claude-bottle" / "token").exists()


@pytest.mark.parametrize("answer", [b"", b"0", b"9", b"x"])
def test_without_a_choice_nothing_starts(bench: Bench, answer: bytes) -> None:
    with bench.on_terminal("login") as terminal:
        terminal.until(PROMPT)
        terminal.type(answer + b"\r")
        assert terminal.code() == 65
    assert b"session" not in terminal.raw


def test_a_signal_ends_a_login(bench: Bench, puppet: str) -> None:
    with bench.on_terminal("login", CLAUDE_BOTTLE_BASE_IMAGE=puppet) as terminal:
        terminal.until(PROMPT)
        terminal.type(b"1\r")
        terminal.until(PAGE)
        os.kill(terminal.launcher(), signal.SIGTERM)
        assert terminal.code() == 128 + signal.SIGTERM
    assert bench.objects_of(session(terminal)) == []


def test_without_a_terminal_there_is_no_login(bench: Bench) -> None:
    ended = bench.run((str(CLI), "login"), {})
    assert (ended.code, ended.err) == (65, "claude-bottle: cannot sign in: stdin is not a terminal\n")


def test_the_real_one_shows_its_url_without_a_browser_and_ctrl_c_ends_it(bench: Bench) -> None:
    bench.environ[VARIABLE] = ""
    with bench.on_terminal("login") as terminal:
        terminal.until(PROMPT)
        terminal.type(b"1\r")
        terminal.until(URL)
        used = session(terminal)
        terminal.type(b"\x03")
        assert terminal.code() == 78
    assert bench.objects_of(used) == []
