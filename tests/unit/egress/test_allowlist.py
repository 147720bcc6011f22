"""What may leave a bottle: host names, the egress line, the sidecar's YAML."""

import re
from pathlib import Path

import pytest

from claude_bottle.documents import yaml_document
from claude_bottle.egress import allowlist
from claude_bottle.egress.allowlist import Host


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("API.OpenAI.com", Host("api.openai.com", 443)),
        ("git.example.com:65535", Host("git.example.com", 65535)),
        ("*.Example.com:8443", Host("*.example.com", 8443)),
        ("xn--bcher-kva.example", Host("xn--bcher-kva.example", 443)),
        ("a.7f000001.0x7f.example", Host("a.7f000001.0x7f.example", 443)),
        (f"{'a' * 63}.com", Host(f"{'a' * 63}.com", 443)),
    ],
)
def test_a_host_is_read(text: str, host: Host) -> None:
    assert allowlist.parse_host(text) == host


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("https://a.com", 'leave out "https://"'),
        ("a.com/path", 'leave out "/"'),
        ("me:pass@a.com", 'leave out "@"'),
        ("", "must not be empty"),
        ("a b.com", "or contain spaces"),
        ("a.com\n", r'"a.com\n": a host name'),
        ("a.com:", "a number from 1 to 65535"),
        ("a.com:0", "a number from 1 to 65535"),
        ("a.com:65536", "a number from 1 to 65535"),
        ("a.com:https", "a number from 1 to 65535"),
        ("a.com:\u0663", "a number from 1 to 65535"),
        ("10.0.0.1", "not IP addresses"),
        ("2130706433", "not IP addresses"),
        ("0x7f000001:443", "not IP addresses"),
        ("0177.0.0.1", "not IP addresses"),
        ("127.1", "not IP addresses"),
        ("*.0x7f", "not IP addresses"),
        ("[::1]", "not IPv6 addresses"),
        ("::ffff:10.0.0.1", "not IPv6 addresses"),
        ("\uff11\uff12\uff17.0.0.1", "only ASCII names can be allowed"),
        ("b\u00fccher.example:8443", 'this one is "xn--bcher-kva.example:8443" in ASCII'),
        ("\u212aube.example", 'this one is "kube.example" in ASCII'),
        ("*", "would allow every host"),
        ("*:443", "would allow every host"),
        ("*.com", "would allow a whole top-level domain"),
        ("a*.example.com", '"*" is only allowed at the front'),
        ("*.*.example.com", '"*" is only allowed at the front'),
        ("localhost", "is not a public name"),
        ("pipelock:8888", "is not a public name"),
        ("x.localhost", "is not a public name"),
        ("a.com.", "leave out the dot at the end"),
        (".a.com", "leave out the dot at the start"),
        ("a..com", "each part of a name"),
        ("-a.com", "each part of a name"),
        ("a_b.com", "each part of a name"),
        (f"{'a' * 64}.com", "each part of a name"),
        (".".join(["a" * 60] * 5), "253 characters"),
    ],
)
def test_what_is_no_host_is_refused_in_one_line(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)) as raised:
        allowlist.parse_host(text)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "api.anthropic.com",
        "Claude.AI",
        "platform.claude.com:443",
        "*.example.com",
        "notanthropic.com",
        "anthropic.com.test",
    ],
)
def test_a_default_host_and_any_foreign_one_may_be_allowed(text: str) -> None:
    assert allowlist.parse_further(text) == allowlist.parse_host(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("anthropic.com", "a host of anthropic.com could front for the API"),
        ("*.anthropic.com", "a host of anthropic.com could front for the API"),
        ("*.api.anthropic.com", "a host of anthropic.com could front for the API"),
        ("x.Anthropic.COM:8443", "a host of anthropic.com could front for the API"),
        ("*.claude.ai", "a host of claude.ai could front for the API"),
        ("*.claude.ai:22", "a host of claude.ai could front for the API"),
        ("www.claude.com", "a host of claude.com could front for the API"),
        ("api.anthropic.com:8443", "only port 443 of api.anthropic.com passes through the credential proxy"),
        ("claude.ai:22", "only port 443 of claude.ai passes through the credential proxy"),
        ("https://a.com", 'leave out "https://"'),
    ],
)
def test_what_could_front_for_the_api_may_not(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f'"{text if "://" in text else text.lower()}": {reason}')):
        allowlist.parse_further(text)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (b"version: 1\napi_allowlist:\n  - a.test\n", ()),
        (b'trusted_domains:\n  - a.test\n  - "b.test"\napi_allowlist:\n  - a.test\n', ("a.test", "b.test")),
        (b"trusted_domains: [a.test]\n", ("a.test",)),
    ],
)
def test_the_ended_hosts_are_those_that_the_sidecar_trusts(config: bytes, names: tuple[str, ...]) -> None:
    assert allowlist.trusted(config) == names


