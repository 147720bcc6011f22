"""What a bottle that is as it should be answers and shows, and how that is judged."""

import copy
import json
from typing import Any

from claude_bottle import REFUSED
from claude_bottle.bottle import agent, credential_proxy
from claude_bottle.bottle.plan import Plan
from claude_bottle.egress.allowlist import API
from claude_bottle.host.addresses import Addresses
from claude_bottle.selftest import credential_checks, network_checks, userland_checks
from claude_bottle.selftest import receipt as selftest
from claude_bottle.selftest.evidence import Seen
from claude_bottle.selftest.receipt import Receipt

KNOWN = Addresses(("172.17.0.1", "192.168.7.9", "fe80::42"), "172.17.0.1")
REFUSAL = f"HTTP/1.0 403 Forbidden\r\n\r\nCONNECT blocked: domain not in allowlist: {REFUSED}\n"
IMAGE_ENV = ["PATH=/usr/bin:/bin", "LANG=C.UTF-8"]
NO_DNS = "HTTP/1.0 403 Forbidden\r\n\r\nSSRF check failed: DNS resolution error for api.anthropic.com"
SEARCH = {"digests": ["0" * 40], "whole": True}
LISTED = b"PID RUID EUID SUID\n4711 65532 65532 65532\n4799 65532 65532 65532\n"  # by the engine
MOUNTS = "".join(
    f"1 1 0:1 / {place} rw,nosuid - tmpfs x rw\n"
    for place in (
        "/",
        "/proc",
        "/proc/sys",
        "/dev",
        "/dev/null",
        "/sys/fs/cgroup",
        "/etc/hosts",
        "/usr/sbin/docker-init",
    )
)
BOTTLE, SIDECAR, GATE, IMAGE = 0, 1, 2, 3  # their places in what is shown


