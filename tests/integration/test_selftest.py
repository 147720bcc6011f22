"""The self-test on the real engine: it passes whole, and each check fails in a bottle without that one protection."""

import base64
import dataclasses
import io
import os
import secrets
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from claude_bottle.bottle import home
from claude_bottle.bottle.plan import Plan, Run
from claude_bottle.cleanup import orphans
from claude_bottle.cleanup.stack import Teardown
from claude_bottle.egress import allowlist
from claude_bottle.host import addresses
from claude_bottle.host.addresses import Addresses
from claude_bottle.host.machine import TOKEN_VARIABLE, read_machine
from claude_bottle.manifest import agent as manifest
from claude_bottle.process.endpoint import Endpoint
from claude_bottle.process.engine import Engine
from claude_bottle.process.liveness import this_process
from claude_bottle.selftest import network_checks
from claude_bottle.selftest import receipt as selftest
from claude_bottle.selftest.evidence import Seen
from claude_bottle.selftest.receipt import Receipt, Verdict
from claude_bottle.session import planning, steps
from claude_bottle.session.runner import Runner
from claude_bottle.session.steps import Step
from tests.support import keys
from tests.world import World, api

# The bottle's client keeps its pipes to the end of the program, which is meant to be a launcher's.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")

Edit = Callable[[Plan, Step], Step | None]

HERE = addresses.read()
TOKEN = f"sk-ant-oat01-{secrets.token_hex(16)}"
built = list[str]()  # ids of images
API = allowlist.API
SECRET = "s3cret-" + secrets.token_hex(8)
BASIC = "Basic " + base64.b64encode(f"ada:{SECRET}".encode()).decode()
NARROW = "git.example.com:8443"
CREDENTIALS = """\
credentials:
  - host: api.example.com
    header: {Authorization: "Bearer ${SECRET}", X_Team: "7-${SECRET}"}
  - host: "git.example.com:8443"
    basic: {user: ada, password: "${SECRET}"}
    methods: [GET]
    paths: [/acme/site.git/]
"""


@dataclass(frozen=True)
class Case:
    """A bottle without a protection: what then fails and why, and how the steps are edited; words are templates.

    `more` is one more docker command before the self-test, `outside` what the probe takes for an outside address.
    """

    failed: set[str]
    because: str
    edits: dict[str, Edit] = field(default_factory=dict)
    more: tuple[str, ...] = ()
    outside: str = network_checks.OUTSIDE
    known: Addresses = HERE


def plus(*words: str) -> Edit:
    """Give flags to `docker run` or `docker create`."""
    return lambda _, step: dataclasses.replace(step, argv=(*step.argv[:2], *words, *step.argv[2:]))


def instead(old: tuple[str, ...], *new: str) -> Edit:
    """Put other words, or none, in the place of words that stand together in the argv, once."""

    def edit(_: Plan, step: Step) -> Step:
        [at] = [at for at in range(len(step.argv)) if step.argv[at : at + len(old)] == old]
        return dataclasses.replace(step, argv=(*step.argv[:at], *new, *step.argv[at + len(old) :]))

    return edit


def both(first: Edit, second: Edit) -> Edit:
    """Make two edits."""

    def edit(plan: Plan, step: Step) -> Step | None:
        changed = first(plan, step)
        return changed and second(plan, changed)

    return edit


def gone(_: Plan, __: Step) -> None:
    """Leave a step out."""


def rule(text: str, hook: str = "output") -> Edit:
    """Put a rule in front of all for what goes out, or in, of the lock or of the gate."""

    def edit(plan: Plan, step: Step) -> Step:
        rules, rest = step.stdin[: step.stdin_text], step.stdin[step.stdin_text :]
        head, begin, tail = rules.partition(f"hook {hook} priority 0; policy drop;\n".encode())
        assert begin
        more = head + begin + text.format(plan=plan).encode() + b"\n" + tail
        step = dataclasses.replace(step, argv=recounted(step.argv, len(rules), len(more)), stdin_text=len(more))
        return dataclasses.replace(step, stdin=more + rest)

    return edit


def file(name: str, old: str, new: str, times: int = 1) -> Edit:
    """Change a text, which is there so many times, in one of the files that the credential proxy gets."""

    def edit(_: Plan, step: Step) -> Step:
        rules, tar = step.stdin[: step.stdin_text], step.stdin[step.stdin_text :]
        entries = [home.Entry(each, data) for each, data in unpacked(tar)]
        [before] = [entry.data for entry in entries if entry.name == name and entry.data is not None]
        assert before.count(old.encode()) == times
        after = before.replace(old.encode(), new.encode())
        changed = home.archive((home.Entry(each.name, after) if each.name == name else each for each in entries), 65533)
        return dataclasses.replace(step, argv=recounted(step.argv, len(tar), len(changed)), stdin=rules + changed)

    return edit