def test_the_egress_line_counts_names_and_shows_three() -> None:
    two = (Host("github.com"), Host("api.openai.com"))
    assert allowlist.summary(allowlist.allowlist(())) == (
        "7 hosts allowed (api.anthropic.com, claude.ai, claude.com, +4 more)"
    )
    assert allowlist.summary(allowlist.allowlist(two)) == (
        "9 hosts allowed (api.anthropic.com, api.openai.com, claude.ai, +6 more)"
    )
    assert allowlist.summary(["c.d", "b.c", "a.b"]) == "3 hosts allowed (a.b, b.c, c.d)"


def test_one_host_with_two_ports_is_one_name_and_two_ports() -> None:
    hosts = (Host("git.example.com", 22), Host("git.example.com", 8443), Host("claude.ai", 22))
    assert len(allowlist.allowlist(hosts)) == 8
    assert allowlist.ports(hosts) == (22, 443, 8443)
    assert allowlist.ports(()) == (443,)


def test_the_image_is_pinned_by_tag_and_digest() -> None:
    assert re.fullmatch(r"[a-z0-9./-]+:\d+\.\d+\.\d+@sha256:[0-9a-f]{64}", allowlist.image())


def test_the_sidecar_gets_the_strict_base_and_the_hosts(tmp_path: Path) -> None:
    file = tmp_path / "pipelock.yaml"
    file.write_bytes(allowlist.config(allowlist.allowlist((Host("*.example.com", 8443),))))
    pattern = "^(http://|https://[^/]*(/.|[?:@]|$))"
    assert yaml_document.load(file).data == {
        "version": 1,
        "mode": "strict",
        "fetch_proxy": {
            "max_response_mb": 1,
            "monitoring": {"max_requests_per_minute": 1000000, "subdomain_entropy_threshold": 100.0},
        },
        "forward_proxy": {"enabled": True, "max_tunnel_seconds": 86400, "idle_timeout_seconds": 86400},
        "dlp": {
            "scan_env": False,
            "patterns": [{"name": "plain HTTP is off, use https", "regex": pattern, "severity": "low"}],
        },
        "sentry": {"enabled": False},
        "metrics_listen": "127.0.0.1:9091",
        "api_allowlist": ["*.example.com", *(host.name for host in allowlist.defaults())],
    }


@pytest.mark.parametrize("names", [[], ["a.com", '"\n  - "*']])
def test_the_sidecar_never_gets_a_list_that_it_would_misread(names: list[str]) -> None:
    with pytest.raises(ValueError, match=r"empty list|host name"):
        allowlist.config(names)


@pytest.mark.parametrize(
    ("listed", "name", "covered"),
    [
        ("a.test", "a.test", True),
        ("a.test", "b.a.test", False),
        ("*.a.test", "a.test", True),
        ("*.a.test", "c.b.a.test", True),
        ("*.a.test", "ba.test", False),
        ("*.a.test", "a.test.b", False),
    ],
)
def test_a_wildcard_covers_the_name_and_all_under_it(listed: str, name: str, *, covered: bool) -> None:
    assert allowlist.parse_host(listed).covers(name) == covered
