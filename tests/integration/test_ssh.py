"""SSH hosts: the agent pushes with a key that it cannot read, and that serves for nothing else."""

import base64
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from claude_bottle.bottle.plan import PLACEHOLDER
from claude_bottle.manifest import private_key
from claude_bottle.process import container
from tests.support import keys
from tests.support.hunt import Watch, inside, on_disk, told_by_docker
from tests.support.matrix import running, stays, write
from tests.support.sessions import CLI, PUPPET, Bench, Running, docker
from tests.world import git

# What an agent can do that does not care for the ssh_config it was given.
RAW = (
    "ssh -F none -o ProxyCommand='nc -X connect -x pipelock:8888 %h %p' -o StrictHostKeyChecking=no"
    " -o HostKeyAlgorithms=ssh-ed25519 -o UserKnownHostsFile=/dev/null -o BatchMode=yes -o LogLevel=ERROR"
)
# A process whose memory, and nothing else of it, holds the word that it reads, in hexadecimal.
REMEMBERS = 'import sys, time; word = bytes.fromhex(sys.stdin.readline()); print("up", flush=True); time.sleep(600)'


def at_home(bench: Bench) -> None:
    """Give the user a home in which git knows who they are and ssh knows the git host."""
    home = bench.folder / "home"
    (home / ".ssh").mkdir(parents=True, exist_ok=True)
    (home / ".gitconfig").write_text("[user]\n\tname = Ada of the host\n\temail = ada@example.org\n")
    (home / ".ssh/known_hosts").write_text(f"{git.HOST} {git.host_key()}\n")
    bench.environ["HOME"] = str(home)


def declare(bench: Bench, *hosts: dict[str, Any], private: str = "", prompt: str | None = None, **bottle: Any) -> str:
    """Give the agent's bottle the git host, or others, with a new key or `private`; return the private key."""
    at_home(bench)
    private = private or git.new_key()[0]
    path = bench.folder / "id_bottle"
    path.write_text(private)
    entries = [{"key": str(path), **host} for host in (hosts or ({"host": git.HOST},))]
    bench.write({"ssh": entries, **bottle}, **({"prompt": prompt} if prompt else {}))
    return private


def secrets_of(private: str) -> list[bytes]:
    """Return what gives a key away: the lines of its file that hold the secret half, and its raw secret."""
    body = private.split("-----")[2].split()
    blob = base64.b64decode("".join(body))
    at = blob.rindex(b"\0\0\0\x40") + 4
    return [*(line.encode() for line in body[2:4]), blob[at : at + 32]]


def runs(*lines: str) -> str:
    """Return a prompt that has Claude Code run commands."""
    return "\n".join(f"RUN: {line}" for line in lines)


def test_clone_commit_and_push_by_claude_code_itself(bench: Bench) -> None:
    declare(bench)
    git.repository(bench.name)
    question = runs(
        f"git clone -q git@{git.HOST}:{bench.name}.git one; echo 1 > one/a; git -C one add a; git -C one commit -m scp",
        "git -C one push -q; git -C one status -sb",
        f"git clone -q ssh://git@{git.HOST}/home/git/{bench.name}.git two; ls two",
        "git -C two commit -q --allow-empty -m url; git -C two push -q; git -C one fetch -q; git -C one status -sb",
        "ssh-add -l | wc -l",
    )
    ended = bench.start("--yes", "--print", question)
    assert ended.code == 0, ended
    said = ["## main...origin/main", "a", "## main...origin/main [behind 1]", "1"]
    assert ended.out.decode().splitlines()[-4:] == said, ended
    me = "Ada of the host <ada@example.org>"
    assert git.commits(bench.name) == [f"{me} url", f"{me} scp", "World <world@example.org> first"]
    assert f"  ssh     {git.HOST} as git, port 22, key {bench.folder}/id_bottle\n" in ended.err
    assert f"  git     {me}\n" in ended.err
    assert "  egress  8 hosts allowed (" in ended.err
    assert "  ports   22, 443, each open on every allowed host\n" in ended.err
    assert "isolation  32 checks passed" in ended.err