def unpacked(tar: bytes) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        for member in opened:
            data = opened.extractfile(member)
            assert data
            yield member.name, data.read()


def script(old: str, new: str) -> Edit:
    """Change a text in the program that a container runs."""

    def edit(_: Plan, step: Step) -> Step:
        assert sum(word.count(old) for word in step.argv) == 1
        return dataclasses.replace(step, argv=tuple(word.replace(old, new) for word in step.argv))

    return edit


def image(lines: str) -> Edit:
    """Run a container from an image of its own, built on the base image."""

    def edit(plan: Plan, step: Step) -> Step:
        text = f"FROM {plan.base.tag}\n{lines}\n".encode()
        done = subprocess.run(("docker", "build", "--quiet", "-"), input=text, capture_output=True, check=True)
        built.append(done.stdout.decode().strip())
        return instead((plan.base.tag,), built[-1])(plan, step) or step

    return edit


@pytest.fixture(scope="module", autouse=True)
def _images_removed() -> Iterator[None]:
    yield
    if built:
        subprocess.run(("docker", "rmi", *dict.fromkeys(built)), capture_output=True, check=True)


def recounted(argv: tuple[str, ...], before: int, now: int) -> tuple[str, ...]:
    """Put another number of bytes in the place of one that a command has: as a word, or in its script."""
    script = (f"head --bytes {before} ", f"head --bytes {now} ")
    return tuple(str(now) if word == str(before) else word.replace(*script) for word in argv)


def config(*names: str, mode: str = "strict", uid: int = 65534) -> Edit:
    """Give the sidecar another file."""

    def edit(plan: Plan, step: Step) -> Step:
        ended = (end.name for end in plan.ended)
        text = allowlist.config(names, ended).replace(b"mode: strict", b"mode: " + mode.encode())
        return dataclasses.replace(step, stdin=home.archive([home.Entry("pipelock.yaml", text)], uid))

    return edit


def unmounted(_: Plan, step: Step) -> Step:
    """Leave the key-holder's socket out."""
    at = step.argv.index("--mount")
    return dataclasses.replace(step, argv=step.argv[:at] + step.argv[at + 2 :])


def writable(_: Plan, step: Step) -> Step:
    """Let the bottle write where the socket is."""
    return dataclasses.replace(step, argv=tuple(word.replace(",readonly", "") for word in step.argv))


INHIBITED = ("--opt", "com.docker.network.bridge.inhibit_ipv4=true")
ORDINARY = both(instead(("--internal",)), instead(INHIBITED))
DOCKER0 = {"network": ORDINARY, "lock": rule(f"ip daddr {HERE.docker0} tcp dport 443 accept")}
DROP, NO_NEW = ("--cap-drop", "ALL"), ("--security-opt", "no-new-privileges")
PROXY = ("--env", "https_proxy=http://pipelock:8888")


def memory(limit: int, swap: int) -> tuple[str, ...]:
    """Return the flags of a limit."""
    return ("--memory", str(limit), "--memory-swap", str(swap))


MEMORY, HOLDERS, PROXYS = (memory(limit, limit) for limit in (4 << 30, 64 << 20, 1 << 30))
GUARD = ("--user", "65532:65532")
# What the probe does not see if the first process is another user's.
UNSEEN = {"guard", "userland", "docker-socket", "limits", "privileges", "environment"}
ROOT = ("exec", "--user", "0", "{plan.name}")
# Newer engines (28.5.2 and 29.7.2 were seen) close IPv6 of an interface to which they give no such address: opened as
# older ones leave it.
OPEN_IPV6 = (
    "run", "--rm", "--network", "container:{plan.name}", "--cap-add", "NET_ADMIN", "--security-opt",
    "systempaths=unconfined", "--user", "0", "--entrypoint", "bash", "{plan.base.tag}",
    "-c", "echo 0 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6",
)  # fmt: skip
SOCKET = "type=bind,src=/var/run/docker.sock,dst=/tmp/docker.sock"
SIDECAR = "{plan.name}-sidecar"
# Takes a limit away where the engine does not see it, in either version of cgroups.
UNBOUND = """
if one=$(grep ^0:: /proc/1/cgroup) && [[ -e /cgroups/${{one#0::}}/memory.max ]]; then
    echo max > "/cgroups/${{one#0::}}/memory.max"
else
    cd "/cgroups/memory/$(sed -n 's/^[0-9]*:memory://p' /proc/1/cgroup)"
    echo -1 > memory.memsw.limit_in_bytes && echo -1 > memory.limit_in_bytes
fi
"""
SIGNED = {"signing", "upstream", "credential-proxy"}  # what nobody answers for if the proxy cannot be reached

