"""What the product and its tests rely on in the sidecar's image. See the package for how it is run."""

import hashlib
import socket

import pytest

from claude_bottle import pipelock
from tests.contract.conftest import ALLOWED
from tests.contract.rig import PORT, Rig, Sidecar, until
from tests.contract.wire import client_hello, reachable, read_answer, read_exactly
from tests.world.shell import run

# The rows share their sidecars: on one worker.
pytestmark = pytest.mark.xdist_group("contract")

CONFIG = pipelock.config(ALLOWED)
OFF = "plain HTTP is off, use https"
NOT_LISTED, PRIVATE = "domain not in allowlist: {}", "SSRF blocked: {} resolves to internal IP"


def row(name: str, *values: object) -> object:
    return pytest.param(*values, id=name.replace(" ", "-"))


# Starting


def test_starts_read_only_and_unprivileged_and_says_so(sidecar: Sidecar) -> None:
    started = sidecar.event(event="startup")
    assert (started["mode"], started["config_hash"]) == ("strict", hashlib.sha256(CONFIG).hexdigest())
    assert started["listen"] == f"{sidecar.inner}:{PORT}"


def test_listens_on_its_inner_address_alone(rig: Rig, sidecar: Sidecar) -> None:
    assert not sidecar.healthy()  # asks 127.0.0.1
    assert not reachable(sidecar.inner, 9091)
    assert rig.from_outside(sidecar).endswith("Connection refused")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        row("no file", None, "no such file"),
        row("an empty file", b"", "api_allowlist"),
        row("an unknown key", CONFIG + b"surprise: 1\n", "surprise not found"),
        row("an empty list", CONFIG.partition(b"api_allowlist:")[0] + b"api_allowlist: []\n", "api_allowlist"),
        row("broken YAML", CONFIG + b"x: [\n", "yaml"),
    ],
)
def test_refuses_to_start_with(rig: Rig, config: bytes | None, said: str) -> None:
    with rig.started("refusing", config) as sidecar:
        until(lambda: not sidecar.state()[0], "it has ended")
        assert sidecar.state()[1] == 1
        assert said in sidecar.remarks().lower()


# CONNECT


@pytest.mark.parametrize(
    "target",
    [
        row("an exact name", "allowed.test:443"),
        row("upper case", "ALLOWED.Test:443"),
        row("a trailing dot", "allowed.test.:443"),
        row("no port", "allowed.test"),
        row("another port", "allowed.test:22"),
        row("a wildcard's own name", "wild.test:443"),
        row("a wildcard one label down", "one.wild.test:443"),
        row("a wildcard any labels down", "one.two.three.wild.test:443"),
        row("a label that looks random", "kq3xz7wv9m2pt8rn5yb1.wild.test:443"),
    ],
)
def test_lets_through(sidecar: Sidecar, target: str) -> None:
    assert sidecar.proxy.exchange(target, b"hello") == b"hello<5>"


def test_lets_an_old_client_through(sidecar: Sidecar) -> None:
    assert sidecar.proxy.ask("CONNECT allowed.test:22 HTTP/1.0").status == 200  # as `nc -X connect` of ssh asks


def test_has_no_limit_on_requests_a_minute(sidecar: Sidecar) -> None:
    assert {sidecar.proxy.ask("CONNECT allowed.test:443 HTTP/1.1").status for _ in range(70)} == {200}


