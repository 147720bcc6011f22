"""Credentials: which hosts, headers and values a manifest may give the credential proxy."""

import base64
from collections.abc import Mapping

import pytest

from claude_bottle.egress.allowlist import Host
from claude_bottle.errors import ManifestError
from claude_bottle.manifest.credentials import Credential, Header
from tests.support import keys
from tests.support.manifests import Place, bottle_faults

SECRET = "hunter2"
EXAMPLE = """\
credentials:
  - host: api.github.com
    header: {Authorization: "Bearer ${GITHUB_TOKEN}"}
  - host: GitHub.com
    basic: {user: x-access-token, password: "${GITHUB_TOKEN}"}
    methods: [GET, POST, GET]
    paths: [/acme/site.git/, /acme/x]
  - host: registry.example.com:8443
    header: {X-Api-Key: "${KEY}", Cookie: "a=${A}; b=${KEY}"}
"""
HEADER = "header: {A: 'x${T}'}"
NONE = 'has no "${NAME}": a secret belongs in a variable of the host, not in a manifest'
REFERENCE = '"${" only works in "${NAME}" with the name of a host variable'
CONNECTION = "cannot be set: it belongs to the connection, or changes how a request is read"
CONTROL = "contains a line break or another control character on the host, which no header can hold"
OF_API = "api.anthropic.com gets CLAUDE_BOTTLE_OAUTH_TOKEN"


def _faults(place: Place, text: str, environ: Mapping[str, str]) -> list[str]:
    place.write("agents/bottles/default.yaml", text)
    with pytest.raises(ManifestError) as raised:
        place.load(environ=environ)
    return [line.rpartition("default.yaml:")[2] for line in str(raised.value).split("\n")]


def test_credentials_are_read_and_their_hosts_allowed(place: Place) -> None:
    place.write("agents/bottles/default.yaml", EXAMPLE)
    bottle = place.load(environ={"GITHUB_TOKEN": "g", "KEY": "k", "A": "a"}).bottle
    basic = Header("Authorization", "x-access-token:${GITHUB_TOKEN}", basic=True)
    both = (Header("X-Api-Key", "${KEY}"), Header("Cookie", "a=${A}; b=${KEY}"))
    assert bottle.credentials == (
        Credential(Host("api.github.com"), (Header("Authorization", "Bearer ${GITHUB_TOKEN}"),)),
        Credential(Host("github.com"), (basic,), ("GET", "POST"), ("/acme/site.git/", "/acme/x")),
        Credential(Host("registry.example.com", 8443), both),
    )
    assert bottle.reach == (Host("api.github.com"), Host("github.com"), Host("registry.example.com", 8443))
    assert bottle.credentials[2].sources == ("KEY", "A")


@pytest.mark.parametrize("value", ["a$b", "${T}", "'\"`{}\\", "$(id)", "x y", "\u00fcber", "$1 %s #;", "\u2028"])
def test_a_value_is_plain_text_whatever_is_in_it(place: Place, value: str) -> None:
    place.write("agents/bottles/default.yaml", f"credentials: [{{host: a.test, {HEADER}}}]")
    environ = {"T": value}
    (header,) = place.load(environ=environ).bottle.credentials[0].headers
    assert header.value(environ) == f"x{value}"


def test_basic_is_encoded_with_the_value_as_it_stands() -> None:
    header = Header("Authorization", "${U}:a:${P}", basic=True)
    value = header.value({"U": "me", "P": "p:\u00fc${U}"})
    assert value.startswith("Basic ")
    assert base64.b64decode(value.removeprefix("Basic ")).decode() == "me:a:p:\u00fc${U}"
    assert header.sources == ("U", "P")


