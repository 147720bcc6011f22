"""Sessions whose requests the credential proxy signs: the real Claude Code and git, and a stand-in for the API."""

import base64
import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from claude_bottle.bottle.plan import PLACEHOLDER
from tests.integration.test_commands import command, staying
from tests.integration.test_ssh import declare
from tests.support.repos import users
from tests.support.sessions import CLI, Bench, docker
from tests.world import Request, api, git

API = "api.anthropic.com"
FOREIGN = "made-up-of-an-attacker"
#: what makes the stand-in answer as it answers Claude Code
BODY = {"model": "claude", "stream": True, "tools": [{"name": "Bash"}]}


def runs(*lines: str) -> str:
    """Return a prompt that has Claude Code run commands."""
    return "\n".join(f"RUN: {line}" for line in lines)


def messages(requests: tuple[Request, ...]) -> list[Request]:
    return [request for request in requests if request.path.startswith("/v1/messages?")]


@contextlib.contextmanager
def recorded(bench: Bench, *lines: str) -> Iterator[list[Request]]:
    """Run a session with commands; the list holds all that the stand-in got of it, whatever its credentials."""
    since, found = time.time(), list[Request]()
    question = f"{runs(*lines)}\nHOLD: {bench.name}\nSAY: done"
    with bench.running("--yes", "--print", question) as run:
        sidecar = f"claude-bottle-{bench.held()}-sidecar"
        shown = f'{{{{(index .NetworkSettings.Networks "{bench.world.network}").IPAddress}}}}'
        address = docker("inspect", "--format", shown, sidecar).strip()
        bench.world.release(bench.name)
        assert run.end().code == 0
    found += (one for one in bench.world.requests("") if one.client == address and one.time >= since)
    yield found


def test_every_request_has_the_users_token_and_no_other_credential(bench: Bench) -> None:
    foreign = f"-H 'x-api-key: {FOREIGN}' -H 'Authorization: Bearer {FOREIGN}' -H 'Cookie: sessionKey={FOREIGN}'"
    own = "tr '\\0' '\\n' < /proc/$PPID/environ | grep CLAUDE_CODE_OAUTH_TOKEN"  # Claude hides it from its tools
    lines = (own, f"curl -sS {foreign} 'https://{API}/api/hello?{bench.name}'")
    with recorded(bench, *lines) as found:
        paths = {request.path.partition("?")[0] for request in found}
        last = messages(tuple(found))[-1]
    assert {"/v1/messages", "/api/claude_code/settings", "/api/hello"} <= paths
    assert {request.header("authorization") for request in found} == {(f"Bearer {bench.token}",)}
    assert [request for request in found if request.header("x-api-key") or request.header("cookie")] == []
    assert last.results == (f"CLAUDE_CODE_OAUTH_TOKEN={PLACEHOLDER}", "{}")
    assert FOREIGN not in json.dumps([request.headers for request in found])


def test_headers_are_those_of_a_claude_without_the_proxy(bench: Bench, image: str) -> None:
    """All but `Connection`, which is of one connection; so are the betas, and what Claude Code is known by."""
    question = f"SAY: {bench.name}"
    bench.ask(question)
    words = ("run", "--rm", "--interactive", "--network", bench.world.network, "--env", "CLAUDE_CODE_OAUTH_TOKEN",
             image, "bash", "-c", "cat > /tmp/ca.pem; NODE_EXTRA_CA_CERTS=/tmp/ca.pem exec claude --print \"$0\"",
             question)  # fmt: skip
    plain = bench.run(("docker", *words), {"CLAUDE_CODE_OAUTH_TOKEN": bench.token}, bench.world.ca.read_bytes())
    assert plain.out.decode() == f"{bench.name}\n", plain
    signed, direct = (request for request in messages(bench.world.requests(bench.token)) if request.runs)
    one, other = ({name.lower(): value for name, value in each.headers} for each in (signed, direct))
    assert other.pop("connection") == "keep-alive"
    assert one.keys() == other.keys()
    assert "oauth-2025-04-20" in one["anthropic-beta"].split(",")
    own = {name for name in one if one[name] != other[name]} - {"content-length"}
    assert own == {"x-claude-code-session-id", "x-claude-code-prompt-id", "x-client-request-id"}