def test_several_hosts_keys_and_an_identity_of_its_own(bench: Bench) -> None:
    second, _ = git.new_key()
    (bench.folder / "second").write_text(second)
    pinned = git.host_key(git.SECOND_PORT)
    declare(
        bench,
        {"host": git.HOST, "alias": "first"},
        {
            "host": git.SECOND_HOST,
            "port": git.SECOND_PORT,
            "key": str(bench.folder / "second"),
            "known_host": pinned,
        },
        git={"name": "Genie", "email": "genie@example.org"},
    )
    git.repository(bench.name)
    question = runs(
        f"git clone -q git@first:{bench.name}.git a; git -C a commit -q --allow-empty -m one; git -C a push; ls a",
        f"git clone -q ssh://git@{git.SECOND_HOST}:{git.SECOND_PORT}/home/git/{bench.name}.git b && ls -a b | head -1",
        "ssh-add -l | wc -l",
    )
    assert bench.ask(question).splitlines()[-2:] == [".", "2"]
    assert git.commits(bench.name)[0] == "Genie <genie@example.org> one"


def test_the_key_is_nowhere_but_in_its_holder(bench: Bench) -> None:
    private = declare(bench)
    needles = secrets_of(private)
    lines = [needle.decode() for needle in needles[:2]]
    public = private_key.read(bench.folder / "id_bottle").public.split()[1]
    git.repository(bench.name)
    question = f"RUN: git clone -q git@{git.HOST}:{bench.name}.git a && ls a\nHOLD: {bench.name}"
    dry = bench.start("--dry-run", "--print", question)
    since = time.time() - 1
    with (
        Watch((*lines, f"HOLD: {bench.name}")) as watch,
        bench.running("--yes", "-v", "--print", question) as run,
    ):
        session = bench.held()
        remembered = b"in-memory-" + bench.name[2:].encode()
        words = [*needles, PLACEHOLDER.encode(), public.encode(), remembered]
        python = container.execute(f"claude-bottle-{session}", "/usr/bin/python3", "-I", "-c", REMEMBERS)
        stays = subprocess.Popen(python, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert stays.stdin
        assert stays.stdout
        stays.stdin.write(remembered.hex().encode() + b"\n")
        stays.stdin.flush()
        assert stays.stdout.readline() == b"up\n"
        found = inside(f"claude-bottle-{session}", container.AGENT, words)
        during = on_disk(bench.world, since, [bench.token, *lines])
        told = told_by_docker(bench)
        staged = "".join(path.read_text() for path in bench.stage.rglob("*") if path.is_file())
        bench.world.release(bench.name)
        ended = run.end()
        stays.communicate()
    after = on_disk(bench.world, since, [bench.token, *lines])
    assert ended.code == 0, ended
    # Each of these looks where something is to be seen: first that it saw that.
    assert found[remembered] == ["memory"]
    assert "environ" in found[PLACEHOLDER.encode()]
    assert f"/home/agent/.ssh/{git.HOST}.pub" in found[public.encode()]
    assert [found[needle] for needle in needles] == [[], [], []]
    assert watch.seen == {f"HOLD: {bench.name}"}
    for seen in (during, after):
        assert seen[bench.token]
        assert [seen[line] for line in lines] == [set(), set()]
    everything = told + staged + ended.err + ended.out.decode() + dry.out.decode() + dry.err
    assert all(known in everything for known in (session, "api.anthropic.com", "key-holder", "bytes on stdin"))
    assert [line for line in private.splitlines() if line in everything] == []


def test_the_key_serves_its_declared_host_alone(bench: Bench) -> None:
    """Even where sidecar and ssh_config would let more through, and the other hosts would take the key."""
    private = declare(
        bench, egress={"allow": [f"{git.SECOND_HOST}:{git.SECOND_PORT}", f"{git.HOST}:{git.SECOND_PORT}"]}
    )
    tries = (
        f"{RAW} git@{git.HOST} echo in 2>&1; true",
        f"{RAW} -p {git.SECOND_PORT} git@{git.SECOND_HOST} echo in 2>&1; true",
        f"{RAW} -p {git.SECOND_PORT} git@{git.HOST} echo in 2>&1; true",
        f"cd; echo x > x; ssh-keygen -Y sign -q -n file -f .ssh/{git.HOST}.pub x 2>&1; ls x.sig 2>&1; true",
    )
    answer = bench.ask(runs(*tries)).splitlines()
    denied = [line for line in answer if "Permission denied (publickey)" in line]
    assert (answer[0], len(denied)) == ("in", 2), answer
    assert "in" not in answer[1:]
    assert "ls: cannot access 'x.sig': No such file or directory" in answer
    # That was the constraint: declared, the same key opens the other door.
    second = {"host": git.SECOND_HOST, "port": git.SECOND_PORT, "known_host": git.host_key(git.SECOND_PORT)}
    declare(bench, second, private=private)
    assert bench.ask(runs(f"ssh {git.SECOND_HOST} echo in 2>&1; true")) == "in\n"


def test_other_hosts_are_refused_by_ssh_and_by_the_sidecar(bench: Bench) -> None:
    declare(bench)
    tries = (
        f"ssh git@{git.SECOND_HOST} true 2>&1; true",
        f"{RAW} git@{git.SECOND_HOST} true 2>&1; true",
        f"{RAW} -p {git.SECOND_PORT} git@{git.HOST} true 2>&1; true",
    )
    answer = bench.ask(runs(*tries))
    assert f"claude-bottle: ssh reaches only what the manifest declares: {git.HOST}\n" in answer
    assert 'nc: Proxy error: "HTTP/1.0 403 Forbidden"' in answer
    assert 'nc: Proxy error: "HTTP/1.0 502 Bad Gateway"' in answer


def test_a_host_is_known_by_its_authority(bench: Bench) -> None:
    """By its own key it is elsewhere, though it has a certificate, too."""
    declare(bench, {"host": git.HOST, "known_host": f"@cert-authority *.test {git.authority()}"})
    assert bench.ask(runs(f"ssh {git.HOST} echo in 2>&1; true")).splitlines()[-1] == "in"


def test_a_wrong_host_key_stops_the_first_use(bench: Bench) -> None:
    declare(bench, {"host": git.HOST, "known_host": keys.public("another")})
    git.repository(bench.name)
    answer = bench.ask(runs(f"git clone git@{git.HOST}:{bench.name}.git a 2>&1; ls a 2>&1; true"))
    assert f"Host key for {git.HOST} has changed and you have requested strict checking." in answer
    assert "Host key verification failed." in answer
    assert "ls: cannot access 'a'" in answer


def test_what_an_agent_does_to_its_keys_harms_no_other_session(bench: Bench) -> None:
    declare(bench)
    harm = (
        "ssh-keygen -q -t ed25519 -N '' -f /tmp/own && ssh-add -q /tmp/own && ssh-add -l | wc -l",
        "ssh-add -q -D; ssh-add -l",
        "printf '#!/bin/sh\\necho secret\\n' > /tmp/ask; chmod +x /tmp/ask",
        "SSH_ASKPASS_REQUIRE=force SSH_ASKPASS=/tmp/ask ssh-add -x 2>&1",
        "rm -f $SSH_AUTH_SOCK 2>&1; true",
    )
    question = f"HOLD: {bench.name}\nRUN: ssh-add -l | wc -l; ssh {git.HOST} echo in"
    with bench.running("--yes", "--print", question) as other:
        bench.held()
        answer = bench.ask(runs(*harm))
        bench.world.release(bench.name)
        ended = other.end()
    assert answer.startswith("2\n"), answer
    assert "The agent has no identities." in answer
    assert "Agent locked." in answer
    assert "Read-only file system" in answer
    assert (ended.code, ended.out.decode()) == (0, "1\nin\n"), ended


def test_an_encrypted_key_is_asked_for_once_on_the_terminal(bench: Bench) -> None:
    private, _ = git.new_key("open sesame")
    declare(bench, private=private, prompt=runs(f"ssh {git.HOST} 'echo in-$((6 * 7))'"))
    with bench.terminal() as terminal:
        terminal.until("Start this session? [y/N]")
        terminal.type(b"y\r")
        terminal.until("Enter passphrase for id_bottle:")
        terminal.type(b"wrong\r")
        terminal.until("Bad passphrase, try again for id_bottle:")
        terminal.type(b"open sesame\r")
        terminal.until("in-42")
        assert [frame for frame in terminal.frames if "sesame" in frame] == []
        holder = f"claude-bottle-{bench.sessions()[0]}-key-holder"
        assert docker("exec", holder, "find", "/tmp", "-type", "f").split() == ["/tmp/known_hosts"]
        terminal.leave()
        assert terminal.code() == 0


def test_an_encrypted_key_is_asked_for_before_a_session_goes_on_in_the_background(bench: Bench) -> None:
    private, _ = git.new_key("open sesame")
    declare(bench, private=private, prompt=runs(f"ssh {git.HOST} 'echo in-$((6 * 7))'"))
    with bench.terminal("--yes", "--detach") as terminal:
        terminal.until("Enter passphrase for id_bottle:")
        terminal.type(b"wrong\r")
        terminal.until("Bad passphrase, try again for id_bottle:")
        terminal.type(b"open sesame\r")
        assert terminal.code() == 0
    [session] = bench.sessions()
    assert [frame for frame in terminal.frames if "sesame" in frame] == []
    assert f"\n{session}\n" in terminal.frames[-1]  # on stdout, which was the terminal
    with bench.on_terminal("attach", session) as terminal:
        terminal.until("in-42")
        terminal.type(b"/exit")
        terminal.until("/exit")
        terminal.type(b"\r")
        assert terminal.code() == 0


@pytest.mark.parametrize("words", [(), ("--detach",)], ids=["plain", "detach"])
@pytest.mark.parametrize("typed", [b"\r", b"\x03"], ids=["nothing", "ctrl-c"])
def test_without_its_passphrase_nothing_starts(bench: Bench, typed: bytes, words: tuple[str, ...]) -> None:
    declare(bench, private=git.new_key("open sesame")[0])
    with bench.terminal("--yes", *words, screen=False) as terminal:
        terminal.until_bytes(b"Enter passphrase for id_bottle:")
        terminal.type(typed)
        terminal.until_bytes(b"\r\nclaude-bottle: ")
        assert terminal.code() == 65
        assert b"\x1b" not in terminal.raw
    assert not bench.world.requests(bench.token)


@contextmanager
def staying(bench: Bench) -> Iterator[tuple[Running, str]]:
    """Run a session with an ssh host whose claude stays until it is ended; yield it and its id."""
    shutil.copytree(PUPPET, bench.agents / "puppet")
    write(bench, "stay")
    with running((str(CLI), "start", bench.name, "--yes"), bench.environ) as run:
        stays(run)
        bench.settled()
        yield run, bench.sessions()[0]


# What the kernel does where the bottle has made ssh-agent grow beyond the container's memory.
OUT_OF_MEMORY = (
    *("exec", "KEY-HOLDER", "bash", "-c"),
    'for each in /proc/[0-9]*; do [ "$(cat $each/comm)" = ssh-agent ] && kill -KILL ${each#/proc/}; done; true',
)


@pytest.mark.parametrize("death", [("kill", "KEY-HOLDER"), OUT_OF_MEMORY], ids=["container", "agent"])
def test_a_key_holder_that_dies_ends_the_session(bench: Bench, death: tuple[str, ...]) -> None:
    with staying(bench) as (run, session):
        holder = f"claude-bottle-{session}-key-holder"
        assert docker("exec", f"claude-bottle-{session}", "stat", "-f", "-c", "%T", "/run/ssh-agent") == "tmpfs\n"
        subprocess.run(("docker", *(holder if word == "KEY-HOLDER" else word for word in death)), check=False)
        ended = run.end()
    assert ended.code == 70
    assert "claude-bottle: the key-holder has exited, which ended the session" in ended.err


def test_a_session_is_removed_in_order_and_from_outside(bench: Bench) -> None:
    with staying(bench) as (run, session):
        kinds = [one.split(" ")[0] for one in bench.objects()]
        assert (kinds.count("ps"), kinds.count("volume")) == (4, 2), bench.objects()
        stopped = bench.run((str(CLI), "stop", session), {})
        assert stopped.out.decode() == f"stopped {session}\n"
        assert run.end().code == 128 + signal.SIGTERM
    assert bench.left() == []
