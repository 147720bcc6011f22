"""The sidecar's log, as hostile as an agent can make it, to counts and lines that a terminal can show."""

import json
from pathlib import Path

import pytest

from claude_bottle.documents import yaml_document
from claude_bottle.egress.allowlist import Host
from claude_bottle.egress.log import Tally, parse, reloaded, report

COUNTER = iter(range(1, 1_000_000))


def line(event: str, target: str = "", **more: object) -> bytes:
    """Return a line as pipelock writes it, each with the number of a request of its own."""
    known = {"target": target} if target else {}
    fields = {"event": event, "time": "2026-11-24T11:00:00Z", "request_id": f"req-{next(COUNTER)}", **known, **more}
    return json.dumps(fields, ensure_ascii=False).encode()


def refused(target: str, **more: object) -> bytes:
    return line("blocked", target, scanner="allowlist", reason=f"domain not in allowlist: {target}", **more)


NO_NAME = {"scanner": "ssrf", "reason": "SSRF check failed: DNS resolution error for nx.test: no such host"}
PRIVATE = {"scanner": "ssrf", "reason": "SSRF blocked: priv.test resolves to internal IP 10.0.0.1"}


@pytest.mark.parametrize(
    ("raw", "verdict", "host"),
    [
        (line("tunnel_open", "API.Example.COM.:443"), "allowed", "api.example.com"),
        (line("forward_http", url="https://example.com/"), "allowed", "https://example.com"),
        (refused("example.org:8443"), "blocked", "example.org:8443"),
        (line("blocked", "priv.test:443", **PRIVATE), "blocked", "priv.test"),
        (line("blocked", url="http://example.org/a?b", scanner="dlp"), "blocked", "http://example.org"),
        (line("sni_mismatch", connect_host="a.test", sni_host="b.test", category="mismatch"), "blocked", "a.test"),
        (line("sni_mismatch", connect_host="a.test", category="malformed_tls"), "blocked", "a.test"),
        (line("blocked", "nx.test:443", **NO_NAME), "unresolved", "nx.test"),
        (line("error", "dead.test:443", error="no route to host"), "failed", "dead.test"),
        (refused("[::1]:443"), "blocked", "[::1]"),
    ],
)
def test_a_line_says_what_became_of_a_request(raw: bytes, verdict: str, host: str) -> None:
    event = parse(raw)
    assert event is not None
    assert (event.verdict, event.host) == (verdict, host)


@pytest.mark.parametrize(
    "raw",
    [
        line("sni_mismatch", connect_host="a.test", category="timeout"),
        line("tunnel_close", "a.test:443"),
        line("startup"),
        line("error", method="CONFIG_RELOAD", error="rejected"),
        b"", b"[]", b"7", b"{", b"\xff\xfe", b'{"event": ["blocked"]}', b"[" * 100_000, b"pipelock: no JSON",
    ],
)  # fmt: skip
def test_what_is_about_no_request_is_no_event(raw: bytes) -> None:
    assert parse(raw) is None


def test_a_hosts_text_cannot_reach_the_terminal() -> None:
    hostile = 'a\x1b[2J\u2028\u202e\ud800"' + "x" * 200_000
    event = parse(json.dumps({"event": "blocked", "target": hostile, "reason": hostile, "time": hostile}).encode())
    assert event is not None
    assert str(event).isascii()
    assert str(event).isprintable()
    assert len(str(event)) < 600


def test_a_line_of_the_log_reads_as_time_verdict_host_reason() -> None:
    assert str(parse(refused("example.org:443"))).split(maxsplit=3) == [
        "2026-11-24T11:00:00Z", "blocked", "example.org", "domain not in allowlist: example.org:443",
    ]  # fmt: skip


def test_each_request_counts_once_however_often_it_is_told() -> None:
    lines = [refused("a.test:443"), line("tunnel_open", "b.test:443"), refused("a.test:443")]
    tally = Tally().add_all([*lines, *lines, lines[0]])
    assert (tally.allowed, dict(tally.refused), tally.blocked) == (1, {"a.test": 2}, 2)


def test_a_request_without_a_sensible_number_counts() -> None:
    odd = [refused("a.test:443", request_id=number) for number in ("", "req-x", "req-9999999999", "req--1")]
    assert Tally().add_all(odd + odd).blocked == 8


def test_a_flood_of_names_fills_no_memory() -> None:
    tally = Tally().add_all(refused(f"{number}.{'y' * 500}.test:443") for number in range(3000))
    assert tally.blocked == 3000
    assert len(tally.refused) == 1001
    assert tally.refused["other hosts"] == 2000
    assert max(map(len, tally.refused)) < 300
    assert len(report(tally, "x.yaml")) < 2000


def test_the_report_has_lines_to_paste(tmp_path: Path) -> None:
    lines = [
        *(line("tunnel_open", "api.anthropic.com:443") for _ in range(42)),
        *(refused("example.org:443") for _ in range(3)),
        *(refused(target) for target in ("foo.test:8443", "10.0.0.1:443", "-x.test:443", "LOCALHOST:443")),
        line("blocked", "priv.test:443", **PRIVATE),
        line("blocked", url="http://plain.test/", scanner="allowlist", reason="domain not in allowlist: plain.test"),
        line("blocked", "nx.test:443", **NO_NAME),
        line("error", "dead.test:443", error="no route to host"),
    ]
    tally = Tally().add_all(lines)
    first, where, *paste = report(tally, "agents/bottles/\x1bx.yaml").splitlines()
    assert first == (
        "egress  42 requests allowed; refused: example.org 3 times, -x.test 1 time, 10.0.0.1 1 time, "
        "foo.test:8443 1 time, http://plain.test 1 time, localhost 1 time, priv.test 1 time; "
        "no such name: nx.test 1 time; failed: dead.test 1 time"
    )
    assert where.strip() == r"to allow, in agents/bottles/\x1bx.yaml:"
    (tmp_path / "b.yaml").write_text("\n".join(paste))
    assert yaml_document.load(tmp_path / "b.yaml").data == {"egress": {"allow": ["example.org", "foo.test:8443"]}}
    assert tally.allowable == (Host("example.org"), Host("foo.test", 8443))


def test_the_report_offers_no_host_that_a_manifest_may_not_have() -> None:
    targets = ("www.anthropic.com:443", "api.anthropic.com:8443", "a.test:443")
    assert Tally().add_all(map(refused, targets)).allowable == (Host("a.test"),)


def test_a_report_without_refusals_is_one_line() -> None:
    assert report(Tally().add_all([line("tunnel_open", "a.test:443")]), "x") == "egress  1 request allowed\n"


def test_a_reload_is_known_by_the_hash_of_its_file() -> None:
    assert reloaded(line("config_reload", status="success", config_hash="ab")) == "ab"
    assert reloaded(line("config_reload", status="failure", config_hash="ab")) is None
    assert reloaded(refused("ab")) is None