# Of an MCP server whose one tool has keys and an answer that a request of Claude Code's must not be refused for.
MCP = """
import json, sys
tool = {"name": "look", "inputSchema": {"type": "object", "properties": {"source": {"type": "object"}}}}
image = {"type": "image", "mimeType": "image/png", "data": sys.argv[1]}
answers = {
    "initialize": {
        "protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "x", "version": "1"},
    },
    "tools/list": {"tools": [tool]},
    "tools/call": {"content": [{"type": "text", "text": "seen"}, image]},
}
for line in sys.stdin:
    asked = json.loads(line)
    if "id" in asked:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": answers.get(asked["method"], {})}), flush=True)
"""
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def test_whatever_claude_code_does_of_itself_passes(bench: Bench) -> None:
    """An image, a search of the web, a page of it, a sub-agent, and an MCP server's tool with keys that are judged."""
    bench.write({"egress": {"allow": [api.EXTRA_HOST]}})
    used = {
        "Read": {"file_path": "/tmp/x.png"},
        "WebSearch": {"query": "made up"},
        "WebFetch": {"url": f"https://{api.EXTRA_HOST}/api/hello", "prompt": "x"},
        "Agent": {"description": "x", "prompt": f"SAY: {bench.name}", "subagent_type": "general-purpose"},
        "mcp__x__look": {"source": {"type": "url", "url": "https://x"}, "mcp_servers": [1], "container": "x"},
    }
    lines = (f"RUN: base64 -d <<< {PIXEL} > /tmp/x.png", *(f"TOOL: {name} {json.dumps(used[name])}" for name in used))
    servers = {"mcpServers": {"x": {"command": "python3", "args": ["-c", MCP, PIXEL]}}}
    ended = bench.start("--yes", "--print", "\n".join(lines), "--", "--mcp-config", json.dumps(servers))
    assert ended.code == 0, ended
    assert "refused" not in ended.err
    found = messages(bench.world.requests(bench.token))
    *_, image, search, page, agent, look = max((request.results for request in found), key=len)
    assert (search.startswith("Web search results"), page, look.startswith("seen")) == (True, "Stand-in", True)
    assert "launched successfully" in agent
    assert [request for request in found if request.prompt.endswith(f"SAY: {bench.name}") and not request.results]
    assert image == ""  # it is a block of its own


def test_messages_share_one_connection(bench: Bench) -> None:
    bench.ask(runs("true", "true", "true"))
    made = messages(bench.world.requests(bench.token))
    assert len(made) == 4
    assert len({request.connection for request in made}) == 1


def test_a_refusal_is_what_print_prints(bench: Bench) -> None:
    bench.write({"limits": {"requests": 1}})
    ended = bench.start("--yes", "--print", runs("true"))
    assert ended.code == 1
    assert ended.out.decode().startswith("API Error: 400 claude-bottle: the session has made all its messages"), ended
    assert "limits: {requests: 1}" in ended.out.decode()
    assert len(messages(bench.world.requests(bench.token))) == 1
    assert f"refused: {API} POST /v1/messages 1 time\n        1 of 1 messages, " in ended.err
    assert " kB up\n" in ended.err


def test_a_refusal_is_on_the_screen_and_the_session_goes_on(bench: Bench) -> None:
    bench.write({"limits": {"requests": 1}}, prompt=runs("true"))
    with bench.terminal("--yes") as terminal:
        terminal.until("claude-bottle: the session has made all its messages")
        terminal.type(b"/exit\r")
        assert terminal.code() == 0
        assert b"1 of 1 messages, " in terminal.raw
    assert len(messages(bench.world.requests(bench.token))) == 1


@pytest.mark.parametrize("fault", ["500", "429 1", "529"])
def test_what_the_api_answers_when_it_is_busy_is_tried_again(bench: Bench, fault: str) -> None:
    assert bench.ask(f"FAIL: {fault}\nSAY: at last") == "at last\n"
    assert len(messages(bench.world.requests(bench.token))) == 2


def test_50_mb_come_down_and_30_mb_go_up_as_they_are(bench: Bench) -> None:
    body = json.dumps({**BODY, "messages": [{"role": "user", "content": "BIG: 50"}]})
    post = f"curl -sS -H 'Content-Type: application/json' https://{API}/v1/messages"
    large = """jq -cn '{"messages": [{"role": "user", "content": ("x" * 30000000)}]}' > large"""
    answer = bench.ask(
        runs(
            f"{post} -d '{body}' | grep -o 'x\\{{60000,\\}}' | wc -c",
            f"{large}; sha256sum < large | head -c 64; echo",
            f"{post}?{bench.name} --data-binary @large | jq -r .stop_reason",
        )
    )
    down, digest, reason = answer.splitlines()
    assert int(down) >= 50_000_000
    [up] = [request for request in bench.world.requests("") if request.path.endswith(f"?{bench.name}")]
    assert (up.sha256, up.size > 30_000_000) == (digest, True)
    assert reason == "end_turn"


def basic(password: str) -> tuple[str, ...]:
    return ("Basic " + base64.b64encode(f"x-access-token:{password}".encode()).decode(),)


ADA = {"name": "Ada", "email": "ada@example.org"}  # this machine's user may have no identity


def signed_git(name: str) -> dict[str, Any]:
    """Return the credential for one repository of the world's git host."""
    user = {"user": "x-access-token", "password": "${GIT_PASSWORD}"}
    return {"host": git.HOST, "basic": user, "paths": [f"/{name}.git/"]}