@pytest.mark.parametrize(
    ("target", "status", "reason"),
    [
        row("a name that is not listed", "other.test:443", 403, NOT_LISTED),
        row("a name under an exact one", "x.allowed.test:443", 403, NOT_LISTED),
        row("a name above an exact one", "test:443", 403, NOT_LISTED),
        row("a longer last label", "allowed.testing:443", 403, NOT_LISTED),
        row("a wildcard without its dot", "xwild.test:443", 403, NOT_LISTED),
        row("a wildcard as a beginning", "wild.test.evil.test:443", 403, NOT_LISTED),
        row("two trailing dots", "allowed.test..:443", 403, NOT_LISTED),
        row("a listed name as user", "allowed.test@other.test:443", 403, "domain not in allowlist: other.test"),
        row("an address", "198.51.100.194:443", 403, NOT_LISTED),
        row("an address as a number", "3325256898:443", 403, "domain not in allowlist"),
        row("the loopback address", "127.0.0.1:9091", 403, NOT_LISTED),
        row("the loopback address of IPv6", "[::1]:9091", 403, "domain not in allowlist"),
        row("localhost", "localhost:9091", 403, NOT_LISTED),
        row("the sidecar itself", "pipelock:8888", 403, NOT_LISTED),
        row("the engine's name server", "127.0.0.11:53", 403, NOT_LISTED),
        row("a listed name with a private address", "private.test:443", 403, PRIVATE),
        row("a listed name with a loopback address", "loopback.test:443", 403, PRIVATE),
        row("a listed name with the metadata address", "metadata.test:443", 403, PRIVATE),
        row("a listed name with a private address too", "mixed.test:443", 403, PRIVATE),
        row("a listed name with a mapped private address", "mapped.test:443", 403, PRIVATE),
        row("a listed name that turns private when dialled", "rebinding.test:443", 502, "tunnel dial failed"),
        row("a listed name that does not exist", "missing.test:443", 403, "DNS resolution error for {}"),
        row("a port where nobody listens", "allowed.test:81", 502, "tunnel dial failed"),
        row("a name with an escape", "%61llowed.test:443", 400, ""),
    ],
)
def test_refuses(sidecar: Sidecar, target: str, status: int, reason: str) -> None:
    answer = sidecar.proxy.ask(f"CONNECT {target} HTTP/1.1", host="allowed.test:443")
    assert answer.status == status, answer
    assert reason.format(target.rpartition(":")[0]) in answer.body
    assert status != 403 or answer.body.startswith("CONNECT blocked: ")


def test_judges_each_request_of_a_connection(sidecar: Sidecar) -> None:
    refused, let = (
        f"CONNECT {name}:443 HTTP/1.1\r\nHost: x\r\n\r\n".encode() for name in ("other.test", "allowed.test")
    )
    with sidecar.proxy.open() as sock:
        sock.sendall(refused + let + refused)
        assert [read_answer(sock).status, read_answer(sock).status] == [403, 200]
        assert read_exactly(sock, len(refused)) == refused  # in a tunnel it is only bytes


# What is no CONNECT


@pytest.mark.parametrize(
    ("line", "status", "told"),
    [
        row("plain http", "GET http://allowed.test/x", 403, OFF),
        row("plain http by POST", "POST http://allowed.test/", 403, OFF),
        row("plain http to a name that is not listed", "GET http://other.test/", 403, "not in allowlist"),
        row("an absolute https URL", "GET https://allowed.test/x", 403, OFF),
        row("fetch", "GET /fetch?url=http://allowed.test/x", 403, OFF),
        row("fetch over https", "GET /fetch?url=https://allowed.test/x", 403, OFF),
        row("fetch of its metrics", "GET /fetch?url=http://127.0.0.1:9091/metrics", 403, "not in allowlist"),
        row("metrics", "GET /metrics", 404, ""),
        row("statistics", "GET /stats", 404, ""),
        row("health", "GET /health", 200, '"mode":"strict"'),
    ],
)
def test_answers(sidecar: Sidecar, line: str, status: int, told: str) -> None:
    answer = sidecar.proxy.ask(f"{line} HTTP/1.1", "Content-Length: 0", host="allowed.test")
    assert answer.status == status, answer
    assert told in answer.body


# In the tunnel