CASES = {
    # The sidecar's address stands for an outside one, and refuses if its gate lets it: a real one must get no packet.
    "outside": Case(
        {"direct"}, "port 443: ECONNREFUSED",
        {"lock": rule("ip daddr {plan.sidecar_address} tcp dport 443 accept"),
         "gate": rule("tcp dport 443 accept", "input")},
        outside="{plan.sidecar_address}",
    ),
    "gateway": Case(
        {"gateway"}, "port 443: ECONNREFUSED",
        {"network": instead(INHIBITED), "lock": rule("ip daddr {plan.addresses[1]} tcp dport 443 accept")},
    ),
    "docker0": Case({"docker0"}, "443: ECONNREFUSED", DOCKER0, known=Addresses(docker0=HERE.docker0, why="left out")),
    "host": Case({"host"}, "443: ECONNREFUSED", DOCKER0, known=Addresses(host=HERE.host, why="left out")),
    "udp": Case({"udp"}, "port 53: sent", {"lock": rule("ip daddr {plan.sidecar_address} udp dport 53 accept")}),
    "broadcast": Case(
        {"broadcast"}, "port 53: sent", {"lock": rule("ip daddr {plan.addresses.broadcast_address} accept")}
    ),
    "resolver": Case({"names"}, "is open over UDP: ", {"lock": rule("ip daddr 127.0.0.11 accept")}),
    "name": Case({"names"}, f"{API} resolves to", {"bottle": plus("--add-host", f"{API}:198.51.100.130")}),
    "ipv6": Case(
        {"ipv6"}, "eth0",
        {"bottle": instead(("net.ipv6.conf.all.disable_ipv6=1",), "net.ipv6.conf.all.disable_ipv6=0")},
        more=OPEN_IPV6,
        known=Addresses(host=(HERE.docker0 or "",)),  # what the lock rejects of IPv6 link-local falls silent, no error
    ),
    # The sidecar.
    "sidecar dead": Case({"proxy", "refusal", "api", *SIGNED}, "no connection", more=("kill", SIDECAR)),
    "not strict": Case(
        {"proxy", "refusal"}, "mode is balanced",
        {"sidecar": instead(("--mode", "strict")), "sidecar-config": config(API, mode="balanced")},
    ),
    "host too many": Case({"refusal"}, " 200 ", {"sidecar-config": config(API, api.EXTRA_HOST)}),
    "api missing": Case({"api", *SIGNED}, "not in allowlist", {"sidecar-config": config("claude.ai")}),
    "sidecar with a capability": Case({"sidecar"}, "CapDrop is None", {"sidecar": instead(DROP)}),
    "sidecar root": Case(
        {"sidecar"}, "runs as 0", {"sidecar": instead(("65534:65534",), "0"), "sidecar-config": config(API, uid=0)}
    ),
    "sidecar elsewhere": Case({"sidecar"}, "network bridge", more=("network", "connect", "bridge", SIDECAR)),
    "sidecar restarts": Case({"restart"}, "sidecar's policy", {"sidecar": plus("--restart", "on-failure")}),
    "sidecar's variable": Case({"secrets"}, "X_TOKEN of the sidecar", {"sidecar": plus("--env", "X_TOKEN=x")}),
    # The bottle's processes.
    "capabilities": Case({"capabilities", "privileges"}, "has CapBnd", {"bottle": instead(DROP)}),
    "new privileges": Case({"no-new-privileges", "privileges"}, "can gain", {"bottle": instead(NO_NEW)}),
    "seccomp": Case(
        {"seccomp", "privileges"}, "no seccomp filter", {"bottle": plus("--security-opt", "seccomp=unconfined")}
    ),
    "root": Case({"user", *UNSEEN}, "is root's", {"bottle": instead(GUARD, "--user", "0")}),
    "privileged": Case(
        {"capabilities", "seccomp", "privileges"}, "is privileged", {"bottle": plus("--privileged", "--userns", "host")}
    ),
    "docker's socket": Case(
        {"docker-socket", "mounts"}, "/tmp/docker.sock", {"bottle": plus("--mount", SOCKET)}
    ),
    "a socket's place": Case(
        {"docker-socket"}, "/run/docker.sock",
        more=(*ROOT, "touch", "/run/docker.sock"),
    ),
    "a process's variable": Case(
        {"secrets", "guard"}, "has GH_TOKEN",
        more=("exec", "--detach", "--env", "GH_TOKEN=x", "{plan.name}", "sleep", "99"),
    ),
    # What holds it.
    "the agent's": Case(UNSEEN, "runs as 1000:1000", {"bottle": instead(GUARD, "--user", "1000:1000")}),
    "the image's": Case(
        {"guard", "environment"}, "first process is the image's", {"bottle": instead(("--init",))}
    ),
    "not alone": Case({"guard"}, "has the guard's user", more=("exec", "--detach", "{plan.name}", "sleep", "99")),
    "another's process": Case(
        {"guard"}, "has another user", more=("exec", "--detach", "--user", "7:7", "{plan.name}", "sleep", "99")
    ),
    "root's process": Case(
        {"user", "guard"}, "the engine's process",
        more=("exec", "--detach", "--user", "0", "{plan.name}", "sleep", "99"),
    ),
    # The programs that are run in it.
    "another program": Case({"userland"}, "/usr/bin/git is not", more=(*ROOT, "rm", "/usr/bin/git")),
    "another library": Case({"userland"}, "/etc/ld.so.preload is not", more=(*ROOT, "touch", "/etc/ld.so.preload")),
    "another module": Case({"userland"}, "/json* is not", more=(*ROOT, "touch", "/usr/lib/python3.11/json.so")),
    "another cache": Case(
        {"userland"}, "ld.so.cache",
        more=(*ROOT, "bash", "-c", "mkdir /x; cp /usr/lib/*/libz.so.1 /x; echo /x > /etc/ld.so.conf; ldconfig"),
    ),
    # The bottle's container.
    "key": Case({"secrets", "environment"}, "SOME_API_KEY of the bottle", {"bottle": plus("--env", "SOME_API_KEY=x")}),
    "variable": Case({"environment"}, "MORE was not planned", {"bottle": plus("--env", "MORE=x")}),
    "no proxy": Case({"environment"}, "https_proxy is missing", {"bottle": instead(PROXY)}),
    "second network": Case({"network"}, "also on network bridge", more=("network", "connect", "bridge", "{plan.name}")),
    "volume": Case({"mounts"}, "volume at /data", {"bottle": plus("--volume", "/data")}),
    "tmpfs": Case({"mounts"}, "a mount at /data, by the kernel", {"bottle": plus("--tmpfs", "/data")}),
    "device": Case({"privileges"}, "the device x is there", {"bottle": plus("--device", "/dev/null:/dev/x")}),
    "group": Case({"privileges"}, "is in group 7", {"bottle": plus("--group-add", "7")}),
    "host's name": Case(
        {"privileges"}, "UTSMode is host",
        {"bottle": both(plus("--uts", "host"), instead(("--hostname", "bottle")))},
    ),
    "core dumps": Case({"limits"}, "core dumps: limited to 1 and 1", {"bottle": instead(("core=0",), "core=1:1")}),
    "host's memory": Case({"privileges"}, "IpcMode is host", {"bottle": plus("--ipc", "host")}),
    "processes": Case({"limits"}, "processes: limited to 1025", {"bottle": instead(("1024",), "1025")}),
    "any processes": Case({"limits"}, "processes: not limited", {"bottle": instead(("--pids-limit", "1024"))}),
    "memory and swap": Case(
        {"limits"}, "memory: not limited", {"bottle": instead(MEMORY, "--memory-reservation", str(4 << 30))}
    ),
    "more memory": Case({"limits"}, "memory: limited to", {"bottle": instead(MEMORY, *memory(5 << 30, 5 << 30))}),
    "swap": Case({"limits"}, "memory and swap: limited to", {"bottle": instead(MEMORY, *memory(4 << 30, 5 << 30))}),
    "cpus": Case({"limits"}, "cpus: not limited", {"bottle": instead(("--cpu-quota", "200000"))}),
    "more cpus": Case(
        {"limits"}, "cpus: limited to 4", {"bottle": instead(("--cpu-period", "100000"), "--cpu-period", "50000")}
    ),
    "behind the engine's back": Case(
        {"limits"}, "memory: not limited",
        more=("run", "--rm", "--user", "0", "--userns", "host", "--network", "none", "--pid", "container:{plan.name}",
              "--cgroupns", "host", "--volume", "/sys/fs/cgroup:/cgroups", "{plan.base.tag}", "bash", "-c", UNBOUND),
    ),
    "no cgroup": Case(
        {"limits", "mounts"}, "memory: the limit in force cannot be read",
        {"bottle": plus("--mount", "type=tmpfs,dst=/sys/fs/cgroup")},
    ),
    "restarts": Case({"restart"}, "bottle's policy", {"bottle": instead(("--rm",), "--restart", "on-failure")}),
}  # fmt: skip


