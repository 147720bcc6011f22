"""Both logs, as hostile as an agent can make them, to counts and lines that a terminal can show."""

import json
from pathlib import Path

import pytest

from claude_bottle.documents import yaml_document
from claude_bottle.egress.allowlist import Host
from claude_bottle.egress.log import Inner, Refusals, Tally, parse, reloaded, report

COUNTER = iter(range(1, 1_000_000))


def line(event: str, target: str = "", **more: object) -> bytes:
    """Return a line as pipelock writes it, each with the number of a request of its own."""
    known = {"target": target} if target else {}
    fields = {"event": event, "time": "2026-11-24T11:00:00Z", "request_id": f"req-{next(COUNTER)}", **known, **more}
    return json.dumps(fields, ensure_ascii=False).encode()


def refused(target: str, **more: object) -> bytes:
    return line("blocked", target, scanner="allowlist", reason=f"domain not in allowlist: {target}", **more)


API = "api.anthropic.com"
ENDED = (API, "git.example.net:8443")


def inner(verdict: str = "allowed", method: str = "POST", path: object = "/v1/messages", **more: object) -> bytes:
    """Return a line as the credential proxy writes it."""
    fields = {
        "event": "request", "time": "2026-11-24T11:00:00Z", "verdict": verdict, "host": API,
        "method": method, "path": path, "status": 200 if verdict == "allowed" else 400, "sent": 1000, **more,
    }  # fmt: skip
    return json.dumps(fields).encode()


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
        inner("opened"), inner("unresolved"), inner(verdict=["allowed"]),  # type: ignore[arg-type]  # as a log may
        b"up LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t", b'{"event": "request", "verdict": "allowed"',
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
    assert tally.refused["others"] == 2000
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


def test_a_line_of_the_credential_proxy_says_what_became_of_a_request() -> None:
    event = parse(inner("blocked", "DELETE", "/v1/files/a?key=secret", host="API.Anthropic.com.", reason="no table"))
    assert event is not None
    assert (event.verdict, event.host, event.reason) == ("blocked", API, "no table")
    assert event.inner == Inner("DELETE", "/v1/files/a", 400, 1000, messages=False)
    assert str(event).split() == [
        "2026-11-24T11:00:00Z", "blocked", API, "DELETE", "/v1/files/a", "400", "no", "table",
    ]  # fmt: skip
    told = {verdict: str(parse(inner(verdict, host="git.example.net:8443"))) for verdict in ("allowed", "failed")}
    assert [told[verdict].split()[1:] for verdict in told] == [
        ["allowed", "git.example.net:8443", "POST", "/v1/messages", "200"],
        ["failed", "git.example.net:8443", "POST", "/v1/messages", "400"],
    ]


def test_a_line_of_the_credential_proxy_may_lack_anything() -> None:
    assert str(parse(b'{"event": "request", "verdict": "failed"}')).split() == ["-", "failed", "-", "-", "-"]
    assert str(parse(inner("failed", "", "?x"))).split()[2:] == [API, "-", "-", "400"]


@pytest.mark.parametrize(
    "hostile",
    [
        "/a\x1b[2J\x1b]0;x\x07\r\n2026-11-24T11:00:00Z  allowed  evil.test\u2028\u202e\ud800\0",
        "/" + "x" * 10_000,
        '/{"event": "request", "verdict": "allowed", "messages": true, "sent": 5}\n{"event": "request"}',
        "/v1/messages 200  all is well",
        "/%0d%0a" * 5_000,
    ],
)
def test_a_path_cannot_reach_the_terminal_or_pass_for_more(hostile: str) -> None:
    raw = inner("blocked", path=hostile, method=hostile, reason="no table", unlisted=True)
    event = parse(raw)
    assert event is not None
    assert str(event).isascii()
    assert str(event).isprintable()
    assert len(str(event)) < 700
    time, verdict, host, _, _, status, *reason = str(event).split()
    assert (time, verdict, host, status, reason) == ("2026-11-24T11:00:00Z", "blocked", API, "400", ["no", "table"])
    tally = Tally(ENDED).add_all([raw])
    assert (tally.allowed, tally.blocked, tally.messages, tally.sent, tally.openable) == (0, 1, 0, 1000, ())
    text = report(tally, "x.yaml")
    assert text.replace("\n", "").isprintable()
    assert len(text) < 250
    assert "to allow" not in text


def test_a_path_that_is_no_utf8_is_shown() -> None:
    event = parse(inner(path="/aXb").replace(b"X", b"\xff\xc3\x28"))
    assert event is not None
    assert event.inner is not None
    assert event.inner.path == r"/a\ufffd\ufffd(b"


