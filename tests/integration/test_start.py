"""Sessions of the real Claude Code in real bottles, through the real path; what answers as Anthropic is a stand-in."""

import json

import pytest

from claude_bottle.bottle import reach
from claude_bottle.egress import log as egress
from tests.support.sessions import CLI, Bench, docker

# Of the four dialogs that a fresh home would show.
DIALOGS = ("text style", "Security notes", "trust this folder", "Yes, I accept", "No, exit")
MARKETPLACE = "CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL"
ODD = '--version; "it\'s" $(touch /tmp/x) `id` \\n %s\n\n\t世界 🍾 *\n- last\n\n\n'


def test_terminal_session_from_the_question_to_the_end(bench: Bench) -> None:
    bench.write(prompt=f"RUN: echo $((6 * 7))-{bench.name}\n")
    with bench.terminal() as terminal:
        terminal.until("Start this session? [y/N]")
        assert f"agent   {bench.name}" in terminal.frames[-1]
        assert "plan    first time" in terminal.frames[-1]
        terminal.type(b"y\r")
        terminal.until(f"42-{bench.name}")
        assert [word for word in DIALOGS for frame in terminal.frames if word in frame] == []
        terminal.leave()
        assert terminal.code() == 0


# Claude Code writes it down once it has tried to install its marketplace, or has left that out.
TRIED = (
    "until grep -q officialMarketplaceAutoInstallAttempted ~/.claude.json; do sleep 0.1; done; echo $((6 * 7))-tried"
)


@pytest.mark.parametrize(("bottle", "refused"), [({}, []), ({"env": {MARKETPLACE: "0"}}, ["github.com"])])
def test_claude_asks_no_code_host_by_itself(bench: Bench, bottle: dict[str, object], refused: list[str]) -> None:
    """It does where it is told to."""
    bench.write(bottle, prompt=f"RUN: {TRIED}\n")
    with bench.terminal("--yes") as terminal:
        terminal.until("42-tried")
        log = docker("logs", f"claude-bottle-{bench.sessions()[0]}-sidecar").splitlines()
    events = filter(None, map(egress.parse, (line.encode() for line in log)))
    assert sorted({event.host for event in events if event.verdict == egress.BLOCKED}) == refused


def test_what_an_image_has_claude_remember_is_kept(bench: Bench) -> None:
    bench.puppet("stay")
    dockerfile = bench.agents / "puppet" / "Dockerfile"
    with dockerfile.open("a") as file:
        file.write("RUN mkdir -p ~/.claude && printf mine > ~/.claude/CLAUDE.md\n")
    with bench.running("--yes") as run:
        assert run.process.stdout
        assert run.process.stdout.read(9) == b"<staying>"
        session = bench.sessions()[0]
        done = bench.run((str(CLI), "shell", session), {}, b"cat ~/.claude/CLAUDE.md\n")
    assert done.out.decode() == f"mine\n{reach.memory(session)}"


def test_print_from_anywhere_in_a_pipe(bench: Bench) -> None:
    link = bench.folder / "uncork"
    link.symlink_to(CLI)
    question = f"SAY: answer of {bench.name}"
    argv = (str(link), "start", bench.name, "--yes", "--print", question)
    ended = bench.run(argv, {}, stdin=b"piped words", cwd="/")
    assert (ended.code, ended.out) == (0, f"answer of {bench.name}\n".encode())
    request = bench.world.wait(bench.token, lambda request: request.runs)
    assert request.prompt == f"{question}\npiped words"


def test_words_after_two_dashes_go_to_claude(bench: Bench) -> None:
    answer = json.loads(bench.ask("SAY: yes", "--", "--output-format", "json", "--model", "opus"))
    assert (answer["result"], [model for model in answer["modelUsage"] if "opus" in model] != []) == ("yes", True)


@pytest.mark.parametrize("prompt", [ODD, "é" * 60_000], ids=["odd", "long"])
def test_prompt_arrives_as_it_is(bench: Bench, prompt: str) -> None:
    bench.puppet(prompt)
    ended = bench.start("--yes", "--", "--model", "a b")
    own = ["--dangerously-skip-permissions", "--print", "--model", "a b", "--"]
    assert (ended.code, json.loads(ended.out)) == (0, [*own, prompt])
    assert json.loads(bench.ask(prompt.strip()[:5000]))[-1] == prompt.strip()[:5000]


def test_odd_prompt_arrives_at_the_api(bench: Bench) -> None:
    bench.write(prompt=ODD)
    ended = bench.start("--yes")
    assert ended.code == 0, ended
    assert bench.world.wait(bench.token, lambda request: request.runs).prompt == ODD.strip()