def answers(plan: Plan) -> dict[str, Any]:
    """What the probe says in a bottle that is as it should be."""
    asked: Any = network_checks.question(plan, KNOWN)
    status: dict[str, object] = {name: ["0" * 16] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    status |= {"PPid": ["0"], "Uid": ["65532"] * 4, "Gid": ["65532"] * 4, "NoNewPrivs": ["1"], "Seccomp": ["2"]}
    signer = {"Name": "nginx", "Uid": [65533] * 4, "Gid": "\t".join(["65533"] * 4), "NoNewPrivs": "1", "Seccomp": "2"}
    signer |= dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0" * 16)
    processes = {"1": {**signer, "Name": "bash"}, "33": signer}
    status |= {"names": ["PATH", "HOME"], "exe": "/usr/sbin/docker-init", "Groups": ["65532"]}
    shell = copy.deepcopy(status) | {"PPid": ["1"], "exe": "/usr/bin/bash"}
    compared = (*userland_checks.PROGRAMS, *userland_checks.FILES, "/usr/lib/python3.11/subprocess.py")
    return {
        "resolved": [],
        "health": 'HTTP/1.0 200 OK\r\n\r\n{"mode": "strict"}',
        "refused": REFUSAL,
        "allowed": "HTTP/1.1 200 Connection Established\r\n\r\n",
        "signed": {key: signed(plan, key, processes) for key in plan.signing.digests},
        "authority": [1, authority(plan)],
        "tokens": copy.deepcopy(SEARCH),
        "tcp": {target: "EADDRNOTAVAIL" if "fe80" in target else "EHOSTUNREACH" for target in asked["tcp"]},
        "udp": {target: "EADDRNOTAVAIL" if "::" in target else "EPERM" for target in asked["udp"]},
        "dns": {"udp": "EPERM", "tcp": "ECONNREFUSED"},
        "ipv6": [],
        "processes": {"self": "9", "1": copy.deepcopy(status), "7": shell, "9": copy.deepcopy(status)},
        "sockets": [],
        "shell": "/usr/bin/bash",
        "userland": {path: [f"{path} 0123", f"{path} 0123"] for path in compared},
        "limits": cgroup(4 << 30, 1024) | {"cpu.cfs_quota_us": "200000\n", "cpu.cfs_period_us": "100000\n"},
        "core": ["0", "0"],
        "mounts": MOUNTS,
        "devices": ["full", "null", "ptmx", "pts", "zero"],
        "namespaces": {"ipc": "ipc:[4026532297]", "uts": "uts:[4026532296]"},
        "addresses": [str(plan.bottle_address)],
        "cgroup2": True,
    }


def signed(plan: Plan, key: str, processes: object) -> dict[str, list[object]]:
    """What a good proxy answers at a host with a credential, by request."""
    right = {"digest": plan.signing.digests[key], "processes": processes, "limits": cgroup(1 << 30, 32)}
    right["mounts"] = MOUNTS.replace(" / / rw", " / / ro") + "1 1 0:1 / /run/proxy rw - tmpfs x rw\n"
    answers: dict[str, list[object]] = {
        credential_checks.RIGHT: [200, json.dumps(right)],
        credential_checks.WRONG: [502, "claude-bottle: the host cannot be reached"],
    }
    [asked] = [requests for name, *_, requests in credential_checks.question(plan)["signed"] if name == key]
    status = 400 if key == API else 403
    return {request: answers.get(request, [status, "claude-bottle: it is not among"]) for request in asked}


def cgroup(memory: int, pids: int) -> dict[str, str]:
    """The limits of a cgroup of version 1, without those of the CPUs."""
    size = f"{memory}\n"
    return {"memory.limit_in_bytes": size, "memory.memsw.limit_in_bytes": size, "pids.max": f"{pids}\n"}


def authority(plan: Plan) -> list[str]:
    """What OpenSSL prints of the authority that a good proxy makes."""
    return [
        *("X509v3 Basic Constraints: critical", "CA:TRUE, pathlen:0"),
        *("X509v3 Key Usage: critical", "Certificate Sign"),
        *("X509v3 Name Constraints: critical", "Permitted:", *(f"DNS:{end.name}" for end in plan.ended)),
        *("Excluded:", "IP:0.0.0.0/0.0.0.0", "IP:0:0:0:0:0:0:0:0/0:0:0:0:0:0:0:0"),
    ]


def shown(plan: Plan) -> list[Any]:
    """What `docker inspect` shows of a session that is as it should be."""
    config = {
        "Privileged": False, "CapDrop": ["ALL"], "CapAdd": None, "SecurityOpt": ["no-new-privileges"], "Devices": [],
        "PidMode": "", "UTSMode": "", "UsernsMode": "", "IpcMode": "private", "CgroupnsMode": "private",
        "RestartPolicy": {"Name": "no"}, "PortBindings": {}, "NetworkMode": plan.name, "ReadonlyRootfs": True,
    }  # fmt: skip
    planned = [word for word in (*agent.proxy_variables(plan), *agent.trust_variables()) if "=" in word]
    own = {plan.name: {"IPAddress": str(plan.bottle_address)}}
    bottle = {
        "Name": f"/{plan.name}", "Mounts": [], "HostConfig": {**config, "Init": True}, "State": {"Pid": 4711},
        "Config": {"User": "65532:65532", "Env": [*planned, *IMAGE_ENV]}, "NetworkSettings": {"Networks": own},
    }  # fmt: skip
    sidecar = {
        "Name": f"/{plan.name}-sidecar", "Id": "51deca4", "Mounts": [{"Type": "volume", "Destination": "/config"}],
        "HostConfig": copy.deepcopy(config), "Config": {"User": "65534:65534", "Env": None},
        "NetworkSettings": {"Networks": {**own, plan.egress.name: {}}},
    }  # fmt: skip
    gate = {
        "Name": f"/{plan.gate}", "Mounts": [], "NetworkSettings": {"Networks": {}},
        "HostConfig": copy.deepcopy(config) | {"NetworkMode": "container:51deca4"}
        | {"CapAdd": [f"CAP_{name}" for name in credential_proxy.CAPABILITIES], "Tmpfs": {"/run/proxy": "size=4m"}},
        "Config": {"User": "0:0", "Image": plan.base.tag, "Env": ["HTTP_PROXY=", *IMAGE_ENV]},
    }  # fmt: skip
    return [bottle, sidecar, gate, {"Id": "sha256:0", "RepoTags": [plan.image.tag], "Config": {"Env": IMAGE_ENV}}]


HOLDER = {
    "status": "Name:\tbash\n" + "".join(f"{key}:\t{'0' * 16}\n" for key in network_checks.CAPABILITIES)
    + "Uid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\nNoNewPrivs:\t1\nSeccomp:\t2",
    "mountinfo": MOUNTS.replace(" / / rw", " / / ro")
    + "1 1 0:1 / /tmp rw - tmpfs x rw\n1 1 0:1 / /run/ssh-agent rw - tmpfs x rw",
    "route": "Iface\tDestination\tGateway",
    "if_inet6": "",
}  # fmt: skip


def holder(files: dict[str, str]) -> bytes:
    """What a key-holder prints on its first line."""
    facts = "".join(f"{name}={text.strip()};" for name, text in (HOLDER | files).items()).replace("\n", "|")
    return f"{facts}SSH_AUTH_SOCK=/run/ssh-agent/sock; export SSH_AUTH_SOCK;\n".encode()


def judged(
    plan: Plan,
    said: object,
    seen: object,
    known: Addresses = KNOWN,
    listed: bytes = LISTED,
    home: object = SEARCH,
    key_holder: bytes | None = None,
) -> Receipt:
    """Judge answers that were made up."""
    probe, inspect, filled = (json.dumps(each).encode() for each in (said, seen, home))
    line = holder(cgroup(1 << 26, 32)) if key_holder is None else key_holder
    return selftest.judge(plan, known, Seen(probe, inspect, listed, filled, line), 0.31)


def put(data: Any, path: tuple[Any, ...], value: object) -> None:
    """Change one value in what is answered or shown."""
    for key in path[:-1]:
        data = data[key]
    data[path[-1]] = value
