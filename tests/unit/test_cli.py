"""The command line as a user types it: stdout, stderr, exit code."""

import json
import re
import shlex
import sys
from contextlib import closing

import pexpect
import pytest

from claude_bottle import __version__, cli, errors
from claude_bottle.errors import BottleError, RefusedError, TokenError
from tests.support.clients import NO_ENGINE, RECORDED
from tests.support.scene import PATCHED, ROOT, TRUSTING, Scene
from tests.unit.bottle.test_key_holder import LOCKED, give


def test_help_shows_each_commands_whole_sentence_at_80_columns(scene: Scene) -> None:
    code, out, err = scene.run("--help", COLUMNS="80")
    assert (code, err, scene.log) == (0, "", [])
    listed = dict(line.split(maxsplit=1) for line in out.partition("Commands:\n")[2].splitlines())
    whole = {name: (command.help or "").partition("\n")[0] for name, command in cli.main.commands.items()}
    assert listed == whole
    assert all(sentence.endswith(".") for sentence in listed.values())
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("name", sorted(cli.main.commands))
def test_each_command_has_help_without_calling_docker(scene: Scene, name: str) -> None:
    code, out, err = scene.run(name, "--help", COLUMNS="200")
    assert (code, err, scene.log) == (0, "", [])
    assert out.startswith(f"Usage: cli.py {name} ")
    assert max(map(len, out.splitlines())) <= 80


def test_version(scene: Scene) -> None:
    assert scene.run("--version") == (0, f"claude-bottle {__version__}\n", "")
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def test_manifest_faults_are_reported_before_a_missing_token_or_docker(scene: Scene) -> None:
    code, out, err = scene.run("start", "dem", CLAUDE_BOTTLE_OAUTH_TOKEN="")
    assert (code, out) == (64, "")
    assert err == f'{scene.agents}: no agent "dem"; did you mean "demo"?\n'
    assert scene.log == []


def test_the_agents_option_overrides_the_environment(scene: Scene) -> None:
    scene.agents.rename(scene.folder / "elsewhere")
    assert scene.run("check")[0] == 64
    assert scene.run("check", "--agents", "elsewhere")[0] == 0


def test_only_arguments_after_the_dashes_go_to_claude(scene: Scene) -> None:
    code, out, _ = scene.run("start", "demo", "--dry-run", "--", "--model", "two words")
    assert (code, "claude --dangerously-skip-permissions --print --model 'two words'\n" in out) == (0, True)
    assert scene.run("start", "demo", "--dry-run", "--model", "opus")[0] == 2


def test_two_ways_to_say_yes_are_a_usage_error(scene: Scene) -> None:
    code, out, err = scene.run("start", "demo", "-y", "--yes-if-unchanged")
    assert (code, out, err.splitlines()[-1]) == (2, "", "Error: --yes and --yes-if-unchanged exclude each other")
    assert scene.log == []


@pytest.mark.parametrize("words", [("stop",), ("stop", "--all", "x"), ("stop", "x"), ("logs", "x"), ("shell", "x")])
def test_an_unknown_session_is_a_usage_error(scene: Scene, words: tuple[str, ...]) -> None:
    assert scene.run(*words)[0] == 2


