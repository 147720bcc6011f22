"""What docker built of a session with ssh hosts, judged."""

import copy
from pathlib import Path
from typing import Any

import pytest

from claude_bottle.bottle.plan import Plan, Run
from tests.support import plans, receipts
from tests.support.plans import SSH_HOST
from tests.support.receipts import answers, cgroup, holder, judged, shown
from tests.support.scene import NAME

MOUNT = {"Type": "volume", "Name": f"{NAME}-keys", "Destination": "/run/ssh-agent", "RW": False}
BOTTLE, HOLDER = 0, 4
BOUND = f"{receipts.MOUNTS}1 1 0:1 / /run/ssh-agent ro - tmpfs x rw\n"  # the bottle's mounts


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """The plan of a session with one ssh host."""
    folder = plans.manifests(tmp_path / "agents", bottle=f"ssh: [{SSH_HOST}]\n")
    plans.ssh(folder / "bottles")
    return plans.plan(folder, Run(terminal=True), CLAUDE_BOTTLE_OAUTH_TOKEN=plans.TOKEN)


def built(plan: Plan) -> list[Any]:
    """What `docker inspect` shows of a session that is as it should be."""
    bottle, sidecar, gate, image = shown(plan)
    bottle["Mounts"] = [dict(MOUNT)]
    bottle["Config"]["Env"] += ["SSH_AUTH_SOCK=/run/ssh-agent/sock"]
    holder = {
        "Name": f"/{plan.name}-key-holder", "Mounts": [MOUNT | {"RW": True}],
        "HostConfig": copy.deepcopy(sidecar["HostConfig"]) | {"NetworkMode": "none"}
        | {"LogConfig": {"Type": "none"}},
        "Config": {"User": "1000:1000", "Env": ["HTTP_PROXY="]}, "NetworkSettings": {"Networks": {"none": {}}},
    }  # fmt: skip
    return [bottle, sidecar, gate, image, holder]


def test_a_good_key_holder_is_one_check_more(plan: Plan) -> None:
    assert judged(plan, answers(plan) | {"mounts": BOUND}, built(plan)).line() == "isolation  32 checks passed in 0.3 s"


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
    assert [(check.name, check.detail) for check in judged(plan, answers(plan) | {"mounts": BOUND}, seen).failed] == [
        (name, detail)
    ]


@pytest.mark.parametrize(
    ("files", "detail"),
    [
        ({"memory.memsw.limit_in_bytes": str(1 << 27)}, "memory and swap: limited to 134217728, not 67108864"),
        ({"memory.limit_in_bytes": str(1 << 27)}, "memory: limited to 134217728, not 67108864"),
        ({"pids.max": "33"}, "processes: limited to 33, not 32"),
        (
            {"pids.max": "max"},
            "processes: not limited; see ./cli.py doctor; limits: {pids: none} in the bottle does without",
        ),
    ],
)
def test_limits_in_force_in_the_key_holder_are_told(plan: Plan, files: dict[str, str], detail: str) -> None:
    receipt = judged(
        plan, answers(plan) | {"mounts": BOUND}, built(plan), key_holder=holder(cgroup(1 << 26, 32) | files)
    )
    assert [(check.name, check.detail) for check in receipt.failed] == [("key-holder", detail)]


@pytest.mark.parametrize(
    ("name", "old", "new", "detail"),
    [
        ("status", "CapBnd:\t0000000000000000", "CapBnd:\t00000000a80425fb", "it has CapBnd 00000000a80425fb"),
        ("status", "NoNewPrivs:\t1", "NoNewPrivs:\t0", "it can gain privileges"),
        ("status", "Seccomp:\t2", "Seccomp:\t0", "it has no seccomp filter"),
        ("status", "Uid:\t1000\t1000", "Uid:\t1000\t0", "its users are 1000, 0, 1000, 1000, by the kernel"),
        ("status", "Gid:\t1000", "Gid:\t0", "its users are 1000, 1000, 1000, 1000, by the kernel"),
        ("mountinfo", " / / ro", " / / rw", "its file system is writable, by the kernel"),
        ("mountinfo", " / /tmp ", " / /data ", "a mount at /data, by the kernel"),
        ("route", "Gateway", "Gateway\neth0\t00000000\t010011AC", "it has an address on eth0"),
    ],
)
def test_what_the_kernel_says_of_the_key_holder_is_told(plan: Plan, name: str, old: str, new: str, detail: str) -> None:
    assert old in receipts.HOLDER[name]
    line = holder(cgroup(1 << 26, 32) | {name: receipts.HOLDER[name].replace(old, new)})
    failed = judged(plan, answers(plan) | {"mounts": BOUND}, built(plan), key_holder=line).failed
    assert [(check.name, check.detail) for check in failed] == [("key-holder", detail)]


def test_a_key_holder_whose_limits_were_not_seen_fails(plan: Plan) -> None:
    [failed] = judged(plan, answers(plan) | {"mounts": BOUND}, built(plan), key_holder=holder({})).failed
    assert failed.name == "key-holder"
    assert failed.detail.startswith("memory: the limit in force cannot be read; processes: the limit in force")


def test_a_kernel_that_does_not_limit_swap_is_told(plan: Plan) -> None:
    files = cgroup(1 << 26, 32)
    del files["memory.memsw.limit_in_bytes"]
    seen = built(plan)
    told = judged(plan, answers(plan) | {"mounts": BOUND}, seen, key_holder=holder(files)).line().splitlines()
    assert told[1].split()[:4] == ["warning", "key-holder", "the", "engine's"]
    seen[HOLDER]["HostConfig"]["ReadonlyRootfs"] = False
    failed = judged(plan, answers(plan) | {"mounts": BOUND}, seen, key_holder=holder(files)).failed
    assert [check.detail for check in failed] == ["its file system is writable"]


def test_without_ssh_hosts_not_even_the_socket_may_be_mounted(tmp_path: Path) -> None:
    plain = plans.plan(plans.manifests(tmp_path / "plain"), Run(terminal=True))
    seen = shown(plain)
    seen[BOTTLE]["Mounts"] = [MOUNT]
    assert [check.detail for check in judged(plain, answers(plain), seen).failed] == ["volume at /run/ssh-agent"]