DROPS = "--inh-caps=-all --ambient-caps=-all --bounding-set=-all"

PROXY_CASES = {
    "another token": Case({"signing"}, "other credentials", {"gate": file("settings.json", TOKEN, f"{TOKEN}x")}),
    "nothing is signed": Case(
        {"signing"}, "other credentials", {"gate": file("credential_proxy.lua", "  sign(host)\n", "\n")}
    ),
    "a foreign key is kept": Case(
        {"signing"}, "other credentials", {"gate": file("credential_proxy.lua", '"api%-?key", "key$", ', "")}
    ),
    "a cookie is kept": Case(
        {"signing"}, "other credentials", {"gate": file("credential_proxy.lua", '"cookie", ', "")}
    ),
    "no verification": Case(
        {"upstream"}, "answers 200", {"gate": file("nginx.conf", "proxy_ssl_verify on;", "proxy_ssl_verify off;")}
    ),
    "no store of certificates": Case(  # which leaves what nginx insists on: the self-test's own
        {"upstream"}, "answers 200", {"gate": file("nginx.conf", "proxy_ssl_conf_command Verify", "# ", times=4)}
    ),
    "no server of its own": Case(
        {"signing", "upstream", "credential-proxy"}, "with the right certificate for api.anthropic.com either",
        {"gate": file("nginx.conf", "listen unix:/run/proxy/self-test.sock ssl;", "listen unix:/run/proxy/x ssl;")},
    ),
    "an authority for everything": Case(
        {"authority"}, "not constrained", {"gate": file("openssl.cnf", "nameConstraints =", "#")}
    ),
    "an authority for another": Case(
        {"authority"}, "may sign for DNS:example.com",
        {"gate": file("openssl.cnf", "= critical, permitted;", "= critical, permitted;DNS:example.com, permitted;")},
    ),
    "an authority for addresses": Case(
        {"authority"}, "for addresses", {"gate": file("openssl.cnf", "excluded;IP:0.0.0.0/0.0.0.0, ", "")}
    ),
    "an authority for authorities": Case(
        {"authority"}, "may make others", {"gate": file("openssl.cnf", ", pathlen:0", "")}
    ),
    "capabilities to come by": Case({"credential-proxy"}, "has CapBnd", {"gate": script("--bounding-set=-all", "")}),
    "capabilities": Case(
        {"credential-proxy"}, "has CapEff",
        {"gate": script(DROPS, "--inh-caps=-all,+net_admin --ambient-caps=-all,+net_admin")},
    ),
    "privileges to gain": Case(
        {"credential-proxy"}, "can gain privileges", {"gate": both(script("--no-new-privs", ""), instead(NO_NEW))}
    ),
    "another's proxy": Case(
        {"credential-proxy"}, "has the users [65500, 65500, 65500, 65500]",
        {"gate": both(script("--reuid 65533 --regid 65533", "--reuid 65500 --regid 65500"),
                      script("uid=65533,gid=65533", "uid=65500,gid=65500"))},
    ),
    "proxy's device": Case({"credential-proxy"}, "Devices is", {"gate": plus("--device", "/dev/null:/dev/x")}),
    "a capability more": Case({"credential-proxy"}, "SYS_PTRACE'", {"gate": plus("--cap-add", "SYS_PTRACE")}),
    "capabilities as usual": Case({"credential-proxy"}, "CapDrop is None", {"gate": instead(DROP)}),
    "proxy without seccomp": Case(
        {"credential-proxy"}, "SecurityOpt is", {"gate": plus("--security-opt", "seccomp=unconfined")}
    ),
    "writable proxy": Case({"credential-proxy"}, "is writable", {"gate": instead(("--read-only",))}),
    "proxy's volume": Case({"credential-proxy"}, "volume at /data", {"gate": plus("--volume", "/data")}),
    "proxy that swaps": Case(
        {"credential-proxy"}, "memory and swap: limited to",
        {"gate": instead(PROXYS, *memory(1 << 30, 1 << 31))},
    ),
    "proxy with any memory": Case({"credential-proxy"}, "memory: not limited", {"gate": instead(PROXYS)}),
    "proxy with more processes": Case(
        {"credential-proxy"}, "processes: limited to 33",
        {"gate": instead(("--pids-limit", "32"), "--pids-limit", "33")},
    ),
    "proxy restarts": Case(
        {"credential-proxy"}, "restart policy is on-failure", {"gate": instead(("--rm",), "--restart", "on-failure")}
    ),
    "proxy's variable": Case(
        {"credential-proxy"}, "X_TOKEN is in its environment", {"gate": plus("--env", "X_TOKEN=x")}
    ),
    "host's processes": Case({"credential-proxy"}, "IpcMode is host", {"gate": plus("--ipc", "host")}),
    "proxy's own image": Case({"credential-proxy"}, "its image is sha256:", {"gate": image("ENV A=b")}),
    "proxy of another network": Case(
        SIGNED, "did not run",
        {"gate": lambda plan, step: instead((f"container:{plan.sidecar}",), "bridge")(plan, step)},
    ),
}  # fmt: skip

