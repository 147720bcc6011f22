"""What passes through the sidecar and what does not, byte by byte."""

import hashlib
import socket

import pytest

from tests.contract.rig import PORT, Rig, Sidecar, row
from tests.contract.wire import client_hello, read_answer, read_exactly

# The rows share their sidecars: on one worker.
pytestmark = pytest.mark.xdist_group("contract")

OFF = "plain HTTP is off, use https"
HELLO = client_hello("allowed.test")  # of 500 to 1,600 bytes, as the version of OpenSSL has it
NOT_LISTED, PRIVATE = "domain not in allowlist: {}", "SSRF blocked: {} resolves to internal IP"


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


# Names with a given address, which is not public


@pytest.mark.parametrize(
    "target",
    [
        row("the name", "pinned.test:9091"),
        row("upper case", "PINNED.Test:9091"),
        row("a trailing dot", "pinned.test.:9091"),
        row("both", "Pinned.TEST.:9091"),
    ],
)
def test_reaches_a_trusted_name_at_its_given_address_on_any_port(trusting: Sidecar, target: str) -> None:
    with trusting.proxy.tunnel(target) as sock:
        sock.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert read_answer(sock).status == 200  # its own metrics, which nothing else may reach


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        row("a listed name that is not trusted", "untrusted.test:9091", PRIVATE),
        row("such a name with a trailing dot", "untrusted.test.:9091", PRIVATE),
        row("a trusted name that is not listed", "unlisted.test:9091", NOT_LISTED),
        row("a name under a trusted one", "under.pinned.test:443", NOT_LISTED),
        row("two trailing dots", "pinned.test..:443", NOT_LISTED),
        row("the address in IPv6", "[::ffff:127.0.0.1]:9091", "domain not in allowlist"),
    ],
)
def test_refuses_with_a_given_address(trusting: Sidecar, target: str, reason: str) -> None:
    answer = trusting.proxy.ask(f"CONNECT {target} HTTP/1.1")
    assert answer.status == 403, answer
    assert reason.format(target.rpartition(":")[0]) in answer.body


def test_cuts_another_name_in_the_tunnel_of_a_trusted_one(trusting: Sidecar) -> None:
    assert trusting.proxy.exchange("pinned.test:9091", client_hello("allowed.test")) == b""


@pytest.mark.parametrize(
    "target",
    [
        "pinned.test:443", "PINNED.test:443", "pinned.test.:443", "pinned.test..:443", "pinned.test",
        "pinned.test:0443",
        "allowed.test@pinned.test:443", "%70inned.test:443", "pinned%2etest:443", "%EF%BD%90inned.test:443",
        "\uff50inned.test:443", "pinned\u3002test:443", "p\u0130nned.test:443", "p%C4%B0nned.test:443",
        "pinned.test\t:443", "pinned.test%00:443", "pinned.test/:443", "pinned.test:443?x", "[pinned.test]:443",
        "[pinned.test%25lo]:443", ".pinned.test:443", "pinned.test:443:443",
    ],
)  # fmt: skip
def test_asks_the_name_server_for_no_spelling_of_a_name_with_a_given_address(
    rig: Rig, trusting: Sidecar, target: str
) -> None:
    answer = trusting.proxy.ask(f"CONNECT {target} HTTP/1.1", host="x")
    assert answer.status in (400, 403, 502), answer  # its port 443 is open where the name server says it is
    trusting.proxy.ask("CONNECT allowed.test:443 HTTP/1.1")
    asked = {line.removeprefix("name ") for line in rig.seen() if line.startswith("name ")}
    assert "allowed.test" in asked
    assert not {name for name in asked if "inned" in name}


@pytest.mark.parametrize("url", ["https://pinned.test/", "https://pinned.test./", "https://PINNED.test/"])
@pytest.mark.parametrize("form", ["GET {}", "GET /fetch?url={}"])
def test_fetches_nothing_itself_from_a_trusted_name(rig: Rig, trusting: Sidecar, form: str, url: str) -> None:
    assert trusting.proxy.ask(f"{form.format(url)} HTTP/1.1", host="x").status == 502
    assert not [line for line in rig.seen() if "inned" in line]


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
        row("plain http", [b"GET /secret HTTP/1.1\r\nHost: other.test\r\n\r\n"], True),
        row(
            "an SSLv2 hello",
            [bytes.fromhex("802e0100020015000000100100800200800300800400800500800600400700c0") + b"c" * 16],
            True,
        ),
        row("a hello in small pieces", [HELLO[at : at + 90] for at in range(0, len(HELLO), 90)], True),
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
    tunnels = [socket.create_connection((sidecar.inner, PORT), timeout=60) for _ in range(100)]
    for sock in tunnels:
        sock.sendall(b"CONNECT allowed.test:443 HTTP/1.1\r\nHost: allowed.test\r\n\r\nhello")
    assert {read_answer(sock).status for sock in tunnels} == {200}
    assert {read_exactly(sock, 5) for sock in tunnels} == {b"hello"}
    for sock in tunnels:
        sock.close()
