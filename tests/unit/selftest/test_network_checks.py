"""What the probe saw, judged."""

import pytest

from claude_bottle import REFUSED
from claude_bottle.bottle.plan import Plan
from claude_bottle.selftest.receipt import Verdict
from tests.support.receipts import MOUNTS, NO_DNS, REFUSAL, answers, judged, put, shown


def test_an_address_that_was_not_tried_is_a_failure(plan: Plan) -> None:
    said = answers(plan)
    del said["tcp"]["192.168.7.9 8888"]
    assert [check.name for check in judged(plan, said, shown(plan)).failed] == ["host"]


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
        (("processes", "9", "Uid"), ["65532", "0", "0", "0"], "user", "process 9 is root's"),
        (("processes", "7", "names"), ["GH_TOKEN"], "secrets", "process 7 has GH_TOKEN"),
        (("processes", "1", "names"), ["PATH", "MORE"], "environment", "process 1 has MORE"),
        (("processes", "9", "Groups"), ["65532", "0"], "privileges", "process 9 is in group 0"),
        (("devices",), ["null", "kvm"], "privileges", "the device kvm is there"),
        (("namespaces", "ipc"), "ipc:[4026531839]", "privileges", "the ipc namespace is the host's"),
        (("namespaces", "uts"), "uts:[4026531838]", "privileges", "the uts namespace is the host's"),
        (("mounts",), f"{MOUNTS}1 1 0:1 / /data rw - ext4 x rw\n", "mounts", "a mount at /data, by the kernel"),
        (("mounts",), f"{MOUNTS}1 1 0:1 / /run/ssh-agent ro - tmpfs x rw\n", "mounts",
         "a mount at /run/ssh-agent, by the kernel"),
        (("core",), ["0", "unlimited"], "limits", "core dumps: limited to 0 and unlimited bytes, not switched off"),
        (("sockets",), ["/run/docker.sock"], "docker-socket", "/run/docker.sock"),
    ],
)  # fmt: skip
def test_what_the_probe_saw_is_told(plan: Plan, path: tuple[str, ...], value: object, name: str, detail: str) -> None:
    said = answers(plan)
    put(said, path, value)
    assert [(check.name, check.detail) for check in judged(plan, said, shown(plan)).failed] == [(name, detail)]


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