def test_a_host_cannot_pass_for_a_refused_request() -> None:
    tally = Tally(ENDED).add_all([refused(f"{API} POST /v1/files:443"), inner("blocked", path="/v1/files")])
    assert dict(tally.refused) == {rf"{API}\x20post\x20/v1/files": 1, f"{API} POST /v1/files": 1}
    assert tally.openable == ()


def test_a_tunnel_to_an_ended_host_is_not_counted_beside_its_requests() -> None:
    ended = [line("tunnel_open", target) for target in (f"{API}:443", "API.anthropic.COM.:443", "git.example.net:8443")]
    others = (f"x{API}:443", f"{API}.evil.test:443", f"{API}:22", "git.example.net:443", "example.org:443")
    lines = [*ended, *(line("tunnel_open", target) for target in others), inner(), inner()]
    tally = Tally(ENDED)
    seen = [event for event in map(tally.add, lines) if event]
    assert [event.host for event in seen if not event.inner] == [target.removesuffix(":443") for target in others]
    assert [event.host for event in seen if event.inner] == [API, API]
    assert tally.allowed == len(others) + 2
    assert Tally([f"{API}:443"]).add(ended[0]) is None
    assert Tally().add_all(lines).allowed == len(ended) + len(others) + 2


def test_a_refused_or_failed_tunnel_to_an_ended_host_is_counted() -> None:
    lines = [
        refused(f"{API}:443"),
        line("sni_mismatch", connect_host=API, sni_host="evil.test", category="mismatch"),
        line("error", f"{API}:443", error="connection refused"),
        line("blocked", "nx.test:443", **NO_NAME),
    ]
    tally = Tally((*ENDED, "nx.test")).add_all(lines)
    assert (tally.allowed, dict(tally.refused), dict(tally.failed)) == (0, {API: 2}, {API: 1})
    assert dict(tally.unresolved) == {"nx.test": 1}


def test_messages_and_bytes_of_all_requests_are_counted() -> None:
    lines = [
        inner(messages=True, sent=1_200_000),
        inner("blocked", messages=True, sent=2.5e3, reason="the limit is reached"),
        inner("failed", messages=True, sent=0),
        inner("allowed", "GET", "/api/hello", messages=False, sent=7),
        line("tunnel_open", "example.org:443", messages=True, sent=99),
    ]
    tally = Tally(ENDED).add_all(lines)
    assert (tally.allowed, tally.blocked, tally.messages, tally.sent) == (3, 1, 3, 1_202_507)


@pytest.mark.parametrize("odd", [True, "5", -1, None, [5], {"a": 1}, 1e300, float("nan"), float("inf"), 1 << 80])
def test_what_is_no_number_of_bytes_counts_none(odd: object) -> None:
    tally = Tally(ENDED).add_all([inner(sent=odd, status=odd, messages=1)])
    assert (tally.allowed, tally.messages, tally.sent) == (1, 0, 0)
    event = parse(inner(sent=odd, status=odd))
    assert event is not None
    assert event.inner is not None
    assert event.inner.status == (5 if odd == 5 else 0)


def test_a_number_with_too_many_digits_is_no_line() -> None:
    assert parse(inner(sent=0).replace(b'"sent": 0', b'"sent": ' + b"9" * 10_000)) is None


def test_each_log_numbers_its_own_requests() -> None:
    lines = [line("tunnel_open", "a.test:443", request_id="req-1"), inner(request_id="req-1", messages=True)]
    tally = Tally(ENDED).add_all(lines * 3)
    assert (tally.allowed, tally.messages, tally.sent) == (2, 1, 1000)
    assert Tally(ENDED).add_all([inner(), inner()]).allowed == 2  # without a number


def test_a_flood_of_paths_fills_no_memory() -> None:
    lines = (inner("blocked", path=f"/{number}/{'y' * 500}", unlisted=True) for number in range(3000))
    tally = Tally(ENDED).add_all(lines)
    assert (tally.blocked, len(tally.refused), tally.refused["others"]) == (3000, 1001, 2000)
    assert max(map(len, tally.refused)) < 600
    assert len(report(tally, "x.yaml")) < 2000