@pytest.mark.parametrize(
    "words",
    [
        *(("start", "demo", "--yes"), ("verify",), ("verify", "--json"), ("build",), ("doctor",), ("list",)),
        *(("stop", "--all"), ("stop", "demo"), ("cleanup",), ("cleanup", "--dry-run"), ("shell", "demo")),
        *(("logs", "demo"), ("fetch", "demo"), ("diff", "demo"), ("allow", "demo", "example.com")),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("client", ["26.1.5", RECORDED, f"{RECORDED} silent"])
def test_without_an_engine_every_command_says_so(scene: Scene, words: tuple[str, ...], client: str) -> None:
    scene.without_engine(NO_ENGINE[client])
    code, out, err = scene.run(*words, CLAUDE_BOTTLE_EGRESS_NETWORK="vpn")
    assert code == 69
    assert f"docker cannot be used: {NO_ENGINE[client][:20]}" in (out + err).replace("\\", "")
    tried = {event.argv[1] for event in scene.log}
    assert tried <= {"version", "--version", "image", "network", "info", "ps", "volume"}


@pytest.mark.parametrize("debug", [True, False])
def test_doctor_warns_of_a_debug_engine_in_one_line(scene: Scene, *, debug: bool) -> None:
    scene.rule("info --format {{.Debug}}", stdout=f"{debug}\n".lower())
    _, out, _ = scene.run("doctor")
    assert [line.split()[0] for line in out.splitlines() if " debug log " in line] == ["open" if debug else "ok"]


@pytest.mark.parametrize("setting", ["CLAUDE_BOTTLE_BUILD_CA", "CLAUDE_BOTTLE_SUBNET"])
def test_an_invalid_setting_is_one_line(scene: Scene, setting: str) -> None:
    scene.environ[setting] = "/absent"
    code, out, err = scene.run("start", "demo", "--dry-run")
    assert (code, out, err.count("\n"), err.startswith(f"{setting}: ")) == (64, "", 1, True)


def test_the_readme_has_every_exit_code_once() -> None:
    section = (ROOT / "README.md").read_text().partition("\n## Exit codes\n")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| ([^|]+?) +\|", section, re.MULTILINE)[2:]
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, BottleError)]
    codes = [str(kind.exit_code) for kind in kinds if kind is not BottleError]
    assert sorted(listed) == sorted([*codes, "0", "1", "128+n"])  # 1 is the launcher's own
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize(
    ("words", "environ", "code", "said"),
    [
        ((), {"TERM": "lat\udce9"}, 64, "TERM: not UTF-8 text"),
        ((), {"CLAUDE_BOTTLE_OAUTH_TOKEN": "lat\udce9"}, 64, "CLAUDE_BOTTLE_OAUTH_TOKEN: not UTF-8 text"),
        (("--print", "lat\udce9"), {}, 2, "claude-bottle: --print: not UTF-8 text"),
        (("--", "--model", "lat\udce9"), {}, 2, "claude-bottle: CLAUDE_ARGUMENTS 2: not UTF-8 text"),
    ],
)
@pytest.mark.parametrize("mode", ["--yes", "--dry-run"])
def test_what_docker_would_change_on_its_way_is_refused_before_anything_starts(
    scene: Scene, words: tuple[str, ...], environ: dict[str, str], code: int, said: str, *, mode: str
) -> None:
    scene.environ |= environ
    done = scene.run("start", "demo", mode, *words)
    assert (done[0], done[1]) == (code, "")
    assert done[2].splitlines()[-1] == f"{said}, and docker passes on nothing else"
    assert [event for event in scene.log if event.starts("create") or event.starts("build")] == []


def test_a_shell_is_given_no_variable_that_docker_would_change(scene: Scene) -> None:
    code, _, err = scene.run("shell", "demo", TZ="lat\udce9")
    assert (code, err) == (64, "TZ: not UTF-8 text, and docker passes on nothing else\n")
    assert scene.log == []


@pytest.mark.parametrize("option", ["--repo", "--agents", "--ref", "--print"])
def test_an_option_that_a_script_left_empty_is_an_error(scene: Scene, option: str) -> None:
    code, out, err = scene.run("start", "demo", "--dry-run", option, "")
    assert (code, out) == (2, "")
    assert err.endswith(f"Error: Invalid value for '{option}': must not be empty\n")


@pytest.mark.parametrize(
    ("locked", "words", "asks"),
    [
        (False, "", True),
        (False, "--yes", False),
        (False, "--yes-if-unchanged", False),
        (False, "--yes --resume demo-1", True),
        (True, "--yes", True),
        (True, "--yes-if-unchanged", True),
    ],
)
def test_a_job_in_the_background_is_held_back_only_if_it_may_ask(
    scene: Scene, words: str, *, locked: bool, asks: bool
) -> None:
    """With SIGTTIN ignored it is refused instead; without a token what need not ask ends, too."""
    if locked:
        give(scene, LOCKED)
    cli = shlex.join((sys.executable, str(PATCHED), json.dumps(TRUSTING), "start", "demo", "--detach"))
    (scene.folder / "job").write_text(f"trap '' TTIN\n{cli} {words} &\nwait $!\necho code=$?\n")
    env = {**scene.environ, "CLAUDE_BOTTLE_OAUTH_TOKEN": "", "PS1": "ready> ", "TERM": "dumb"}
    shell: pexpect.spawn[bytes] = pexpect.spawn(
        "/bin/bash", ["--norc", "--noprofile", "-i"], env=env, cwd=str(scene.folder), timeout=300
    )
    with closing(shell):
        shell.expect_exact("ready> ")
        shell.sendline(". ./job")
        shell.expect_exact("cannot prompt: the terminal is another job's" if asks else "there is no OAuth token")
        shell.expect_exact(f"code={RefusedError.exit_code if asks else TokenError.exit_code}")