# The first server block is that of all hosts but the API.
OTHERS = "server_name mcp-proxy.anthropic.com;"
LUA, CONF, VALUES = "credential_proxy.lua", "nginx.conf", "settings.json"
SIGNED_CASES = {
    "another value": Case(
        {"signing"}, "other credentials would have left for api.example.com",
        {"gate": file(VALUES, f'"Bearer {SECRET}"', f'"Bearer {SECRET}x"')},
    ),
    "a header is missing": Case(
        {"signing"}, "left for api.example.com", {"gate": file(VALUES, f', "X_Team": "7-{SECRET}"', "")}
    ),
    "a header too many": Case(
        {"signing"}, "left for api.example.com", {"gate": file(VALUES, '"X_Team"', '"X-More": "x", "X_Team"')}
    ),
    "another's value": Case(
        {"signing"}, f"left for {NARROW}", {"gate": file(VALUES, BASIC, f"Bearer {SECRET}")}
    ),
    "a foreign header is kept": Case(
        {"signing"}, "left for api.example.com",
        {"gate": file(LUA, 'ngx.req.clear_header((name:gsub("_", "-")))', "")},
    ),
    "a foreign cookie is kept at one host": Case(
        {"signing"}, f"left for {NARROW}",
        {"gate": file(LUA, "    if foreign or (", "    if (foreign and not (host.paths and not host.default)) or (")},
    ),
    "an override is kept": Case(
        {"signing"}, f"left for {NARROW}", {"gate": file(LUA, '"override", "^x%-http%-", ', '"override_", ')}
    ),
    "a host is not signed": Case(
        {"signing", "upstream"}, "answers 500 for api.example.com",
        {"gate": file(VALUES, '"api.example.com": ', '"api.example.org": ')},
    ),
    "another path passes": Case(
        {"signing"}, f"200 to a forbidden GET /.claude-bottle/elsewhere for {NARROW}",
        {"gate": file(LUA, "if not host.paths or listed(", "if not host.default or listed(")},
    ),
    "paths are missing": Case(
        {"signing"}, f"200 to a forbidden GET /acme/site.git/%2e%2e/ for {NARROW}",
        {"gate": file(VALUES, '"paths": [["*", "/acme/site.git/"]]', '"note": 0')},
    ),
    "a path that climbs passes": Case(
        {"signing"}, f"200 to a forbidden GET /acme/site.git/%2e%2e/ for {NARROW}",
        {"gate": file(LUA, "local bad = host.paths and", "local bad = host.default and")},
    ),
    "another method passes": Case(
        {"signing"}, f"200 to a forbidden DELETE /acme/site.git/ for {NARROW}",
        {"gate": file(VALUES, '"methods": {"GET": true}', '"note": 0')},
    ),
    "another path of the API passes": Case(
        {"signing"}, f"200 to a forbidden GET /.claude-bottle/elsewhere for {API}",
        {"gate": file(LUA, "if not host.paths or listed(", "if host.default or listed(")},
    ),
    "no verification of a user's host": Case(
        {"upstream"}, f"answers 200 for {NARROW}",
        {"gate": file(CONF, OTHERS, f"{OTHERS}\nproxy_ssl_verify off;")},
    ),
    "a host is not let through": Case({"signing", "upstream"}, "did not run", {"sidecar-config": config(API)}),
}  # fmt: skip