def test_the_report_has_messages_bytes_and_refused_requests(tmp_path: Path) -> None:
    lines = [
        *(inner(messages=True, sent=150_000) for _ in range(8)),
        *(inner("blocked", path="/v1/files", unlisted=True) for _ in range(2)),
        inner("blocked", "GET", "/v1/models/claude-x", unlisted=True),
        inner("blocked", path="/v1/messages", reason="mcp_servers"),
        inner("blocked", "GET", "/x.git/config", host="github.com", unlisted=True),
        inner("failed", path="/v1/files", status=502),
        refused("example.org:443"),
    ]
    tally = Tally((*ENDED, "github.com")).add_all(lines)
    first, second, where, *paste = report(tally, "agents/bottles/x.yaml").splitlines()
    assert first == (
        f"egress  8 requests allowed; refused: {API} POST /v1/files 2 times, {API} GET /v1/models/claude-x 1 time, "
        f"{API} POST /v1/messages 1 time, example.org 1 time, github.com GET /x.git/config 1 time; "
        f"failed: {API} 1 time"
    )
    assert second == "        8 messages, 1.2 MB up"
    assert where == "        to allow, in agents/bottles/x.yaml:"
    (tmp_path / "b.yaml").write_text("\n".join(paste))
    assert yaml_document.load(tmp_path / "b.yaml").data == {
        "egress": {"allow": ["example.org"]},
        "api": {"paths": ["POST /v1/files", "GET /v1/models/claude-x"]},
    }
    assert report(tally, "x", 800).splitlines()[1] == "        8 of 800 messages, 1.2 MB up"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/"), ("GET", "/v1/"), ("*", "/v1/files"), ("post", "/v1/files"), ("GET", "//x"), ("GET", "/v1/../x"),
        ("GET", "/v1/%2e"), ("GET", "/v1/a b"), ("GET", "/v1/a;b"), ("GET", "/v1/a]"), ("GET", '/v1/a"'), ("GET", "v1"),
        ("GET", "/v1/a\n- x"), ("GET", "/" + "x" * 200), ("", "/v1/a"), ("GET", ""), ("GET", "/v1/.hidden"),
        ("GET", "/v1/*"), ("GET", "/v1/\u0430"),
    ],
)  # fmt: skip
def test_no_more_than_one_plain_path_is_offered(method: str, path: str) -> None:
    """A path that ends in a slash would open all below it: the agent must not have the user paste that."""
    tally = Tally(ENDED).add_all([inner("blocked", method, path, unlisted=True)])
    assert (tally.blocked, tally.openable) == (1, ())


def test_only_a_refusal_for_want_of_the_path_is_offered() -> None:
    lines = [
        inner("blocked", path="/v1/a"),
        inner("blocked", path="/v1/b", unlisted="true"),
        inner("allowed", path="/v1/c", unlisted=True),
        inner("failed", path="/v1/d", unlisted=True),
        inner("blocked", path="/v1/e", unlisted=True, host=f"{API}.evil.test"),
        inner("blocked", path="/v1/f", unlisted=True, host=f"{API}:8443"),
        inner("blocked", path="/v1/g", unlisted=True),
    ]
    tally = Tally(ENDED).add_all(lines)
    assert (tally.openable, tally.allowable) == (("POST /v1/g",), ())


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (1, "1 B"), (949, "949 B"), (1000, "1.0 kB"), (51_234, "51.2 kB"), (999_960, "1.0 MB"),
        (1_250_000, "1.2 MB"), (7_340_000_000, "7.3 GB"),
    ],
)  # fmt: skip
def test_bytes_are_told_in_their_largest_unit(count: int, text: str) -> None:
    assert report(Tally().add_all([inner(sent=count)]), "x").splitlines()[1] == f"        0 messages, {text} up"


def test_each_unlisted_host_is_refused_for_the_first_time_once_up_to_a_limit() -> None:
    lines = [
        *(refused("a.test:443"), refused("A.test.:443"), refused("a.test:8443"), line("tunnel_open", "c.test:443")),
        *(refused("10.0.0.1:443"), refused("x y.test:443"), refused("\x1b[31m.test:443"), refused("nas:443")),
        *(line("blocked", "priv.test:443", **PRIVATE), inner("blocked", path="/v1/files", unlisted=True)),
        *(refused("*.wide.test:443"), refused("b.test:443"), refused("d.test:443")),
    ]
    refusals = Refusals(3)
    assert [str(host) for host in map(refusals.first, map(parse, lines)) if host] == ["a.test", "a.test:8443", "b.test"]
    assert refusals.full
    assert Refusals(0).first(parse(lines[0])) is None


def test_a_pattern_that_an_agent_requests_is_not_offered() -> None:
    told = report(Tally().add_all([refused("*.wide.test:443"), refused("a.test:443")]), "x")
    assert ("*.wide.test" in told, "allow: [a.test]" in told) == (True, True)
