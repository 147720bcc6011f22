"""A session with ssh hosts: how its key-holder is judged, and what becomes of both when one of them fails."""

import copy
import json
import sys
import time
from pathlib import Path
from typing import Any

import pexpect
import pytest

from claude_bottle.plan import Plan, Run
from tests import keys
from tests.unit import plans
from tests.unit import scene as scenes
from tests.unit.scene import NAME, STEPS, USUAL, Scene
from tests.unit.test_selftest import answers, judged, shown

HOST = f"{{host: git.example.org, key: ssh/plain, known_host: {keys.public('pinned')}}}"
LOCKED = HOST.replace("ssh/plain", "ssh/locked")
UNLOCK = "--workdir /tmp/key-1"
SERVE = "ssh-agent -D -P none"
REMOVED = [("docker", "volume", "rm", f"{NAME}-keys"), *USUAL]  # the others end by their lifelines
MOUNT = {"Type": "volume", "Name": f"{NAME}-keys", "Destination": "/run/ssh-agent", "RW": False}
BOTTLE, HOLDER = 0, 3
TRUSTING = scenes.TRUSTING | {"selftest.KEY_RULES": []}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """The plan of a session with one ssh host."""
    folder = plans.manifests(tmp_path / "agents", bottle=f"ssh: [{HOST}]\n")
    plans.ssh(folder / "bottles")
    return plans.plan(folder, Run(terminal=True))


def built(plan: Plan) -> list[Any]:
    """What `docker inspect` shows of a session that is as it should be."""
    bottle, sidecar, image = shown(plan)
    bottle["Mounts"] = [dict(MOUNT)]
    bottle["Config"]["Env"] += ["SSH_AUTH_SOCK=/run/ssh-agent/sock"]
    holder = {
        "Name": f"/{plan.name}-key-holder", "Mounts": [MOUNT | {"RW": True}],
        "HostConfig": copy.deepcopy(sidecar["HostConfig"]) | {"NetworkMode": "none"}
        | {"Memory": 1 << 26, "MemorySwap": 1 << 26, "LogConfig": {"Type": "none"}},
        "Config": {"User": "1000:1000", "Env": ["HTTP_PROXY="]}, "NetworkSettings": {"Networks": {"none": {}}},
    }  # fmt: skip
    return [bottle, sidecar, image, holder]


def test_a_good_key_holder_is_one_check_more(plan: Plan) -> None:
    assert judged(plan, answers(plan), built(plan)).line() == "isolation  25 checks passed in 0.3 s"


@pytest.mark.parametrize(
    ("path", "value", "name", "detail"),
    [
        ((HOLDER, "HostConfig", "NetworkMode"), "bridge", "key-holder", "network mode bridge"),
        ((HOLDER, "NetworkSettings", "Networks"), {"bridge": {}}, "key-holder", "on network bridge"),
        ((HOLDER, "HostConfig", "ReadonlyRootfs"), False, "key-holder", "its file system is writable"),
        ((HOLDER, "HostConfig", "CapDrop"), None, "key-holder", "CapDrop is None"),
        ((HOLDER, "HostConfig", "Privileged"), True, "key-holder", "it is privileged"),
        ((HOLDER, "HostConfig", "PidMode"), "host", "key-holder", "PidMode is host"),
        ((HOLDER, "HostConfig", "RestartPolicy", "Name"), "always", "key-holder", "its restart policy is always"),
        ((HOLDER, "Config", "User"), "", "key-holder", "it runs as root"),
        ((HOLDER, "Config", "Env"), ["A_TOKEN=x"], "key-holder", "A_TOKEN is in its environment"),
        ((HOLDER, "HostConfig", "MemorySwap"), 1 << 27, "key-holder", "MemorySwap is 134217728, not 67108864"),
        ((HOLDER, "HostConfig", "LogConfig", "Type"), "json-file", "key-holder", "its log driver is json-file"),
        ((HOLDER, "Mounts"), [MOUNT], "key-holder", "its socket is not in the session's volume"),
        ((HOLDER, "Mounts"), [MOUNT | {"RW": True}, MOUNT | {"Type": "bind", "RW": True}], "key-holder",
         "bind at /run/ssh-agent"),
        ((HOLDER, "Name"), "/other", "key-holder", "did not run (KeyError: 'HostConfig')"),
        ((BOTTLE, "Mounts"), [], "mounts", "the key-holder's socket is not mounted at /run/ssh-agent, read-only"),
        ((BOTTLE, "Mounts"), [MOUNT, MOUNT | {"Destination": "/x"}], "mounts", "volume at /x"),
        ((BOTTLE, "Mounts"), [MOUNT | {"RW": True}], "mounts",
         "volume at /run/ssh-agent; the key-holder's socket is not mounted at /run/ssh-agent, read-only"),
        ((BOTTLE, "Mounts"), [MOUNT | {"Name": "another"}], "mounts",
         "volume at /run/ssh-agent; the key-holder's socket is not mounted at /run/ssh-agent, read-only"),
    ],
)  # fmt: skip
def test_what_was_built_is_told(plan: Plan, path: tuple[Any, ...], value: object, name: str, detail: str) -> None:
    seen = built(plan)
    inner: Any = seen
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    assert [(check.name, check.detail) for check in judged(plan, answers(plan), seen).failed] == [(name, detail)]


