"""A session with ssh hosts: what becomes of it and of its key-holder when one of them fails."""

import json
import signal
import sys
import time
from pathlib import Path

import pexpect
import pytest

from tests.support import keys, plans, systems
from tests.support import scene as scenes
from tests.support.clients import NO_ENGINE, RECORDED
from tests.support.plans import SSH_HOST
from tests.support.scene import NAME, STEPS, USUAL, Scene

LOCKED = SSH_HOST.replace("ssh/plain", "ssh/locked")
UNLOCK = "--workdir /tmp/key-1"
SERVE = "ssh-agent -D -P none"
# The others end by their lifelines. The sidecar is removed beside the rest, at any time before the network.
SIDECAR, NETWORK = USUAL
REMOVED = [("docker", "volume", "rm", f"{NAME}-keys"), NETWORK]
TRUSTING = scenes.TRUSTING | {"selftest.receipt.KEY_RULES": []}


def removed(scene: Scene) -> list[tuple[str, ...]]:
    """Return what was removed, in order, but for the sidecar, which is to be removed once, and before the network."""
    undone = list(scene.undone)
    assert undone.count(SIDECAR) == 1
    assert undone.index(SIDECAR) < undone.index(NETWORK)
    undone.remove(SIDECAR)
    return undone


def give(scene: Scene, host: str) -> None:
    """Give the scene's bottle an ssh host."""
    (scene.agents / "bottles/default.yaml").write_text(f"ssh: [{host}]\n")
    plans.ssh(scene.agents / "bottles")


def test_the_key_holder_outlives_the_bottle_and_the_volume_both(scene: Scene) -> None:
    give(scene, SSH_HOST)
    assert scene.run("start", "demo", "--yes", patches=TRUSTING)[0] == 0
    assert removed(scene) == REMOVED
    ends = [scene.at("end", f"--name {name} ") for name in (NAME, f"{NAME}-key-holder")]
    assert ends[0] < ends[1] < scene.at("start", "volume rm")
    assert scene.at("end", "ssh-add -q") < scene.at("start", STEPS["claude"])
    [added] = [event for event in scene.log if event.ends("ssh-add -q")]
    assert added.more["stdin"] == keys.private("plain")


@pytest.mark.parametrize(
    ("said", "cure"),
    [("error in libcrypto", ""), ("invalid format", "; `ssh-keygen -p -f {path}`, of OpenSSH 9.6")],
)
def test_a_key_that_is_refused_is_named_with_its_cure(scene: Scene, said: str, cure: str) -> None:
    give(scene, SSH_HOST)
    scene.rule("ssh-add -q", code=1, stderr=f'Error loading key "(stdin)": {said}\n')
    code, _, err = scene.run("start", "demo", "--yes")
    path = scene.agents / "bottles/ssh/plain"
    assert code == 70
    assert f'key-1: {path} cannot be used: Error loading key "(stdin)": {said}{cure.format(path=path)}' in err
    assert [each for each in removed(scene) if each in REMOVED] == REMOVED


def test_an_encrypted_key_wants_a_terminal_before_docker_is_asked(scene: Scene) -> None:
    give(scene, LOCKED)
    code, _, err = scene.run("start", "demo", "--yes")
    path = scene.agents / "bottles/ssh/locked"
    assert code == 65
    assert f"cannot prompt for the passphrase of {path}: stdin is not a terminal" in err
    assert scene.log == []


GONE = [
    ({}, 70, "the key-holder has exited, which ended the session"),
    ({"code": 1, "stderr": f"{NO_ENGINE[RECORDED]}\n"}, 69, "docker cannot be used: failed to connect"),
]


@pytest.mark.parametrize(("version", "ended_with", "message"), GONE, ids=["alone", "with its engine"])
def test_a_key_holder_that_ends_ends_the_session(
    scene: Scene, version: dict[str, object], ended_with: int, message: str
) -> None:
    scene.rule("version", **version)
    give(scene, SSH_HOST)
    scene.rule(SERVE, stdout="up\n", stays="serves", code=1)
    scene.rule(STEPS["claude"], fifo="claude", code=137)
    child = scene.launch("start", "demo", "--yes", patches=TRUSTING | {"session.monitor._LOOK": 0.01})
    with scene.held("claude"):
        with scene.held("serves"):
            pass
        while not any(event.ends(f"--name {NAME} ") for event in scene.log):
            time.sleep(0.01)
    code, _, err = scene.end(child)
    assert code == ended_with
    assert err.count(f"claude-bottle: {message}") == 1, err
    assert removed(scene) == [("docker", "rm", "--force", "--volumes", f"{NAME}-key-holder"), *REMOVED]


