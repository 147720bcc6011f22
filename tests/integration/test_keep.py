"""What is kept of the real Claude Code in real bottles, what goes on in a new one, and what a hostile bottle leaves."""

import json
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from claude_bottle.bottle import state
from tests.support.sessions import CLI, Bench, Ended

FILLER = "x" * 100_000  # characters of a message, which no request of a fresh session comes near
PLANTED = 'planted "key"'
PROJECT = "~/.claude/projects/-work"
NAMES = {"session.json", "transcript.jsonl", "answer", "receipt.json", "plan.json", "counts.json", "refusals.json"}


def kept(bench: Bench) -> list[Path]:
    """Return the folders of what is kept, the oldest first."""
    folder = bench.folder / "state" / "claude-bottle" / "sessions"
    found = folder.iterdir() if folder.exists() else ()
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)


def facts(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "session.json").read_bytes())
    return found


def cli(bench: Bench, *words: str) -> Ended:
    return bench.run((str(CLI), *words), {})


def repository(bench: Bench) -> Path:
    path = bench.folder / "repo"
    git = ("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(path))
    subprocess.run(("git", "init", "--quiet", str(path)), check=True)
    subprocess.run((*git, "commit", "--quiet", "--allow-empty", "--message", "one"), check=True)
    return path


def test_conversation_is_kept_and_goes_on_in_a_new_bottle(bench: Bench) -> None:
    bench.write({"env": {"KEY": "${PLANTED}"}})
    repo = str(repository(bench))
    work = f"RUN: echo $KEY {bench.name} | tee made; git add made; git -c user.name=a -c user.email=a@b commit -qm made"
    first = bench.start("--yes", "--keep", "--repo", repo, "--print", f"{work}\n{FILLER}", PLANTED=PLANTED)
    assert (first.code, first.out.decode().splitlines()[:1]) == (0, [f"{PLANTED} {bench.name}"]), first.err
    [folder] = kept(bench)
    old = facts(folder)
    assert {path.name for path in folder.iterdir()} == NAMES
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert (old["branch"], old["code"], old["notes"]) == (f"bottle/{folder.name}", 0, [])
    whole = b"".join(path.read_bytes() for path in folder.iterdir())
    assert [word for word in (PLANTED, json.dumps(PLANTED)[1:-1], bench.token) if word.encode() in whole] == []
    answer = cli(bench, "answer", folder.name)
    assert answer.out.decode().splitlines()[0] == f"[struck out] {bench.name}"
    assert "secrets were struck out" in answer.err

    marker = f"{bench.name}-again"
    look = f"RUN: cat made; ls -A {PROJECT} ~/.claude; cat ~/.claude/settings.json # {marker}"
    words = ("--yes", "--repo", repo, "--resume", folder.name, "--print", look)
    second = bench.start(*words, PLANTED=PLANTED)
    assert second.code == 0, second.err
    assert f"repo    {repo} at bottle/{folder.name} " in second.err
    lines = second.out.decode().splitlines()
    assert lines[0] == f"{PLANTED} {bench.name}"  # the branch of the old session
    assert f"{old['conversation']}.jsonl" in lines
    settings, _ = json.JSONDecoder().raw_decode(lines[-1], lines[-1].index("{"))
    assert settings == {"skipDangerousModePermissionPrompt": True, "hooks": state.hooks(idle=False)}
    requests = [each for each in bench.world.requests(marker) if each.runs]
    assert {dict(each.headers)["X-Claude-Code-Session-Id"] for each in requests} == {old["conversation"]}
    assert min(each.size for each in requests) > len(FILLER)
    assert kept(bench) == [folder]  # by default nothing is


def test_more_reach_is_no_matter_of_yes_alone(bench: Bench) -> None:
    first = bench.start("--yes", "--keep", "--print", f"SAY: {bench.name}")
    assert first.code == 0, first.err
    [folder] = kept(bench)
    bench.write({"egress": {"allow": ["extra.test"]}})
    words = ("--resume", folder.name, "--print", "SAY: on")
    refused = bench.start("--yes", *words)
    assert (refused.code, refused.out) == (65, b"")
    assert "+ egress  extra.test" in refused.err
    with bench.terminal("--yes", "--resume", folder.name) as terminal:
        terminal.until("Start this session? [y/N]")
        assert "an old conversation can carry an old injection" in terminal.frames[-1]
        terminal.type(b"n\r")
        assert terminal.code() == 65


def test_hint_of_a_kept_session_is_ours(bench: Bench) -> None:
    bench.write(prompt=f"RUN: echo $((6 * 7))-{bench.name}")
    with bench.terminal("--yes", "--keep") as terminal:
        terminal.until(f"42-{bench.name}")
        terminal.type(b"/exit")  # unlike Ctrl-C it waits until claude is done
        terminal.until("/exit")
        terminal.type(b"\r")
        assert terminal.code() == 0
    [folder] = kept(bench)
    assert facts(folder)["conversation"]
    assert f"to go on: ./cli.py start {bench.name} --resume {folder.name}".encode() in terminal.raw
    last = bytes(terminal.raw[terminal.raw.rfind(b"\x1b[?1049l") :])  # where Claude's own would be
    assert (b"Resume this session" in last, b"claude --" in last) == (False, False), last


# What an agent leaves beside, or in place of, its transcript; and what the user is told of that.
NEWER = f"{PROJECT}/aaaaaaaa-2222-4333-8444-555555555555.jsonl"
HOSTILE = {
    "10 GB": (f"truncate -s 10G {NEWER} && touch -d tomorrow {NEWER}", "it has 10737418240 bytes"),
    "odd": (
        (
            f"cd {PROJECT} && ln -s /etc/passwd ffffffff-2222-4333-8444-555555555555.jsonl &&"
            f" mkfifo eeeeeeee-2222-4333-8444-555555555555.jsonl && mkdir {NEWER} &&"
            " touch $'\\e[31m.jsonl' $'a\\nb.jsonl' -- --x.jsonl && ln -s /etc ../-etc && touch -d tomorrow -h ./*"
        ),
        "",
    ),
    "links": ("rm -rf ~/.claude/projects && ln -s /etc ~/.claude/projects", "projects: Not a directory"),
    "no JSON": (f"printf '\\33[31m{{' > {NEWER} && touch -d tomorrow {NEWER}", ""),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_bottle_leaves_nothing_but_a_message(bench: Bench, what: str) -> None:
    command, why = HOSTILE[what]
    ended = bench.start("--yes", "--keep", "--print", f"RUN: ({command}); echo done-$?")
    assert (ended.code, ended.out) == (0, b"done-0\n"), ended
    [folder] = kept(bench)
    assert "\x1b" not in ended.err
    assert (why in ended.err, "the conversation is not kept" in ended.err) == (True, bool(why)), ended.err
    assert {path.name for path in folder.iterdir()} == NAMES - ({"transcript.jsonl"} if why else set())
    assert [path for path in folder.iterdir() if not path.is_file() or path.is_symlink()] == []
    assert sum(path.stat().st_size for path in folder.iterdir()) < 64 << 20
    if what == "odd":
        transcript = (folder / "transcript.jsonl").read_text()
        assert f'"sessionId":"{facts(folder)["conversation"]}"' in transcript
        assert "root:x:0" not in transcript
    if what == "no JSON":
        resumed = bench.start("--yes", "--resume", folder.name, "--print", "SAY: on")
        assert (resumed.code, "line 1 is no JSON object" in resumed.err) == (2, True)
        assert "\x1b" not in resumed.err