def test_a_kernel_that_does_not_limit_swap_is_told(plan: Plan) -> None:
    seen = built(plan)
    seen[HOLDER]["HostConfig"]["MemorySwap"] = -1
    told = judged(plan, answers(plan), seen).line().splitlines()
    assert told[1].split()[:4] == ["warning", "key-holder", "the", "engine's"]
    seen[HOLDER]["HostConfig"]["ReadonlyRootfs"] = False
    assert [check.detail for check in judged(plan, answers(plan), seen).failed] == ["its file system is writable"]


def test_without_ssh_hosts_not_even_the_socket_may_be_mounted(tmp_path: Path) -> None:
    plain = plans.plan(plans.manifests(tmp_path / "plain"), Run(terminal=True))
    seen = shown(plain)
    seen[BOTTLE]["Mounts"] = [MOUNT]
    assert [check.detail for check in judged(plain, answers(plain), seen).failed] == ["volume at /run/ssh-agent"]


def give(scene: Scene, host: str) -> None:
    """Give the scene's bottle an ssh host."""
    (scene.agents / "bottles/default.yaml").write_text(f"ssh: [{host}]\n")
    plans.ssh(scene.agents / "bottles")


def test_the_key_holder_outlives_the_bottle_and_the_volume_both(scene: Scene) -> None:
    give(scene, HOST)
    assert scene.run("start", "demo", "--yes", patches=TRUSTING)[0] == 0
    assert scene.undone == REMOVED
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
    give(scene, HOST)
    scene.rule("ssh-add -q", code=1, stderr=f'Error loading key "(stdin)": {said}\n')
    code, _, err = scene.run("start", "demo", "--yes")
    path = scene.agents / "bottles/ssh/plain"
    assert code == 70
    assert f'key-1: {path} cannot be used: Error loading key "(stdin)": {said}{cure.format(path=path)}' in err
    assert [each for each in scene.undone if each in REMOVED] == REMOVED


def test_an_encrypted_key_wants_a_terminal_before_docker_is_asked(scene: Scene) -> None:
    give(scene, LOCKED)
    code, _, err = scene.run("start", "demo", "--yes")
    path = scene.agents / "bottles/ssh/locked"
    assert code == 65
    assert f"{path} is encrypted, and nobody can be asked for its passphrase: stdin is not a terminal" in err
    assert scene.log == []


def test_a_key_holder_that_ends_ends_the_session(scene: Scene) -> None:
    give(scene, HOST)
    scene.rule(SERVE, stdout="up\n", code=1)
    scene.rule(STEPS["claude"], fifo="claude", code=137)
    child = scene.launch("start", "demo", "--yes", patches=TRUSTING | {"monitor._LOOK": 0.01})
    with scene.held("claude"):
        while not any(event.ends(f"--name {NAME} ") for event in scene.log):
            time.sleep(0.01)
    code, _, err = scene.end(child)
    assert code == 70
    assert err.count("claude-bottle: the key-holder has ended, so the session was ended too") == 1, err
    assert scene.undone == [("docker", "rm", "--force", "--volumes", f"{NAME}-key-holder"), *REMOVED]


def test_a_key_holder_that_does_not_start_is_told(scene: Scene) -> None:
    give(scene, HOST)
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
    assert scene.undone == REMOVED


def await_more_read(scene: Scene, command: str) -> None:
    """Wait until the fake docker of a command has read more of its stdin than it has now."""
    [pid] = [event.more["pid"] for event in scene.calls if event.starts(command)]
    end, before = time.monotonic() + 300, Path(f"/proc/{pid}/io").read_text().split()[1]
    while Path(f"/proc/{pid}/io").read_text().split()[1] == before:
        assert time.monotonic() < end, f"nothing is written to {command}"


def test_a_remote_key_holder_hears_the_beat_while_the_passphrase_is_asked_for(scene: Scene) -> None:
    scene.rule(UNLOCK, fifo="asked", code=1)
    child = on_a_terminal(scene, {"monitor._BEAT": 0.001}, DOCKER_HOST="tcp://198.51.100.129:2375")
    with scene.held("asked"):
        for name in (NAME, f"{NAME}-key-holder"):
            await_more_read(scene, f"run --name {name} ")
    assert ended(scene, child)[0] == 65


def test_a_key_holder_that_ends_at_the_question_is_told_as_that(scene: Scene) -> None:
    scene.rule(SERVE, stdout="up\n", code=1)
    scene.rule(UNLOCK, code=137)
    child = on_a_terminal(scene, {"monitor._LOOK": 3600})  # not the one to tell it
    assert ended(scene, child)[:2] == (70, "claude-bottle: the key-holder has ended, so the session was ended too")
