"""The test world itself: what the other tests take for granted."""

import hashlib
import http.client
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_bottle.egress import allowlist
from tests.world import REPOSITORY, World, api, parse
from tests.world.api import server
from tests.world.shell import WorldError

BASH = [{"name": "Bash"}]


def user(*blocks: server.Block) -> server.Block:
    return {"role": "user", "content": list(blocks)}


def result(text: str) -> server.Block:
    return {"type": "tool_result", "content": [{"type": "text", "text": text}]}


def test_stand_in_has_the_names_of_the_default_hosts() -> None:
    assert {host.name for host in allowlist.defaults()} == set(api.HOSTS)


def test_stand_in_runs_one_command_after_another_and_tells_their_output() -> None:
    reminder = server.text("<system-reminder>\nRUN: false\n</system-reminder>")
    messages = [user(reminder, server.text("Please\nHOLD: a\nRUN: one\nSILENT: 5\nRUN: two\nSAY: done"))]
    asked = []
    for output in ("1", "2", "unused"):
        waits, blocks = server.answer(server.read_turn({"messages": messages, "tools": BASH}))
        asked.append((waits, [block.get("text") or block["input"]["command"] for block in blocks]))
        messages += [{"role": "assistant", "content": list(blocks)}, user(result(output), reminder)]
    assert asked == [((("HOLD", "a"),), ["one"]), ((("SILENT", "5"),), ["two"]), ((), ["done", "1\n2"])]


@pytest.fixture
def standing_in() -> Iterator[http.client.HTTPConnection]:
    """The stand-in for Anthropic's API without its TLS, and one connection to it."""
    with server.Server(("127.0.0.1", 0), server.Handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        connection = http.client.HTTPConnection("127.0.0.1", serving.socket.getsockname()[1])
        yield connection
        connection.close()
        serving.shutdown()


def say(connection: http.client.HTTPConnection, prompt: str, **more: object) -> http.client.HTTPResponse:
    body = {"messages": [user(server.text(prompt))], "tools": BASH, "model": "m", **more}
    connection.request("POST", "/v1/messages?beta=true", json.dumps(body))
    return connection.getresponse()


def test_stand_in_uses_any_tool_and_searches_the_web_itself(standing_in: http.client.HTTPConnection) -> None:
    asked = json.load(say(standing_in, 'TOOL: WebFetch {"url": "https://extra.test"}'))
    assert asked["stop_reason"] == "tool_use"
    assert (asked["content"][0]["name"], asked["content"][0]["input"]) == ("WebFetch", {"url": "https://extra.test"})
    found = json.load(say(standing_in, "x", tools=[{"type": "web_search_20250305", "name": "web_search"}]))
    assert [block["type"] for block in found["content"]] == ["server_tool_use", "web_search_tool_result", "text"]


def test_stand_in_fails_as_often_as_it_is_told(standing_in: http.client.HTTPConnection) -> None:
    prompt = "FAIL: 500\nFAIL: 429 7\nSAY: done"
    answers = []
    for _ in range(3):
        said = say(standing_in, prompt)
        answers.append((said.status, said.headers["Retry-After"], said.read()))
    assert [(status, seconds) for status, seconds, _ in answers] == [(500, None), (429, "7"), (200, None)]
    assert json.loads(answers[-1][2])["content"] == [server.text("done")]


def test_stand_in_streams_a_big_text_in_pieces_and_keeps_the_connection(
    standing_in: http.client.HTTPConnection, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        lines = say(standing_in, "BIG: 0.2", stream=True).read().decode().splitlines()
        events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
        assert [event["type"] for event in events[:3]] == ["message_start", "ping", "content_block_start"]
        texts = [event["delta"]["text"] for event in events if event["type"] == "content_block_delta"]
        assert len(texts) > 1
        assert "".join(texts) == "x" * 200_000
    assert len({request["connection"] for request in map(json.loads, capsys.readouterr().out.splitlines())}) == 1


def test_stand_in_writes_down_what_arrived(
    standing_in: http.client.HTTPConnection, capsys: pytest.CaptureFixture[str]
) -> None:
    standing_in.putrequest("POST", "/v1/messages")
    for name, value in (("X-Api-Key", "one"), ("x-api-key", "two"), ("Transfer-Encoding", "chunked")):
        standing_in.putheader(name, value)
    standing_in.endheaders(b"3\r\nab\xff\r\n2;x=y\r\nde\r\n0\r\n\r\n")
    assert standing_in.getresponse().status == 200
    request = parse(capsys.readouterr().out)
    assert request is not None
    assert request.header("X-API-KEY") == ("one", "two")
    assert (request.size, request.sha256) == (5, hashlib.sha256(b"ab\xffde").hexdigest())


def test_stand_in_obeys_only_the_last_prompt_and_no_request_without_tools() -> None:
    earlier = [user(server.text("RUN: old")), user(result("old"))]
    turn = server.read_turn({"messages": [*earlier, {"role": "user", "content": "Hello"}], "tools": BASH})
    assert turn == server.Turn("Hello", (), runs=True)
    assert server.answer(server.Turn("RUN: old")) == ((), (server.text("Stand-in"),))


def test_world_adds_its_authority_to_every_bottle_once(tmp_path: Path) -> None:
    world = World(ca=Path("/ca.pem"), base_image="base", pipelock_image="pipelock")
    folder = world.copy_agents(tmp_path / "agents")
    bottles = sorted((REPOSITORY / "agents" / "bottles").glob("*.yaml"))
    assert bottles
    assert all(
        (folder / "bottles" / bottle.name).read_text().endswith('\nca_certs: ["/ca.pem"]\n') for bottle in bottles
    )
    with pytest.raises(WorldError, match="ca_certs already"):
        world.trust(folder / "bottles" / bottles[0].name)


def test_engine_that_does_not_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    programs = {"docker": "exit 1", "dockerd": "echo no such table >&2; exit 1"}
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    code = f"from pathlib import Path; from tests.world import engine; engine.start(Path({str(tmp_path / 'log')!r}))"
    failed = subprocess.run(
        (sys.executable, "-c", code), cwd=REPOSITORY, text=True, capture_output=True, check=False,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert failed.stderr.endswith(f"dockerd does not answer; its last lines in {tmp_path / 'log'}:\n  no such table\n")