@pytest.mark.parametrize("basic", ["{user: '${T}', password: ''}", "{user: '', password: '${T}'}"])
def test_one_half_of_basic_may_be_empty_or_known(place: Place, basic: str) -> None:
    place.write("agents/bottles/default.yaml", f"credentials: [{{host: a.test, basic: {basic}}}]")
    (header,) = place.load(environ={"T": "t"}).bottle.credentials[0].headers
    assert base64.b64decode(header.value({"T": "t"}).removeprefix("Basic ")) in (b"t:", b":t")


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        (f"host: '*.a.test', {HEADER}", '1:22: credentials.host: "*.a.test": must be one name, not a wildcard'),
        (
            f"host: 'a.test:0', {HEADER}",
            '1:22: credentials.host: "a.test:0": the port must be a number from 1 to 65535',
        ),
        (f"host: 7, {HEADER}", "1:22: credentials.host: expected a string, got a number (add quotes)"),
        (
            f"host: claude.ai, {HEADER}",
            f'1:22: credentials.host: "claude.ai": no other credential can be set for claude.ai; {OF_API}',
        ),
        (
            f"host: 'api.anthropic.com:8443', {HEADER}",
            '1:22: credentials.host: "api.anthropic.com:8443": no other credential can be set for anthropic.com; '
            + OF_API,
        ),
        (
            f"host: a.claude.com, {HEADER}",
            f'1:22: credentials.host: "a.claude.com": no other credential can be set for claude.com; {OF_API}',
        ),
        (HEADER, '1:15: credentials: missing required key "host"'),
        ("host: a.test", '1:15: credentials: missing required key "header" or "basic"'),
        (f"host: a.test, {HEADER}, method: [GET]", '1:52: unknown key "credentials.method"; did you mean "methods"?'),
        (
            f"host: a.test, {HEADER}, basic: {{user: u, password: '${{T}}'}}",
            '1:52: credentials.basic: must not be beside "header"',
        ),
        ("host: a.test, header: {}", "1:38: credentials.header: is empty; give at least one header"),
        ("host: a.test, header: 'x${T}'", "1:38: credentials.header: expected a mapping (key: value), got a string"),
        ("host: a.test, header: {A: hunter2}", f"1:42: credentials.header.A: {NONE}"),
        ("host: a.test, header: {A: '$T'}", f"1:42: credentials.header.A: {NONE}"),
        ("host: a.test, header: {A: 7}", "1:42: credentials.header.A: expected a string, got a number (add quotes)"),
        ("host: a.test, header: {A: '${T}${'}", f"1:42: credentials.header.A: {REFERENCE}"),
        ("host: a.test, header: {A: '${T:-x}'}", f"1:42: credentials.header.A: {REFERENCE}"),
        ("host: a.test, header: {A: '${}'}", f"1:42: credentials.header.A: {REFERENCE}"),
        (
            'host: a.test, header: {A: "${T}\\r\\nB: c"}',
            "1:42: credentials.header.A: must not contain control or invisible characters",
        ),
        ("host: a.test, header: {'A b': '${T}'}", "1:39: credentials.header.A b: is not the name of a header"),
        ("host: a.test, header: {'A:': '${T}'}", "1:39: credentials.header.A:: is not the name of a header"),
        ("host: a.test, header: {'': '${T}'}", "1:39: credentials.header.: is not the name of a header"),
        ('host: a.test, header: {"A\\n": "${T}"}', "1:39: credentials.header.A\\n: is not the name of a header"),
        (
            "host: a.test, header: {X-Key: '${T}', x_key: '${T}'}",
            "1:54: credentials.header.x_key: duplicate header",
        ),
        (
            "host: a.test, basic: {user: 'a:b', password: '${T}'}",
            '1:44: credentials.basic.user: must not contain ":"',
        ),
        ("host: a.test, basic: {user: u, password: hunter2}", f"1:37: credentials.basic: {NONE}"),
        ("host: a.test, basic: {user: '${T}'}", '1:37: credentials.basic: missing required key "password"'),
        ("host: a.test, basic: u", "1:37: credentials.basic: expected a mapping (key: value), got a string"),
        (
            f"host: a.test, {HEADER}, methods: [get]",
            "1:62: credentials.methods: must be a method in capitals, such as GET",
        ),
        (f"host: a.test, {HEADER}, methods: [TRACE]", "1:62: credentials.methods: the credential proxy refuses TRACE"),
        (
            f"host: a.test, {HEADER}, methods: []",
            "1:61: credentials.methods: is empty; without it, every method is allowed",
        ),
        (f"host: a.test, {HEADER}, methods: GET", "1:61: credentials.methods: expected a list, got a string"),
        (f"host: a.test, {HEADER}, paths: [a/]", '1:60: credentials.paths: must begin with "/"'),
        (f"host: a.test, {HEADER}, paths: [/a/%2E%2e/]", '1:60: credentials.paths: must not contain "%2E"'),
        (f"host: a.test, {HEADER}, paths: []", "1:59: credentials.paths: is empty; without it, every path is allowed"),
    ],
)  # fmt: skip
def test_a_fault_has_its_place_and_shows_no_secret(place: Place, entry: str, fault: str) -> None:
    found = _faults(place, f"credentials: [{{{entry}}}]", {"T": SECRET})
    assert found == [fault]
    assert SECRET not in found[0]