@pytest.mark.parametrize(
    ("pieces", "passes"),
    [
        row("ssh", [b"SSH-2.0-OpenSSH_9.2\r\n"], True),
        row("the name of the tunnel", [client_hello("allowed.test")], True),
        row("no name", [client_hello(None)], True),
        row("a hello in small pieces", [client_hello("allowed.test")[at : at + 90] for at in range(0, 700, 90)], True),
        row("a name that is not listed", [client_hello("other.test")], False),
        row("another listed name", [client_hello("wild.test")], False),
    ],
)
def test_tunnel_carries(sidecar: Sidecar, pieces: list[bytes], passes: bool) -> None:
    sent = b"".join(pieces)
    assert sidecar.proxy.exchange("allowed.test:443", *pieces) == (sent + b"<%d>" % len(sent) if passes else b"")


def test_tunnel_carries_much_both_ways(sidecar: Sidecar) -> None:
    chunk = hashlib.sha256(b"x").digest() * 2048
    with sidecar.proxy.tunnel("allowed.test:443") as sock:
        for _ in range(256):
            sock.sendall(chunk)
            assert read_exactly(sock, len(chunk)) == chunk


def test_many_tunnels_at_once(sidecar: Sidecar) -> None:
    tunnels = [socket.create_connection((sidecar.inner, PORT), timeout=8) for _ in range(100)]
    for sock in tunnels:
        sock.sendall(b"CONNECT allowed.test:443 HTTP/1.1\r\nHost: allowed.test\r\n\r\nhello")
    assert {read_answer(sock).status for sock in tunnels} == {200}
    assert {read_exactly(sock, 5) for sock in tunnels} == {b"hello"}
    for sock in tunnels:
        sock.close()


# The log


def test_log_of_a_refusal(sidecar: Sidecar) -> None:
    sidecar.proxy.ask("CONNECT refused-for-the-log.test:444 HTTP/1.1")
    event = sidecar.event(event="blocked", target="refused-for-the-log.test:444")
    assert (event["method"], event["scanner"], event["level"]) == ("CONNECT", "allowlist", "warn")
    assert event["reason"] == "domain not in allowlist: refused-for-the-log.test"
    assert event["request_id"].startswith("req-")
    assert event["client_ip"] == sidecar.inner.rpartition(".")[0] + f".{int(sidecar.inner.rpartition('.')[2]) - 2}"


def test_log_of_a_tunnel(sidecar: Sidecar) -> None:
    before = len(sidecar.events(event="tunnel_close", target="allowed.test:22"))
    sidecar.proxy.exchange("allowed.test:22", b"hello")
    until(lambda: len(sidecar.events(event="tunnel_close", target="allowed.test:22")) > before, "the tunnel's end")
    closed = sidecar.events(event="tunnel_close", target="allowed.test:22")[-1]
    assert sidecar.event(event="tunnel_open", request_id=closed["request_id"])["target"] == "allowed.test:22"
    assert closed["total_bytes"] > 0
    assert closed["duration_ms"] > 0


def test_log_of_a_name_that_is_not_the_tunnels(sidecar: Sidecar) -> None:
    sidecar.proxy.exchange("one.wild.test:443", client_hello("two.wild.test"))
    event = sidecar.event(event="sni_mismatch", connect_host="one.wild.test", category="mismatch")
    assert event["sni_host"] == "two.wild.test"
    assert not sidecar.events(event="tunnel_open", request_id=event["request_id"])


def test_log_of_a_tunnel_in_which_nothing_was_said(sidecar: Sidecar) -> None:
    assert sidecar.proxy.exchange("wild.test:443") == b""
    assert sidecar.event(event="sni_mismatch", connect_host="wild.test")["category"] == "timeout"


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        row("a failed dial", "CONNECT allowed.test:82", {"event": "error", "target": "allowed.test:82"}),
        row("a missing name", "CONNECT missing.test:83",
            {"event": "blocked", "target": "missing.test:83", "scanner": "ssrf"}),
        row("a private name", "CONNECT private.test:84",
            {"event": "blocked", "target": "private.test:84", "scanner": "ssrf"}),
        row("plain http", "GET http://allowed.test:85/secret",
            {"event": "blocked", "url": "http://allowed.test:85/[redacted]", "scanner": "dlp"}),
        row("a name that breaks lines elsewhere", "CONNECT x\u2028x.test:86",
            {"event": "blocked", "target": "x\u2028x.test:86", "scanner": "allowlist"}),
    ],
)  # fmt: skip
def test_log_of(sidecar: Sidecar, line: str, fields: dict[str, object]) -> None:
    sidecar.proxy.ask(f"{line} HTTP/1.1")
    assert sidecar.event(**fields)["request_id"]


