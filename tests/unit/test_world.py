"""The test world itself: what the other tests take for granted."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from claude_bottle.egress import allowlist
from tests.world import REPOSITORY, World, api
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
