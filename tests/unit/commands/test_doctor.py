"""What keeps a start from working, as lines and as JSON; docker is a fake one."""

import json
from typing import Any

import pytest

from tests.support.scene import Scene


def test_a_fault_is_a_line_and_gives_69(scene: Scene) -> None:
    code, out, _ = scene.run("doctor", CLAUDE_BOTTLE_OAUTH_TOKEN="")
    fault, client, *_ = out.splitlines()
    assert (code, fault.split()[:2], client.split()[:3]) == (69, ["FAULT", "token"], ["ok", "docker", "client"])
    assert "claude setup-token" in fault
    findings = json.loads(scene.run("doctor", "--json", CLAUDE_BOTTLE_OAUTH_TOKEN="")[1])
    assert [(finding["name"], finding["fault"]) for finding in findings[:2]] == [
        ("token", True),
        ("docker client", False),
    ]


def test_a_token_that_cannot_work_is_a_fault(scene: Scene) -> None:
    code, out, _ = scene.run("doctor", CLAUDE_BOTTLE_OAUTH_TOKEN="sk-ant-api03-hunter2")
    assert code == 69
    assert out.splitlines()[0].split(maxsplit=2)[2].startswith("CLAUDE_BOTTLE_OAUTH_TOKEN is an API key")
    assert "hunter2" not in out


def test_an_engine_that_does_not_answer_is_a_fault(scene: Scene) -> None:
    scene.rule("version", code=1, stderr="Cannot connect to the Docker daemon\n")
    code, out, _ = scene.run("doctor")
    assert (code, out.splitlines()[-1].split()[:2]) == (69, ["FAULT", "docker"])


def test_the_version_of_claude_in_the_image_is_told(scene: Scene) -> None:
    def told() -> str:
        return next(line.partition(", ")[2] for line in scene.run("doctor")[1].splitlines() if " image  " in line)

    scene.rule("image inspect", stdout='[null,{"claude-bottle.claude-code":"2.1.332"}]\n' * 2, times=1)
    assert told() == "Claude Code 2.1.332"
    scene.rule("image inspect", stdout="[null,null]\n" * 2, times=1)
    assert told() == "Claude Code of an unknown version"
    scene.rule("image inspect", code=1, stderr="Error: No such image\n")
    assert told() == "built by the first start"


ABLE = {
    "MemoryLimit": True, "SwapLimit": True, "PidsLimit": True, "CpuCfsPeriod": True, "CpuCfsQuota": True,
    "CgroupVersion": "2", "CgroupDriver": "systemd", "SecurityOptions": ["name=seccomp,profile=builtin"],
}  # fmt: skip
NO_CGROUPS = "version 1, driver none; rootless engines need cgroup v2 and systemd"
CANNOT = "FAULT limits cannot be enforced"
NONE = dict.fromkeys(("MemoryLimit", "SwapLimit", "PidsLimit", "CpuCfsPeriod", "CpuCfsQuota"), False)
# What Engine 20.10.24 says, rootless, on a machine with cgroup v1.
ROOTLESS = NONE | {
    "CgroupVersion": "1", "CgroupDriver": "none", "SecurityOptions": ["name=seccomp,profile=default", "name=rootless"]
}  # fmt: skip


@pytest.mark.parametrize(
    ("more", "name", "line"),
    [
        ({}, "limits", "ok limits enforced (version 2, driver systemd)"),
        (ROOTLESS, "limits",
         f"{CANNOT}: memory, pids, cpus ({NO_CGROUPS}); limits: {{memory: none, pids: none, cpus: none}} does without"),
        ({"CpuCfsQuota": False}, "limits",
         f"{CANNOT}: cpus (version 2, driver systemd; its kernel lacks them); limits: {{cpus: none}} does without"),
        ({}, "swap", "ok swap limited"),
        ({"SwapLimit": False}, "swap",
         "open swap not limited: secrets may be swapped out; switch swap off, or boot with swapaccount=1"),
        ({}, "seccomp", "ok seccomp the engine's own profile"),
        ({"SecurityOptions": ["name=seccomp,profile=/etc/x\033.json"]}, "seccomp",
         "open seccomp /etc/x\\x1b.json is not the engine's own profile: a bottle may do what that allows"),
        ({"SecurityOptions": ["name=seccomp,profile=unconfined"]}, "seccomp",
         "FAULT seccomp off: no bottle starts without; use an engine with its default profile"),
        ({"SecurityOptions": None}, "seccomp",
         "FAULT seccomp off: no bottle starts without; use an engine with its default profile"),
        ({}, "apparmor", "ok apparmor not used by this engine; no promise needs it"),
        ({"SecurityOptions": ["name=apparmor", "name=seccomp"]}, "apparmor",
         "ok apparmor a second guard of each container"),
        (ROOTLESS, "users", "ok users rootless: root in a container is a user without rights here"),
        ({"SecurityOptions": ["name=seccomp", "name=userns"]}, "users",
         "ok users mapped: root in a container is a user without rights here"),
    ],
)  # fmt: skip
def test_what_the_engine_cannot_promise_is_a_line(scene: Scene, more: dict[str, Any], name: str, line: str) -> None:
    scene.rule("info --format {{json .}}", stdout=json.dumps(ABLE | more))
    code, out, _ = scene.run("doctor")
    assert [words for words in (" ".join(row.split()) for row in out.splitlines()) if words.split()[1] == name] == [
        line
    ]
    assert (code == 69) == ("FAULT" in out)


@pytest.mark.parametrize("said", ["", "true", "[", "null"])
def test_an_engine_that_says_nothing_of_itself_is_a_fault(scene: Scene, said: str) -> None:
    scene.rule("info --format {{json .}}", stdout=said)
    code, out, _ = scene.run("doctor")
    assert code == 69
    assert "what docker info prints cannot be read" in out


@pytest.mark.parametrize(
    ("version", "word"), [("20.10.24+dfsg1", "open"), ("24.0.9", "open"), ("25.0.0", "ok"), ("29.7.2", "ok")]
)
def test_sockets_to_a_hypervisor_are_open_before_25(scene: Scene, version: str, word: str) -> None:
    scene.rule("version", stdout=f"28.2.2 {version}\n")
    [line] = [line for line in scene.run("doctor")[1].splitlines() if " AF_VSOCK " in line]
    assert line.split()[0] == word
    assert ("25.0 and newer block that" in line) == (word == "open")
