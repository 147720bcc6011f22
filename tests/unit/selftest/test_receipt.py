"""How the self-test judges what it is told, and that its probe tells what is there."""

import ast
import copy
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from claude_bottle import REFUSED
from claude_bottle.bottle import docker_flags
from claude_bottle.bottle.plan import Plan, Run
from claude_bottle.host import addresses
from claude_bottle.host.addresses import Addresses
from claude_bottle.selftest import inspect_checks, network_checks, probe
from claude_bottle.selftest import receipt as selftest
from claude_bottle.selftest.receipt import Receipt, Verdict
from tests.support import plans

KNOWN = Addresses(("172.17.0.1", "192.168.7.9", "fe80::42"), "172.17.0.1")
REFUSAL = f"HTTP/1.0 403 Forbidden\r\n\r\nCONNECT blocked: domain not in allowlist: {REFUSED}\n"
IMAGE_ENV = ["PATH=/usr/bin:/bin", "LANG=C.UTF-8"]
NO_DNS = "HTTP/1.0 403 Forbidden\r\n\r\nSSRF check failed: DNS resolution error for api.anthropic.com"


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """The plan of a session."""
    return plans.plan(plans.manifests(tmp_path), Run(terminal=True))


def answers(plan: Plan) -> dict[str, Any]:
    """What the probe says in a bottle that is as it should be."""
    asked: Any = network_checks.question(plan, KNOWN)
    status = {name: ["0" * 16] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    status |= {"Uid": ["1000"] * 4, "NoNewPrivs": ["1"], "Seccomp": ["2"], "names": ["PATH", "HOME"]}
    return {
        "resolved": [],
        "health": 'HTTP/1.0 200 OK\r\n\r\n{"mode": "strict"}',
        "refused": REFUSAL,
        "allowed": "HTTP/1.1 200 Connection Established\r\n\r\n",
        "tcp": {target: "EADDRNOTAVAIL" if "fe80" in target else "EHOSTUNREACH" for target in asked["tcp"]},
        "udp": {target: "EADDRNOTAVAIL" if "::" in target else "EPERM" for target in asked["udp"]},
        "dns": {"udp": "EPERM", "tcp": "ECONNREFUSED"},
        "ipv6": [],
        "processes": {"self": "9", "1": copy.deepcopy(status), "9": copy.deepcopy(status)},
        "sockets": [],
        "cgroup2": True,
    }


def shown(plan: Plan) -> list[Any]:
    """What `docker inspect` shows of a session that is as it should be."""
    config = {
        "Privileged": False, "CapDrop": ["ALL"], "CapAdd": None, "SecurityOpt": ["no-new-privileges"], "Devices": [],
        "PidMode": "", "UTSMode": "", "UsernsMode": "", "IpcMode": "private", "CgroupnsMode": "private",
        "RestartPolicy": {"Name": "no"}, "PortBindings": {}, "NetworkMode": plan.name, "ReadonlyRootfs": True,
        "PidsLimit": 1024, "Memory": 4 << 30, "MemorySwap": 4 << 30, "CpuQuota": 200000, "CpuPeriod": 100000,
    }  # fmt: skip
    planned = [word for word in docker_flags.proxy_variables("http://pipelock:8888") if "=" in word]
    own = {plan.name: {"IPAddress": str(plan.bottle_address)}}
    bottle = {
        "Name": f"/{plan.name}", "Mounts": [], "HostConfig": config,
        "Config": {"Env": [*planned, *IMAGE_ENV]}, "NetworkSettings": {"Networks": own},
    }  # fmt: skip
    sidecar = {
        "Name": f"/{plan.name}-sidecar", "Mounts": [{"Type": "volume", "Destination": "/config"}],
        "HostConfig": copy.deepcopy(config), "Config": {"User": "65534:65534", "Env": None},
        "NetworkSettings": {"Networks": {**own, plan.egress.name: {}}},
    }  # fmt: skip
    return [bottle, sidecar, {"RepoTags": [plan.image.tag], "Config": {"Env": IMAGE_ENV}}]


def judged(plan: Plan, said: object, seen: object, known: Addresses = KNOWN) -> Receipt:
    """Judge answers that were made up."""
    return selftest.judge(plan, known, json.dumps(said).encode(), json.dumps(seen).encode(), 0.31)


def test_a_good_bottle_passes_in_one_line(plan: Plan) -> None:
    receipt = judged(plan, answers(plan), shown(plan))
    assert receipt.line() == "isolation  24 checks passed in 0.3 s"
    assert len(receipt.lines()) == 24
    assert receipt.failed == ()
    data = receipt.as_json()
    assert (data["passed"], data["seconds"]) == (True, 0.31)
    assert json.dumps(data).count('"verdict": "passed"') == 24


@pytest.mark.parametrize("text", [b"", b"\xff", b"null", b"[]", b"{}", b"[1, null]", b'{"tcp": 3, "processes": []}'])
def test_nothing_and_garbage_fail_every_check(plan: Plan, text: bytes) -> None:
    receipt = selftest.judge(plan, KNOWN, text, text, 0.0)
    assert [check.verdict for check in receipt.checks] == [Verdict.FAILED] * 24
    assert all(check.detail.startswith("did not run") for check in receipt.checks)


def test_half_of_the_answers_is_none(plan: Plan) -> None:
    probe_said, inspected = (json.dumps(text).encode() for text in (answers(plan), shown(plan)))
    without_probe = {check.name for check in selftest.judge(plan, KNOWN, probe_said[:-9], inspected, 0).failed}
    without_inspect = {check.name for check in selftest.judge(plan, KNOWN, probe_said, inspected[:-9], 0).failed}
    assert len(without_probe | without_inspect) == 24
    assert without_probe & without_inspect == {"secrets"}


@pytest.mark.parametrize(
    "key", ["resolved", "health", "refused", "allowed", "tcp", "udp", "dns", "ipv6", "processes", "sockets"]
)
def test_an_answer_that_is_missing_is_a_failure(plan: Plan, key: str) -> None:
    said = answers(plan)
    del said[key]
    failed = judged(plan, said, shown(plan)).failed
    assert failed
    assert all(check.detail.startswith("did not run") for check in failed)


def test_an_address_that_was_not_tried_is_a_failure(plan: Plan) -> None:
    said = answers(plan)
    del said["tcp"]["192.168.7.9 8888"]
    assert [check.name for check in judged(plan, said, shown(plan)).failed] == ["host"]


def test_what_cannot_apply_says_why(plan: Plan) -> None:
    receipt = judged(plan, answers(plan), shown(plan), Addresses(why="the engine is not on this host"))
    assert receipt.line() == "isolation  22 checks passed in 0.3 s, 2 not applicable"
    moot = [check for check in receipt.checks if check.verdict is Verdict.MOOT]
    assert [check.name for check in moot] == ["docker0", "host"]
    assert {check.detail for check in moot} == {"the engine is not on this host"}


BOTTLE, SIDECAR = 0, 1  # their places in what is shown
CRLF = "\r\n"


@pytest.mark.parametrize(
    ("path", "value", "name", "detail"),
    [
        (("tcp", "198.51.100.1 443"), "no answer", "direct", "198.51.100.1 port 443: no answer"),
        (("tcp", "198.51.100.1 8888"), "connected", "direct", "198.51.100.1 port 8888: connected"),
        (("tcp", "198.51.100.1 443"), "EADDRNOTAVAIL", "direct", "198.51.100.1 port 443: EADDRNOTAVAIL"),
        (("tcp", "192.168.7.9 443"), "ECONNREFUSED", "host", "192.168.7.9 port 443: ECONNREFUSED"),
        (("tcp", "fe80::42 443"), "ECONNREFUSED", "host", "fe80::42 port 443: ECONNREFUSED"),
        (("udp", "224.0.0.251 53"), "sent", "broadcast", "224.0.0.251 port 53: sent"),
        (("resolved",), ["198.51.100.9"], "names", "api.anthropic.com resolves to 198.51.100.9"),
        (("dns", "udp"), "answered", "names", "Docker's resolver is open over UDP: answered"),
        (("ipv6",), ["fe80 eth0"], "ipv6", "fe80 eth0"),
        (("health",), 'HTTP/1.0 200 OK\r\n\r\n{"mode": "audit"}', "proxy", "the sidecar's mode is audit"),
        (("health",), "no answer", "proxy", "the sidecar does not answer: no answer"),
        (("refused",), NO_DNS, "refusal", f"CONNECT {REFUSED}: {NO_DNS.replace(CRLF * 2, ': ')}"),
        (("refused",), "\x1b[2J", "refusal", f"CONNECT {REFUSED}: \\x1b[2J"),
        (("processes", "1", "CapBnd"), ["00000000a80425fb"], "capabilities", "process 1 has CapBnd 00000000a80425fb"),
        (("processes", "1", "NoNewPrivs"), ["0"], "no-new-privileges", "process 1 can gain privileges"),
        (("processes", "9", "Seccomp"), ["0"], "seccomp", "process 9 has no seccomp filter"),
        (("processes", "1", "Uid"), ["1000", "0", "0", "0"], "user", "process 1 is root's"),
        (("processes", "1", "names"), ["GH_TOKEN"], "secrets", "process 1 has GH_TOKEN"),
        (("sockets",), ["/run/docker.sock"], "docker-socket", "/run/docker.sock"),
    ],
)  # fmt: skip
def test_what_the_probe_saw_is_told(plan: Plan, path: tuple[str, ...], value: object, name: str, detail: str) -> None:
    said = answers(plan)
    _set(said, path, value)
    assert [(check.name, check.detail) for check in judged(plan, said, shown(plan)).failed] == [(name, detail)]


@pytest.mark.parametrize(
    ("path", "value", "name", "detail"),
    [
        ((BOTTLE, "HostConfig", "NetworkMode"), "host", "network", "network mode host"),
        ((BOTTLE, "HostConfig", "PortBindings"), {"80/tcp": []}, "network", "port 80/tcp is published"),
        ((BOTTLE, "Mounts"), [{"Type": "bind", "Destination": "/x"}], "mounts", "bind at /x"),
        ((BOTTLE, "HostConfig", "Tmpfs"), {"/x": ""}, "mounts", "tmpfs at /x"),
        ((BOTTLE, "HostConfig", "CapAdd"), ["NET_RAW"], "privileges", "CapAdd is ['NET_RAW']"),
        ((BOTTLE, "HostConfig", "SecurityOpt"), ["no-new-privileges", "apparmor=unconfined"], "privileges",
         "SecurityOpt is ['no-new-privileges', 'apparmor=unconfined']"),
        ((BOTTLE, "HostConfig", "PidMode"), "host", "privileges", "PidMode is host"),
        ((BOTTLE, "HostConfig", "UTSMode"), "host", "privileges", "UTSMode is host"),
        ((BOTTLE, "HostConfig", "IpcMode"), "container:x", "privileges", "IpcMode is container:x"),
        ((BOTTLE, "HostConfig", "CgroupnsMode"), "host", "privileges", "CgroupnsMode is host"),
        ((BOTTLE, "HostConfig", "GroupAdd"), ["docker"], "privileges", "GroupAdd is ['docker']"),
        ((BOTTLE, "HostConfig", "MemorySwap"), 8 << 30, "limits", f"MemorySwap is {8 << 30}, not {4 << 30}"),
        ((BOTTLE, "HostConfig", "RestartPolicy", "Name"), "always", "restart", "the bottle's policy is always"),
        ((SIDECAR, "HostConfig", "ReadonlyRootfs"), False, "sidecar", "its file system is writable"),
        ((SIDECAR, "Mounts"), [{"Type": "bind", "Destination": "/config"}], "sidecar", "bind at /config"),
        ((SIDECAR, "Config", "Env"), ["KEY=x"], "secrets", "docker inspect shows KEY of the sidecar"),
        ((2, "Config", "Env"), [*IMAGE_ENV, "A=1"], "environment", "A is missing"),
        ((2, "Config", "Env"), [*IMAGE_ENV[:1], "LANG=C"], "environment", "LANG differs"),
    ],
)  # fmt: skip
def test_what_was_built_is_told(plan: Plan, path: tuple[Any, ...], value: object, name: str, detail: str) -> None:
    seen = shown(plan)
    _set(seen, path, value)
    assert [(check.name, check.detail) for check in judged(plan, answers(plan), seen).failed] == [(name, detail)]


def test_a_kernel_that_does_not_limit_swap_is_a_warning(plan: Plan) -> None:
    seen = shown(plan)
    seen[BOTTLE]["HostConfig"]["MemorySwap"] = -1
    told = judged(plan, answers(plan), seen).line().splitlines()
    assert told[0] == "isolation  23 checks passed in 0.3 s"
    assert told[1].split()[:3] == ["warning", "limits", "the"]


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("HTTP/1.1 200 Connection Established\r\n\r\n", Verdict.PASSED),
        ("HTTP/1.0 502 Bad Gateway\r\n\r\nno route to host", Verdict.WARNING),
        ("HTTP/1.0 503 Service Unavailable\r\n\r\n", Verdict.WARNING),
        (NO_DNS, Verdict.WARNING),
        ("no answer", Verdict.WARNING),
        (REFUSAL, Verdict.FAILED),
        ("HTTP/1.0 400 Bad Request\r\n\r\n", Verdict.FAILED),
        ("no connection: timed out", Verdict.FAILED),
        ("", Verdict.FAILED),
    ],
)
def test_only_a_network_that_is_down_excuses_the_api(plan: Plan, answer: str, verdict: Verdict) -> None:
    receipt = judged(plan, answers(plan) | {"allowed": answer}, shown(plan))
    assert [check.verdict for check in receipt.checks if check.name == "api"] == [verdict]


