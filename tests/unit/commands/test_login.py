"""`login` and `logout` with a fake docker: what is asked and printed, what is started, and what later starts find."""

import json
import sys

import pexpect
import pytest

from claude_bottle.host.machine import TOKEN_VARIABLE
from tests.support.keychains import Standin
from tests.support.scene import NAME, PATCHED, ROOT, TRUSTING, USUAL, Scene

TOKEN = f"sk-ant-oat01-{'a_-Z9' * 19}"
OTHER = f"sk-ant-oat01-{'b_-Y8' * 19}"
PROGRAM = "claude setup-token"
PAGE = f"Your OAuth token:\r\n\r\n{TOKEN}\r\n\r\nStore it.\r\n"
NONE = {TOKEN_VARIABLE: ""}


@pytest.fixture
def keychain(scene: Scene) -> Standin:
    """A keychain's program on PATH; the environment has no token."""
    made = Standin.make(scene.folder / "keychain", "secret-tool")
    scene.environ |= {"PATH": f"{scene.environ['PATH']}:{made.folder}", **NONE}
    return made


def login(scene: Scene, answer: str, script: str = 'exec "$@"', **environ: str) -> tuple[int, str]:
    """Run `login` by a shell's script on a terminal of 80 columns; return its exit code and all that was shown."""
    command = ["-c", script, "sh", sys.executable, str(PATCHED), json.dumps(TRUSTING), "login"]
    child = pexpect.spawn(
        "/bin/sh", command, env=scene.environ | environ, cwd=str(ROOT), encoding="utf-8", timeout=300,
        dimensions=(24, 80),
    )  # fmt: skip
    child.expect_exact("] ")
    shown = str(child.before)
    child.send(answer)
    shown += child.read()
    child.close()
    scene.pids.add(int(child.pid or 0))
    assert "Traceback" not in shown, shown
    assert list(scene.tmp.iterdir()) == []
    return int(child.exitstatus or 0), shown.replace("\r\n", "\n")


def test_login_asks_where_runs_setup_token_and_keeps_what_it_shows(scene: Scene, keychain: Standin) -> None:
    scene.rule(PROGRAM, stdout=PAGE)
    code, shown = login(scene, "1\r")
    assert code == 0
    places = shown.partition("Keep the token in\n")[2].splitlines()[:2]
    assert places[0] == "  1  the Secret Service (GNOME Keyring, KWallet)"
    assert places[1].startswith("  2  the file ")
    assert "signing in, in the only bottle that ever holds a credential" in shown
    assert shown.endswith("signed in; the token is in the Secret Service (GNOME Keyring, KWallet)\n")
    assert keychain.secret == TOKEN
    assert scene.undone == [(*undo[:-1], undo[-1].replace("demo-", "login-")) for undo in USUAL]
    [ran] = [event for event in scene.log if event.starts(PROGRAM)]
    assert ran.argv[-2:] == ("claude", "setup-token")
    assert "CLAUDE_CODE_OAUTH_TOKEN" not in ran.argv


def test_no_token_goes_into_the_bottle_of_a_login_or_to_its_clients(scene: Scene) -> None:
    scene.rule(PROGRAM, stdout=PAGE)
    code, shown = login(scene, "1\r", CLAUDE_BOTTLE_OAUTH_TOKEN=OTHER)
    assert (code, OTHER in json.dumps([event.more for event in scene.log])) == (0, False)
    assert shown.endswith(f"but {TOKEN_VARIABLE} is set, and comes first\n")


def test_a_start_finds_the_token_of_a_login_and_nobody_else_looks(scene: Scene, keychain: Standin) -> None:
    scene.rule(PROGRAM, stdout=PAGE)
    assert login(scene, "1\r")[0] == 0
    before = len(keychain.calls)
    assert scene.run("doctor")[1].splitlines()[0].split()[:2] == ["ok", "token"]
    for words in (("start", "demo", "--dry-run"), ("start", "demo"), ("check",), ("agents",), ("verify", "demo")):
        assert scene.run(*words)[0] in (0, 65)
    assert scene.run("start", "demo", "--yes", CLAUDE_BOTTLE_OAUTH_TOKEN=OTHER)[0] == 0
    assert len(keychain.calls) == before
    code, _, err = scene.run("start", "demo", "--yes")
    assert (code, "signs   api.anthropic.com (from login)" in err) == (0, True)
    assert len(keychain.calls) == before + 1
    assert [event for event in scene.log if TOKEN in json.dumps([event.argv, event.more])] == []