def test_git_pushes_over_https_and_only_where_the_manifest_says(bench: Bench) -> None:
    other, password = f"other-{bench.name}", git.account()
    for name in (bench.name, other):
        git.repository(name)
    bench.write({"credentials": [signed_git(bench.name)], "git": ADA})
    answer = bench.ask(
        runs(
            f"git clone -q https://{git.HOST}/{bench.name}.git one && cd one && head -c 3000000 /dev/urandom > big"
            " && git add big && git commit -qm https && git push -q && git status -sb | head -1",
            f"git clone -q https://{git.HOST}/{other}.git 2>&1; env | grep -c {password}; true",
            f"git clone -q https://{git.HOST}/{bench.name}.git/../{other}.git 2>&1; true",
            f"curl -s --path-as-is https://{git.HOST}/{bench.name}.git/%2e%2e/{other}.git/info/refs",
        ),
        GIT_PASSWORD=password,
    )
    lines = answer.splitlines()
    assert lines[0] == "## main...origin/main", answer
    assert f"claude-bottle: GET /{other}.git/info/refs is not among the paths in the bottle's manifest" in answer
    assert 'claude-bottle: a path with "%2e" could be read as another one' in answer
    assert "0" in lines
    assert git.commits(bench.name)[0].endswith("https")
    assert {(one.status, one.header("authorization")) for one in git.requests(bench.name)} == {(200, basic(password))}
    assert git.requests(other) == ()


def test_ssh_and_https_to_one_host(bench: Bench) -> None:
    """What goes to its ssh port passes through the credential proxy unopened."""
    git.repository(bench.name)
    password = git.account()
    declare(bench, credentials=[signed_git(bench.name)])
    answer = bench.ask(
        runs(
            f"git clone -q git@{git.HOST}:{bench.name}.git a && git -C a commit -q --allow-empty -m ssh"
            " && git -C a push -q && echo pushed",
            f"git clone -q https://{git.HOST}/{bench.name}.git b && git -C b log --format=%s | head -1"
            " && git -C b commit -q --allow-empty -m https && git -C b push -q && echo pushed",
        ),
        GIT_PASSWORD=password,
    )
    assert answer.split() == ["pushed", "ssh", "pushed"]
    assert [line.split()[-1] for line in git.commits(bench.name)] == ["https", "ssh", "first"]


def test_the_death_of_the_credential_proxy_ends_the_session_and_brings_its_work_back(bench: Bench) -> None:
    user = users(bench.folder / "user", {}, "the user's", file="1")
    question = f"{runs('echo made > made')}\nHOLD: {bench.name}"
    with bench.running("--yes", "--repo", str(user.path), "--print", question) as run:
        bench.world.wait(bench.token, lambda request: bool(request.results))
        [session] = bench.sessions()
        docker("kill", f"claude-bottle-{session}-gate")
        ended = run.end()
    bench.world.release(bench.name)
    assert ended.code == 70, ended
    assert "claude-bottle: the credential proxy has exited, which ended the session" in ended.err
    assert user.git("show", f"bottle/{session}:made") == "made"
    assert "        1 message, " in ended.err  # the one that was not answered is in no log


def test_requests_are_in_logs_list_and_report(bench: Bench) -> None:
    bench.puppet("stay")
    follow = (str(CLI), "logs", "-f")
    with (
        staying(bench) as (run, session),
        subprocess.Popen((*follow, session), env=bench.environ, stdout=subprocess.PIPE, text=True) as followed,
    ):
        assert followed.stdout
        curl = f"curl -s -o /dev/null https://{API}/api/hello?secret; curl -s https://{API}/v1/files -d @/etc/passwd\n"
        refusal = json.loads(command(bench, "shell", session, stdin=curl).out)
        assert (refusal["type"], refusal["error"]["type"]) == ("error", "invalid_request_error")
        seen = [followed.stdout.readline() for _ in range(2)]
        assert [line.split()[1:6] for line in seen] == [
            ["allowed", API, "GET", "/api/hello", "200"],
            ["blocked", API, "POST", "/v1/files", "400"],
        ]
        assert command(bench, "logs", session).out.decode() == "".join(seen)
        [listed] = [one for one in json.loads(command(bench, "list", "--json").out) if one["session"] == session]
        assert (listed["allowed"], listed["blocked"]) == (1, 1)
        run.process.send_signal(signal.SIGTERM)
        assert (followed.stdout.read(), followed.wait()) == ("", 0)
        ended = run.end()
    assert f"egress  1 request allowed; refused: {API} POST /v1/files 1 time\n" in ended.err
    assert "api:\n  paths: [POST /v1/files]\n" in ended.err


def test_a_host_with_credentials_gets_no_port_while_it_runs(bench: Bench) -> None:
    bench.puppet("stay")
    host = {"host": api.EXTRA_HOST, "header": {"X-Word": "${WORD}"}}
    bench.write({"image": {"dockerfile": "../puppet/Dockerfile"}, "credentials": [host]}, prompt="stay")
    bench.environ["WORD"] = "made-up"
    checked = command(bench, "check", bench.name)
    assert f"WebSocket and gRPC do not work with hosts that have credentials: {api.EXTRA_HOST}" in checked.err
    with staying(bench) as (_, session):
        of_the_api, of_the_users = (command(bench, "allow", session, f"{name}:8443") for name in (API, api.EXTRA_HOST))
        assert f"only port 443 of {API} passes through the credential proxy" in of_the_api.err
        assert f"{api.EXTRA_HOST}:8443: the ports of a host with credentials are fixed" in of_the_users.err
        assert (of_the_api.code, of_the_users.code) == (2, 2)