def test_bottle_has_what_its_manifests_say(bench: Bench) -> None:
    bench.write(
        {
            "env": {"LITERAL": "a 'b' $HOME", "RENAMED": "${OF_THE_HOST}"},
            "egress": {"allow": ["extra.test"]},
            "limits": {"pids": 300, "memory": "1g", "cpus": 0.75},
        },
        skills=["in-a-bottle"],
    )
    look = (
        "id -un; pwd; ls ~/.claude/skills/*",
        "printenv LITERAL RENAMED TERM COLORTERM LANG",
        "printenv CLAUDE_BOTTLE_OAUTH_TOKEN OF_THE_HOST; echo $?",
        "curl -sS -o /dev/null -w '%{http_code}' https://api.anthropic.com/api/hello",
        "curl -sS -o /dev/null -w '%{http_code}' https://extra.test/",
        "curl -sS https://example.com/ 2>&1; true",
    )
    environ = {"OF_THE_HOST": "from\tthe host", "TERM": "xterm-kitty", "COLORTERM": "truecolor", "LANG": "C"}
    answer = bench.ask("\n".join(f"RUN: {line}" for line in look), **environ)
    assert answer.splitlines() == [
        *("agent", "/work", "SKILL.md"),
        *("a 'b' $HOME", "from\tthe host", "xterm-kitty", "truecolor", "C.UTF-8"),
        "1",
        *("200", "404"),
        "curl: (56) CONNECT tunnel failed, response 403",
    ]


def test_refusal_is_in_the_log_of_the_sidecar(bench: Bench) -> None:
    question = f"RUN: curl -sS https://{bench.name}.test/ 2>&1\nHOLD: {bench.name}"
    with bench.running("--yes", "--print", question) as run:
        request = bench.world.wait(bench.token, lambda request: bool(request.results))
        assert "CONNECT tunnel failed, response 403" in request.results[0]
        log = docker("logs", f"claude-bottle-{bench.sessions()[0]}-sidecar")
        bench.world.release(bench.name)
        assert run.end().code == 0
    entries = [json.loads(line) for line in log.splitlines()]
    assert [one for one in entries if one.get("event") == "blocked" and f"{bench.name}.test" in json.dumps(one)]


def test_same_agent_twice_at_once(bench: Bench) -> None:
    with bench.running("--yes", "--print", f"HOLD: {bench.name}\nSAY: one") as one:
        first = bench.held()
        assert bench.ask("SAY: two") == "two\n"
        assert bench.sessions() == [first]
        bench.world.release(bench.name)
        assert one.end().out == b"one\n"


@pytest.mark.xdist_group("egress")  # cleanup removes the default egress network between its uses
def test_default_egress_network_is_made_once_by_two_at_once(bench: Bench) -> None:
    """No other test uses this network; whoever had it before keeps it."""
    bench.puppet("hello")
    words = ("network", "ls", "--quiet", "--filter", "name=^claude-bottle-egress$")
    before = docker(*words)
    with (
        bench.running("--yes", CLAUDE_BOTTLE_EGRESS_NETWORK="") as one,
        bench.running("--yes", CLAUDE_BOTTLE_EGRESS_NETWORK="") as two,
    ):
        ends = [one.end(), two.end()]
    after = docker(*words)
    if not before:
        docker("network", "rm", "claude-bottle-egress")
    assert [json.loads(end.out)[-1] for end in ends if end.code == 0] == ["hello", "hello"], ends
    assert len(after.split()) == 1
    assert before in ("", after)


def test_dry_run_calls_no_docker_and_leaves_no_file(bench: Bench) -> None:
    calls = bench.folder / "calls"
    path = bench.program("docker", f'echo "$@" >> {calls}; exit 1')
    ended = bench.start("--dry-run", PATH=path, CLAUDE_BOTTLE_OAUTH_TOKEN="")
    assert ended.code == 0, ended
    assert "docker network create" in ended.out.decode()
    assert f"agent   {bench.name}" in ended.err
    assert not calls.exists()


def test_stage_dir_is_its_users_alone_and_is_what_the_sidecar_reads(bench: Bench) -> None:
    bench.puppet("stay")
    with bench.running("--yes") as run:
        assert run.process.stdout
        assert run.process.stdout.read(9) == b"<staying>"
        stage = next(bench.stage.iterdir())
        config = stage / "pipelock.yaml"
        assert (stage.stat().st_mode & 0o777, config.stat().st_mode & 0o777) == (0o700, 0o600)
        sidecar = f"claude-bottle-{bench.sessions()[0]}-sidecar"
        copied = docker("cp", f"{sidecar}:/config/pipelock.yaml", "-")
        assert config.read_text() in copied
        assert all(host in config.read_text() for host in ("api.anthropic.com", "claude.ai"))