def test_logout_is_one_line_each_time(scene: Scene, keychain: Standin) -> None:
    scene.rule(PROGRAM, stdout=PAGE)
    assert scene.run("logout") == (0, "no token is kept; nothing changed\n", "")
    login(scene, "1\r")
    code, out, err = scene.run("logout")
    assert (code, out.count("\n"), err, keychain.secret) == (0, 1, "", None)
    assert out.startswith("removed the token from the Secret Service")
    assert scene.run("logout") == (0, "no token is kept; nothing changed\n", "")
    code, _, err = scene.run("start", "demo", "--yes")
    assert (code, "run `./cli.py login`" in err) == (78, True)


@pytest.mark.parametrize("answer", ["\r", "3\r", "\x04", "\x03"])
def test_without_a_choice_nothing_is_started(scene: Scene, answer: str) -> None:
    code, _ = login(scene, answer)
    assert (code, scene.log) == (130 if answer == "\x03" else 65, [])


def test_the_token_never_goes_to_a_file_for_stdout(scene: Scene) -> None:
    scene.rule(PROGRAM, stdout=PAGE)
    code, shown = login(scene, "1\r", f'exec "$@" > {scene.folder}/out')
    assert (code, (scene.folder / "out").read_text().startswith("signed in; ")) == (0, True)
    assert TOKEN not in (scene.folder / "out").read_text()
    assert TOKEN in shown.replace("\n", "")


def test_a_keychain_that_cannot_be_used_is_known_before_there_is_a_token(scene: Scene, keychain: Standin) -> None:
    keychain.turn("broken")
    code, shown = login(scene, "1\r")
    assert (code, scene.log) == (78, [])
    assert "the Secret Service (GNOME Keyring, KWallet) cannot be used: secret-tool: " in shown


def test_a_token_that_cannot_be_kept_is_not_lost(scene: Scene) -> None:
    made = Standin.make(scene.folder / "keychain", "security")
    made.turn("full")
    scene.rule(PROGRAM, stdout=PAGE)
    code, shown = login(scene, "1\r", PATH=f"{scene.environ['PATH']}:{made.folder}")
    assert (code, made.secret) == (78, None)
    assert shown.endswith(f"has not kept the token; the token above is valid: export {TOKEN_VARIABLE}=<the token>\n")


@pytest.mark.parametrize(("page", "claude"), [("Sign-in failed\r\n", 3), ("", 0), (f"{TOKEN[:30]}...\r\n", 0)])
def test_without_a_token_none_is_kept(scene: Scene, page: str, claude: int) -> None:
    scene.rule(PROGRAM, stdout=page, code=claude)
    code, shown = login(scene, "1\r")
    assert (code, shown.splitlines()[-1]) == (78, "claude-bottle: not signed in: claude has shown no token")
    assert not [path for path in (scene.folder / ".local").rglob("*") if path.name in ("token", "login")]


def test_a_second_login_replaces_the_first(scene: Scene, keychain: Standin) -> None:
    for token, answer in ((TOKEN, "1\r"), (OTHER, "2\r")):
        scene._rules.clear()
        scene.rule(PROGRAM, stdout=PAGE.replace(TOKEN, token))
        assert login(scene, answer)[0] == 0
    assert keychain.secret is None
    assert (scene.folder / ".local/state/claude-bottle/token").read_text() == f"{OTHER}\n"


def test_a_login_is_a_session_as_any_other(scene: Scene) -> None:
    """The same commands but the last one's program, and no setting of a manifest."""
    scene.rule(PROGRAM, stdout=PAGE)
    assert login(scene, "1\r")[0] == 0
    assert scene.run("start", "demo", "--yes", CLAUDE_BOTTLE_OAUTH_TOKEN=TOKEN)[0] == 0
    ran = [" ".join(event.argv) for event in scene.log if event.kind == "start"]
    [same] = [line for line in ran if line.startswith(f"docker run --name {NAME} ")]
    [own] = [line for line in ran if line.startswith(f"docker run --name {NAME.replace('demo', 'login')} ")]
    assert len(own.split()) == len(same.split())