TOKEN_CASES = {
    "in the image's variables": Case(
        {"token", "environment"}, "a process or a file", {"bottle": image(f"ENV NOTE={TOKEN}")}
    ),
    "in a file of the image's": Case(
        {"token"}, "a process or a file", {"bottle": image(f"USER root\nRUN echo key={TOKEN}. > /etc/note")}
    ),
    "in a private file of the image's": Case(
        {"token"}, "a process or a file",
        {"bottle": image(f"USER agent\nRUN umask 077; mkdir ~/x; echo {TOKEN} > ~/x/.note")},
    ),
    "in the bottle's variables": Case(
        {"token", "environment"}, "docker inspect shows", {"bottle": plus("--env", f"NOTE=Bearer {TOKEN}")}
    ),
    "in the proxy's labels": Case({"token"}, "docker inspect shows", {"gate": plus("--label", f"x={TOKEN}")}),
    "in a process's variables": Case(
        {"token", "guard"}, "a process or a file",
        more=("exec", "--detach", "--env", f"NOTE={TOKEN}", "{plan.name}", "sleep", "99"),
    ),
    "in the words of the agent's process": Case(
        {"token"}, "a process or a file",
        more=("exec", "--detach", "--user", "1000:1000", "{plan.name}", "bash", "-c", "sleep 99; :", TOKEN),
    ),
    "in a file": Case({"token"}, "a process or a file", more=(*ROOT, "bash", "-c", f"echo {TOKEN} > /run/note")),
    "in the clone's place": Case(
        {"token"}, "a process or a file",
        more=("exec", "--user", "1000:1000", "{plan.name}", "bash", "-c", f"echo {TOKEN} > note"),
    ),
}  # fmt: skip