def test_no_refused_name_was_looked_up_and_nothing_plain_left(rig: Rig, sidecar: Sidecar) -> None:
    sidecar.proxy.exchange("allowed.test:443", b"x")
    sidecar.proxy.ask("CONNECT never-asked.test:443 HTTP/1.1")
    sidecar.proxy.ask("GET http://allowed.test/ HTTP/1.1")
    asked = {line.removeprefix("name ") for line in rig.seen() if line.startswith("name ")}
    assert {name for name in asked if name not in ALLOWED and not name.endswith("wild.test")} == set()
    assert "allowed.test" in asked
    assert {line for line in rig.seen() if line.startswith("tcp ")} <= {"tcp 22", "tcp 443"}


# A new configuration for a running sidecar


OLD_RULES = {"new.test": 403, "allowed.test": 200, "other.test": 403, "private.test": 403}


def statuses(sidecar: Sidecar) -> dict[str, int]:
    """Ask for the names that tell which rules are in force."""
    return {name: sidecar.proxy.ask(f"CONNECT {name}:443 HTTP/1.1").status for name in OLD_RULES}


def test_takes_a_new_list_and_leaves_open_tunnels_alone(reloaded: Sidecar) -> None:
    new = pipelock.config(["new.test", "*.wild.test"])
    assert statuses(reloaded) == OLD_RULES
    with reloaded.proxy.tunnel("allowed.test:443") as sock:
        sock.sendall(b"before")
        assert read_exactly(sock, 6) == b"before"
        reloaded.put(new)
        event = reloaded.event(event="config_reload", config_hash=hashlib.sha256(new).hexdigest())
        assert event["status"] == "success"
        assert statuses(reloaded) == {**OLD_RULES, "new.test": 200, "allowed.test": 403}
        sock.sendall(b"after")
        assert read_exactly(sock, 5) == b"after"
    reloaded.put(CONFIG)
    reloaded.event(event="config_reload", config_hash=hashlib.sha256(CONFIG).hexdigest())


@pytest.mark.parametrize(
    "config",
    [
        row("another mode", CONFIG.replace(b"mode: strict ", b"mode: balanced ")),
        row("an empty file", b""),
        row("broken YAML", CONFIG + b"x: [\n"),
        row("an unknown key", CONFIG + b"surprise: 1\n"),
        row("no proxy", CONFIG.replace(b"enabled: true ", b"enabled: false ")),
        row("a private name trusted", CONFIG + b"trusted_domains: [private.test]\n"),
    ],
)
def test_keeps_its_rules_when_given(reloaded: Sidecar, config: bytes) -> None:
    assert config != CONFIG

    def complaints() -> int:
        return len(reloaded.remarks()) + len(reloaded.events(method="CONFIG_RELOAD"))

    before, accepted = complaints(), len(reloaded.events(event="config_reload"))
    reloaded.put(config)
    until(lambda: complaints() > before, "a complaint")
    assert statuses(reloaded) == OLD_RULES
    assert len(reloaded.events(event="config_reload")) == accepted


# The end


def test_stops_by_itself_with_tunnels_open(rig: Rig) -> None:
    ending = rig.sidecar(3, CONFIG)
    with ending.proxy.tunnel("allowed.test:443") as sock:
        sock.sendall(b"x")
        assert read_exactly(sock, 1) == b"x"
        run("docker", "stop", "--time", "30", ending.name)
    assert ending.state() == (False, 0)  # 137 where the engine had to kill it
    assert ending.event(event="shutdown")