@pytest.mark.parametrize(
    "name",
    [
        *("Connection", "HOST", "content-length", "Content_Length", "Transfer-Encoding", "TE", "Trailer", "Upgrade"),
        *("Expect", "Keep-Alive", "Proxy-Authorization", "proxy-connection", "Proxy-X", "HTTP2-Settings"),
        *("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"),
    ],
)
def test_a_header_of_the_connection_cannot_be_set(place: Place, name: str) -> None:
    text = f"credentials:\n  - host: a.test\n    header:\n      {name}: ${{T}}"
    assert _faults(place, text, {"T": "t"}) == [f"4:7: credentials.header.{name}: {CONNECTION}"]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "T is not set on the host"),
        ("", "T is empty on the host"),
        (f"{SECRET}\n", f"T {CONTROL}"),
        (f"{SECRET}\r\nX: y", f"T {CONTROL}"),
        (f"{SECRET}\0", f"T {CONTROL}"),
        (f"{SECRET}\x1b", f"T {CONTROL}"),
        (f"{SECRET}\x7f", f"T {CONTROL}"),
        (f"{SECRET}\x85", f"T {CONTROL}"),
        (f"{SECRET}\udce9", "T is not UTF-8 text on the host"),
    ],
)
@pytest.mark.parametrize(
    ("entry", "name"),
    [("header: {A: '${T}'}", "header.A"), ("basic: {user: me, password: '${T}'}", "basic.password")],
)
def test_a_value_that_no_header_can_hold_is_named_by_its_variable(
    place: Place, entry: str, name: str, value: str | None, problem: str
) -> None:
    text = f"credentials: [{{host: a.test, {entry}}}]"
    column = text.index("'${T}'") + 1
    environ = {} if value is None else {"T": value}
    found = _faults(place, text, environ)
    assert found == [f"1:{column}: credentials.{name}: {problem}"]
    assert SECRET not in found[0]


def test_every_wrong_variable_of_a_template_is_named(place: Place) -> None:
    text = "credentials: [{host: a.test, header: {A: '${T} ${U} ${V}'}}]"
    assert _faults(place, text, {"U": "u", "V": ""}) == [
        "1:42: credentials.header.A: T is not set on the host",
        "1:42: credentials.header.A: V is empty on the host",
    ]


def test_a_colon_in_the_value_of_a_user_is_refused(place: Place) -> None:
    text = "credentials: [{host: a.test, basic: {user: '${T}', password: x}}]"
    assert _faults(place, text, {"T": f"a:{SECRET}"}) == [
        '1:44: credentials.basic.user: T contains ":" on the host, which a user name cannot'
    ]


def test_the_token_of_the_api_is_for_the_api_alone(place: Place) -> None:
    text = "credentials: [{host: a.test, header: {A: '${CLAUDE_BOTTLE_OAUTH_TOKEN}'}}]"
    assert _faults(place, text, {"CLAUDE_BOTTLE_OAUTH_TOKEN": SECRET}) == [
        "1:42: credentials.header.A: CLAUDE_BOTTLE_OAUTH_TOKEN is for api.anthropic.com alone"
    ]


@pytest.mark.parametrize("second", ["a.test", "A.Test", "a.test:8443"])
def test_a_host_is_named_once_whatever_its_port(place: Place, second: str) -> None:
    text = f"credentials:\n  - {{host: a.test, {HEADER}}}\n  - {{host: '{second}', {HEADER}}}"
    assert _faults(place, text, {"T": "t"}) == ['3:12: credentials.host: duplicate host "a.test"']


def test_no_more_hosts_than_there_are_addresses(place: Place) -> None:
    entries = "".join(f"  - {{host: a{number}.test, {HEADER}}}\n" for number in range(101))
    assert _faults(place, f"credentials:\n{entries}", {"T": "t"}) == ["2:3: credentials: more than 100 hosts"]


@pytest.mark.parametrize(
    ("ssh", "credentials", "refused"),
    [(22, "", False), (443, "", True), (443, ":8443", False), (8443, ":8443", True)],
)
def test_ssh_and_a_credential_share_a_host_but_no_port(
    place: Place, ssh: int, credentials: str, *, refused: bool
) -> None:
    place.write("home/key", keys.private("plain"))
    text = (
        f"credentials: [{{host: 'a.test{credentials}', {HEADER}}}]\n"
        f"ssh: [{{host: a.test, port: {ssh}, key: ~/key, known_host: {keys.public('pinned')}}}]\n"
    )
    if refused:
        (fault,) = _faults(place, text, {"T": "t"})
        assert fault.startswith(f'1:22: credentials.host: "a.test{credentials}" is an ssh host of this bottle on the')
    else:
        place.write("agents/bottles/default.yaml", text)
        assert {host.port for host in place.load(environ={"T": "t"}).bottle.reach} == {
            ssh,
            int(credentials[1:] or 443),
        }


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("credentials: {}", "1:14: credentials: expected a list, got a mapping"),
        ("credentials: [a.test]", "1:15: credentials: expected a mapping (key: value), got a string"),
    ],
)
def test_credentials_are_a_list_of_mappings(place: Place, text: str, fault: str) -> None:
    assert bottle_faults(place, text) == [f"bottles/default.yaml:{fault}"]


def test_a_credential_shows_nothing_of_its_template() -> None:
    assert SECRET not in repr(Credential(Host("a.test"), (Header("A", f"{SECRET}${{T}}"),)))