HOLDER = {
    "networked": Case({"key-holder"}, "on network bridge", {"key-holder": instead(("--network", "none"))}),
    "writable": Case({"key-holder"}, "is writable", {"key-holder": instead(("--read-only",))}),
    "capable": Case({"key-holder"}, "CapDrop is None", {"key-holder": instead(DROP)}),
    "gaining": Case({"key-holder"}, "it can gain privileges", {"key-holder": instead(NO_NEW)}),
    "without seccomp": Case(
        {"key-holder"}, "no seccomp filter", {"key-holder": plus("--security-opt", "seccomp=unconfined")}
    ),
    "with a volume": Case({"key-holder"}, "a mount at /data, by", {"key-holder": plus("--volume", "/data")}),
    "another's": Case({"key-holder"}, "runs as 1000", {"key-holder": instead(("1000:1000",), "1000")}),
    "swapping": Case({"key-holder"}, "and swap: limited", {"key-holder": instead(HOLDERS, *memory(64 << 20, 1 << 30))}),
    "with any memory": Case({"key-holder"}, "memory: not limited", {"key-holder": instead(HOLDERS)}),
    "with any processes": Case(
        {"key-holder"}, "processes: not limited", {"key-holder": instead(("--pids-limit", "32"))}
    ),
    "no socket": Case({"mounts"}, "is not mounted", {"bottle": unmounted}),
    "the bottle's too": Case({"mounts"}, "volume at /run/ssh-agent", {"bottle": writable}),
}  # fmt: skip


@pytest.fixture
def plan(world: World, agents_dir: Path) -> Plan:
    """The plan of a session of the demo agent in the test world."""
    return planned(world, agents_dir)


@pytest.fixture
def ssh_plan(world: World, agents_dir: Path) -> Plan:
    """The plan of a session whose bottle has an ssh host."""
    (agents_dir / "bottles/key").write_text(keys.private())
    bottle = agents_dir / "bottles/default.yaml"
    machine = f"{{host: git.test, key: key, known_host: {keys.public('host')}}}"
    bottle.write_text(f"{bottle.read_text()}ssh: [{machine}]\n")
    return planned(world, agents_dir)


@pytest.fixture
def signed_plan(world: World, agents_dir: Path) -> Plan:
    """The plan of a session that signs for two more hosts, which there are not."""
    bottle = agents_dir / "bottles/default.yaml"
    bottle.write_text(bottle.read_text() + CREDENTIALS)
    return planned(world, agents_dir)


def planned(world: World, agents_dir: Path) -> Plan:
    here = dataclasses.replace(
        read_machine(this_process()),
        environ={**os.environ, **world.environ(agents_dir), TOKEN_VARIABLE: TOKEN, "SECRET": SECRET},
    )
    agent = manifest.load_agent(agents_dir, "demo", environ=here.environ, home=here.home)
    asked = planning.request(here, agent, Run(terminal=False), endpoint=Endpoint())
    return planning.resolve(asked, Engine(here.environ))


def receipt(plan: Plan, case: Case) -> Receipt:
    """Run a session up to the self-test, edited, and judge it."""
    plan = dataclasses.replace(plan, known=case.known)
    edited = [case.edits.get(step.name, _same)(plan, step) for step in steps.table(plan).setup]
    left = [step for step in edited if step]
    names = {step.name for step in left}  # nothing waits for what was left out
    *rows, probe, inspect, processes = (
        dataclasses.replace(
            step,
            stdin_after=tuple(names.intersection(step.stdin_after)),
            quote_after=tuple(names.intersection(step.quote_after)),
        )
        for step in left
    )
    proof = (probe, inspect, processes)
    assert [step.name for step in proof] == ["selftest", "inspect", "processes"]
    if case.more:
        words = (word.format(plan=plan) for word in case.more)
        rows.append(Step("more", ("docker", *words), needs=tuple(step.name for step in rows)))
    needs = tuple(step.name for step in rows)
    table = [*rows, *(dataclasses.replace(step, needs=needs, stdin_after=(), quote_after=()) for step in proof)]
    with Teardown() as undo:
        results = Runner(undo, os.environ, lambda _: None).run(table)
    for step in rows:
        if step.removes_itself and "--rm" not in step.argv:  # it was told to stay
            subprocess.run(step.undo, capture_output=True, check=True)
    assert orphans.listed(os.environ, plan.session) == ()  # however it was edited
    printed = {name: result.stdout for name, result in results.items()}
    seen = Seen(*(printed.get(name, b"") for name in ("selftest", "inspect", "processes", "home", "key-holder")))
    return selftest.judge(plan, case.known, seen, 0.2)