def test_a_key_holder_that_does_not_start_is_told(scene: Scene) -> None:
    give(scene, SSH_HOST)
    scene.rule(SERVE, code=127, stderr="bash: line 1: ssh-agent: command not found\n")
    code, _, err = scene.run("start", "demo", "--yes")
    assert (code, "key-holder: bash: line 1: ssh-agent: command not found" in err) == (70, True), err


def on_a_terminal(scene: Scene, patches: scenes.Patches, **environ: str) -> "pexpect.spawn[bytes]":
    """Start a session whose key is encrypted on a terminal, its stderr in the file `err`."""
    give(scene, LOCKED)
    argv = [sys.executable, str(scenes.PATCHED), json.dumps(TRUSTING | patches), "start", "demo", "--yes"]
    script = f'exec "$@" 2> {scene.folder}/err'
    return pexpect.spawn(
        "/bin/bash", ["-c", script, "bash", *argv], env={**scene.environ, **environ}, cwd=str(scene.folder), timeout=300
    )


def ended(scene: Scene, child: "pexpect.spawn[bytes]") -> tuple[int | None, str, bytes]:
    """Wait for its end; return its exit code, the last line of stderr and what the terminal got."""
    child.expect(pexpect.EOF)
    child.close()
    scene.pids.add(child.pid or 0)
    return child.exitstatus, (scene.folder / "err").read_text().splitlines()[-1], child.before or b""


@pytest.mark.parametrize(("code", "shown"), [(1, b"asked"), (130, b"asked\r\n")], ids=["wrong", "ctrl-c"])
def test_a_passphrase_is_asked_for_on_the_terminal_wherever_stderr_leads(scene: Scene, code: int, shown: bytes) -> None:
    scene.rule(UNLOCK, stdout="asked", code=code)
    path = scene.agents / "bottles/ssh/locked"
    told = f"claude-bottle: {path} was not unlocked; nothing ran in the bottle"
    assert ended(scene, on_a_terminal(scene, {})) == (65, told, shown)
    assert removed(scene) == REMOVED


def await_more_read(scene: Scene, command: str) -> None:
    """Wait until the fake docker of a command has read more of its stdin than it has now."""
    [pid] = [event.more["pid"] for event in scene.calls if event.starts(command)]
    end, before = time.monotonic() + 300, Path(f"/proc/{pid}/io").read_text().split()[1]
    while Path(f"/proc/{pid}/io").read_text().split()[1] == before:
        assert time.monotonic() < end, f"nothing is written to {command}"


@systems.needs_linux("/proc/PID/io")
def test_a_remote_key_holder_hears_the_beat_while_the_passphrase_is_asked_for(scene: Scene) -> None:
    scene.rule(UNLOCK, fifo="asked", code=1)
    child = on_a_terminal(scene, {"session.monitor._BEAT": 0.001}, DOCKER_HOST="tcp://198.51.100.129:2375")
    with scene.held("asked"):
        for name in (NAME, f"{NAME}-key-holder"):
            await_more_read(scene, f"run --name {name} ")
        child.kill(signal.SIGSTOP)  # as Ctrl-Z does
        for name in (NAME, f"{NAME}-key-holder") * 9:  # more than was on its way
            await_more_read(scene, f"run --name {name} ")
        child.kill(signal.SIGCONT)
    assert ended(scene, child)[0] == 65


@pytest.mark.parametrize(("version", "ended_with", "message"), GONE, ids=["alone", "with its engine"])
def test_a_key_holder_that_ends_at_the_question_is_told_as_that(
    scene: Scene, version: dict[str, object], ended_with: int, message: str
) -> None:
    scene.rule("version", **version)
    scene.rule(SERVE, stdout="up\n", code=1)
    scene.rule(UNLOCK, code=137)
    child = on_a_terminal(scene, {"session.monitor._LOOK": 3600})  # not the one to tell it
    code, last, _ = ended(scene, child)
    assert (code, last.startswith(f"claude-bottle: {message}")) == (ended_with, True), last