def _names(plan: Plan, *names: str) -> set[str]:
    seen = shown(plan)
    seen[SIDECAR]["Config"]["Env"] = [f"{name}=x" for name in names]
    told = [check.detail for check in judged(plan, answers(plan), seen).failed if check.name == "secrets"]
    return {name for name in names if told and f" {name} " in told[0]}


def test_names_of_secrets_are_known_from_others(plan: Plan) -> None:
    secrets = {"API_KEY", "apikey", "GH_TOKEN", "TOKEN2", "DB_PASSWORD", "MYSQL_PWD", "GH_PAT", "AWS_SECRET_ACCESS_KEY"}
    others = {"PATH", "PWD", "OLDPWD", "KEYBOARD", "MAX_THINKING_TOKENS", "TOKENIZERS_PARALLELISM", "MONKEYS"}
    assert _names(plan, *secrets, *others) == secrets
    assert inspect_checks.SECRET.search("CLAUDE_CODE_OAUTH_TOKEN")


def _set(data: Any, path: tuple[Any, ...], value: object) -> None:
    for key in path[:-1]:
        data = data[key]
    data[path[-1]] = value


TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 127.0.0.1
        /32 host LOCAL
     |-- 172.17.0.0
        /16 link UNICAST
     |-- 172.17.0.1
        /24 link UNICAST
        /32 host LOCAL
     |-- 172.17.255.255
        /32 link BROADCAST