def checks(plan: Plan) -> list[str]:
    """Return the names of all checks of a plan's bottle."""
    return [check.name for check in selftest.judge(plan, HERE, Seen(b"", b"", b"", b""), 0.0).checks]


def _same(_: Plan, step: Step) -> Step:
    return step


def test_a_bottle_passes_every_check(plan: Plan) -> None:
    told = receipt(plan, Case(set(), ""))
    assert [check.line for check in told.checks if check.verdict is not Verdict.PASSED] == []


def test_a_bottle_with_an_ssh_host_passes_every_check(ssh_plan: Plan) -> None:
    told = receipt(ssh_plan, Case(set(), ""))
    assert [check.line for check in told.checks if check.verdict is not Verdict.PASSED] == []
    assert [check.name for check in told.checks] == checks(ssh_plan)


def test_a_bottle_that_signs_for_more_hosts_passes_every_check(signed_plan: Plan) -> None:
    told = receipt(signed_plan, Case(set(), ""))
    assert [check.line for check in told.checks if check.verdict is not Verdict.PASSED] == []
    assert signed_plan.signing.digests.keys() == {API, "api.example.com", NARROW}


@pytest.mark.parametrize("case", SIGNED_CASES.values(), ids=SIGNED_CASES)
def test_a_check_fails_where_a_host_is_not_signed_as_planned(case: Case, signed_plan: Plan) -> None:
    told = receipt(signed_plan, case)
    assert {check.name for check in told.failed} == case.failed, "\n".join(told.lines())
    assert any(case.because in check.detail for check in told.failed), told.line()


@pytest.mark.parametrize("case", HOLDER.values(), ids=HOLDER.keys())
def test_a_check_fails_where_the_key_holder_is_not_as_planned(case: Case, ssh_plan: Plan) -> None:
    told = receipt(ssh_plan, case)
    assert {check.name for check in told.failed} == case.failed, "\n".join(told.lines())
    assert any(case.because in check.detail for check in told.failed), told.line()


@pytest.mark.parametrize("case", [*PROXY_CASES.values(), *TOKEN_CASES.values()], ids=[*PROXY_CASES, *TOKEN_CASES])
def test_a_check_fails_where_a_credential_is_not_as_planned(case: Case, plan: Plan) -> None:
    told = receipt(plan, case)
    assert {check.name for check in told.failed} == case.failed, "\n".join(told.lines())
    assert any(case.because in check.detail for check in told.failed), told.line()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_check_fails_where_its_protection_is_gone(case: Case, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_checks, "OUTSIDE", case.outside.format(plan=plan))
    monkeypatch.setattr(network_checks, "REFUSED", api.EXTRA_HOST)  # would be found, were it not refused
    told = receipt(plan, case)
    assert {check.name for check in told.failed} == case.failed, "\n".join(told.lines())
    assert any(case.because in check.detail for check in told.failed), told.line()


def test_every_check_has_a_bottle_in_which_it_fails(ssh_plan: Plan) -> None:
    cases = (case for table in (CASES, HOLDER, PROXY_CASES, TOKEN_CASES) for case in table.values())
    assert set.union(*(case.failed for case in cases)) == set(checks(ssh_plan))


def test_without_the_lock_a_bottle_reaches_its_network(plan: Plan) -> None:
    told = receipt(plan, Case(set(), "", {"lock": gone}))  # how much more is open is the engine's version's
    assert {check.name for check in told.failed} >= {"gateway", "udp", "broadcast", "names"}


def test_nothing_holds_up_a_search(plan: Plan) -> None:
    odd = "mkfifo /etc/pipe; ln -s / /etc/all; ln -s all /etc/all/run/more; truncate --size 1G /run/large"
    told = receipt(plan, Case(set(), "", more=(*ROOT, "bash", "-c", odd)))
    assert [check.line for check in told.checks if check.verdict is not Verdict.PASSED] == []


def test_a_network_that_is_down_is_no_leak(plan: Plan) -> None:
    """Nor does the self-test need it: whatever it asks is answered by the session's own containers."""
    down = rule("meta skuid 65533 ip daddr != 127.0.0.0/8 reject with icmpx type no-route")
    told = receipt(plan, Case(set(), "", {"gate": down}))
    assert [check.line for check in told.checks if check.verdict is not Verdict.PASSED] == []