Local:
     |-- 172.17.0.1
        /32 host LOCAL
     |-- 192.168.7.9
        /32 host LOCAL
"""
INET6 = """\
fe8000000000000000428ffffea3a357 05 40 20 80  docker0
00000000000000000000000000000001 01 80 10 80       lo
"""


def test_addresses_come_from_the_kernels_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fib_trie").write_text(TRIE)
    monkeypatch.setattr(addresses, "_FIB_TRIE", tmp_path / "fib_trie")
    monkeypatch.setattr(addresses, "_IF_INET6", tmp_path / "if_inet6")
    assert addresses.read(local=True).host == ("172.17.0.1", "192.168.7.9")
    (tmp_path / "if_inet6").write_text(INET6)
    assert addresses.read(local=True).host == ("172.17.0.1", "192.168.7.9", "fe80::42:8fff:fea3:a357")
    assert addresses.read(local=False) == Addresses(why="the engine is not on this host")
    (tmp_path / "fib_trie").unlink()
    assert addresses.read(local=True).why.startswith("this system does not list its addresses")


@contextmanager
def sidecar(answer: bytes) -> Iterator[int]:
    """Listen on loopback and give everybody one answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1024)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def test_the_probe_tells_what_is_there() -> None:
    source = Path(probe.__file__).read_text()
    with sidecar(b"HTTP/1.0 200 OK\r\n\r\nhello") as port, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        refusing = f"127.0.0.1 {closed.getsockname()[1]}"
        asked = {
            "sidecar": ("127.0.0.1", port), "outside": "localhost", "refused": "a.invalid", "resolver": "127.0.0.1",
            "tcp": [f"127.0.0.1 {port}", refusing], "udp": ["no target"],
        }  # fmt: skip
        program = f"{source}\nmain({asked!r})\n".encode()
        argv = (sys.executable, "-I", "-")
        ran = subprocess.run(argv, input=program, capture_output=True, check=True, env={"PLANTED": "x"})
    said = json.loads(ran.stdout)
    assert said["tcp"] == {f"127.0.0.1 {port}": "connected", refusing: "ECONNREFUSED"}
    assert "127.0.0.1" in said["resolved"]
    assert said["health"] == "HTTP/1.0 200 OK\r\n\r\nhello"
    assert said["allowed"].startswith("HTTP/1.0 200")
    own = said["processes"][said["processes"]["self"]]
    assert "PLANTED" in own["names"]
    assert len(own["Uid"]) == 4
    assert "udp" not in said  # the look tripped: no answer, rather than half of one


def test_the_probe_runs_on_an_old_python_alone() -> None:
    tree = ast.parse(Path(probe.__file__).read_text(), feature_version=(3, 9))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names <= sys.stdlib_module_names
