"""The credential proxy in its container: what leaves, with which credential, and what does not."""

import contextlib
import json
import secrets
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_bottle.egress import credential_proxy
from claude_bottle.egress.allowlist import Host
from claude_bottle.egress.credential_proxy import Signed
from tests.support import proxied
from tests.support.proxied import API, DIGEST_KEY, SIGNED, TOKEN, Client, Proxy, Request, Stream, request

BEARER = f"Bearer {TOKEN}"
USERS, NARROW = "api.example.com", "git.example.com:8443"
MESSAGES = "/v1/messages"
SELF_TEST = credential_proxy.SELF_TEST
MIB = 1 << 20
SECONDS = 60


@pytest.fixture(scope="module")
def proxy(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy and its internet, for all tests that end neither."""
    with proxied.proxied(tmp_path_factory.mktemp("proxied"), image) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def opened(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy of a bottle that may have the API fetch, has further paths, and makes three requests."""
    paths = [("POST", "/v1/files"), ("*", "/v1/skills/")]
    folder = tmp_path_factory.mktemp("opened")
    with proxied.proxied(folder, image, requests=3, server_side_fetch=True, paths=paths) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def batches(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A proxy of a bottle that may reach everything of the API, but have it fetch nothing."""
    with proxied.proxied(tmp_path_factory.mktemp("batches"), image, paths=[("*", "/")]) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def _forget(request: pytest.FixtureRequest) -> None:
    """Begin each test with nothing seen."""
    for name in {"proxy", "opened", "batches"} & set(request.fixturenames):
        request.getfixturevalue(name).forget()


def mark() -> str:
    """Return a query by which a request is found again."""
    return secrets.token_hex(8)


def message(**more: object) -> bytes:
    """Return the body of a request for a message."""
    return json.dumps({"model": "claude", "messages": [{"role": "user", "content": "hi"}], **more}).encode()


def content(*blocks: object) -> bytes:
    return message(messages=[{"role": "user", "content": blocks}])


def refused(proxy: Proxy, response: proxied.Response, reason: str, key: str = API, status: int = 0) -> None:
    """Check a refusal: its form, its reason, and that nothing has left."""
    if key == API:
        assert response.status == (status or 400), response
        assert response.headers["content-type"] == "application/json"
        assert response.json["type"] == "error"
        if response.status == 400:
            assert response.json["error"]["type"] == "invalid_request_error"
        text = response.json["error"]["message"]
    else:
        assert response.status == (status or 403), response
        text = response.body.decode()
    assert text.startswith("claude-bottle: ")
    assert reason in text
    proxy.nothing_arrived()


URL = {"type": "url", "url": "https://example.com/x.png"}
IMAGE = {"type": "image", "source": URL}
DATA = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}


def nested(count: int, inner: str = "") -> bytes:
    """Return a message with lists nested `count` deep, that of the object included."""
    return b'{"x":' + b"[" * (count - 1) + inner.encode() + b"]" * (count - 1) + b"}"


HARMFUL: dict[str, tuple[bytes, str]] = {
    "mcp": (message(mcp_servers=[{"type": "url", "url": "https://example.com"}]), "mcp_servers"),
    "mcp-escaped": (b'{"\\u006dcp_\\u0073ervers":[{}]}', "mcp_servers"),
    "mcp-escaped-throughout": (
        b'{"' + b"".join(b"\\u%04X" % byte for byte in b"mcp_servers") + b'":[{}]}', "mcp_servers",
    ),
    "mcp-twice": (b'{"mcp_servers":null,"mcp_servers":[{}]}', "mcp_servers"),
    "mcp-spaced": (b' \n\t\r{ \n\t\r"mcp_servers" \n: [ ] } ', "mcp_servers"),
    "container": (message(container={"skills": []}), "container"),
    "tool-web-fetch": (message(tools=[{"type": "web_fetch_20250910", "name": "web_fetch"}]), "web_fetch"),
    "tool-code": (message(tools=[{"name": "x"}, {"name": "y", "type": "code_execution_20250522"}]), "code_execution"),
    "tool-mcp": (message(tools=[{"type": "mcp_toolset", "mcp_server_name": "x"}]), "mcp_toolset"),
    "tool-escaped": (b'{"tools":[{"\\u0074ype":"web\\u005ffetch_1"}]}', "would have the API"),
    "tool-escaped-value": (b'{"tools":[{"type":"\\u0077eb_search_1\\n"},{"type":"web_fetch"}]}', "would have the API"),
    "tool-alone": (message(tools={"type": "web_fetch_20250910"}), "web_fetch"),
    "tool-list": (message(tools=[[{"type": "web_fetch_20250910"}]]), "web_fetch"),
    "tool-no-string": (message(tools=[{"type": ["web_fetch_20250910"]}]), "must be a string"),
    "tool-null": (message(tools=[{"type": None}]), "must be a string"),
    "tool-twice": (b'{"tools":[{"type":"custom","name":"x","type":"web_fetch_20250910"}]}', '"type" is there twice'),
    "tool-twice-escaped": (b'{"tools":[{"type":"custom","typ\\u0065":"custom"}]}', '"type" is there twice'),
    "tools-twice": (b'{"tools":[],"tools":[]}', '"tools" is there twice'),
    "messages-twice": (b'{"messages":[],"messages":[]}', '"messages" is there twice'),
    "system-twice": (b'{"system":"","system":""}', '"system" is there twice'),
    "content-twice": (b'{"messages":[{"content":"","content":""}]}', '"content" is there twice'),
    "source-twice": (b'{"messages":[{"content":[{"source":{},"source":{}}]}]}', '"source" is there twice'),
    "image-url": (content(IMAGE), "fetch"),
    "image-url-after-text": (content({"type": "text", "text": "x"}, IMAGE), "fetch"),
    "image-url-in-one-block": (message(messages=[{"role": "user", "content": IMAGE}]), "fetch"),
    "image-url-without-type": (content({"type": "image", "source": {"url": "https://example.com"}}), "url"),
    "image-url-escaped": (b'{"messages":[{"content":[{"source":{"type":"\\u0075rl"}}]}]}', "fetch"),
    "image-file": (content({"type": "image", "source": {"type": "file", "file_id": "x"}}), "fetch"),
    "image-other": (content({"type": "image", "source": {"type": "s3", "uri": "x"}}), "fetch"),
    "document-url": (content({"type": "document", "source": URL}), "fetch"),
    "document-content": (content({"type": "document", "source": {"type": "content", "content": [IMAGE]}}), "fetch"),
    "system-url": (message(system=[{"type": "text", "text": "x"}, {"type": "document", "source": URL}]), "fetch"),
    "result-url": (content({"type": "tool_result", "tool_use_id": "x", "content": [DATA, IMAGE]}), "fetch"),
    "result-in-result-url": (
        content({"type": "tool_result", "content": [{"type": "search_result", "content": [IMAGE]}]}), "fetch",
    ),
    "result-object-url": (
        content({"type": "web_fetch_tool_result", "content": {"type": "x", "content": {"source": URL}}}), "fetch",
    ),
    "late-message-url": (message(messages=[{"role": "user", "content": "x"}] * 300 + [{"content": [IMAGE]}]), "fetch"),
    "empty": (b"", "JSON"),
    "space": (b" ", "JSON"),
    "no-object": (b"[]", "JSON"),
    "string": (b'"x"', "JSON"),
    "form": (b"mcp_servers=x", "JSON"),
    "after-the-end": (message() + b"x", "after its end"),
    "two-values": (message() + message(), "after its end"),
    "nul-after-the-end": (message() + b"\0", "after its end"),
    "byte-order-mark": (b"\xef\xbb\xbf" + message(), "JSON"),
    "utf-16": (message().decode().encode("utf-16-le"), "JSON"),
    "comment": (b'{/**/"x":1}', "JSON"),
    "single-quotes": (b"{'x':1}", "JSON"),
    "bare-key": (b"{x:1}", "JSON"),
    "trailing-comma": (b'{"x":1,}', "JSON"),
    "trailing-comma-in-list": (b'{"x":[1,]}', "JSON"),
    "no-comma": (b'{"x":1 "y":2}', "JSON"),
    "no-colon": (b'{"x" 1}', "JSON"),
    "no-end": (b'{"x":1', "JSON"),
    "no-end-of-string": (b'{"x":"y', "JSON"),
    "no-end-of-escape": (b'{"x":"\\', "JSON"),
    "wrong-end": (b'{"x":[1}', "JSON"),
    "nan": (b'{"x":NaN}', "JSON"),
    "infinity": (b'{"x":-Infinity}', "JSON"),
    "leading-zero": (b'{"x":01}', "JSON"),
    "plus": (b'{"x":+1}', "JSON"),
    "point": (b'{"x":1.}', "JSON"),
    "exponent": (b'{"x":1e}', "JSON"),
    "hexadecimal": (b'{"x":0x1}', "JSON"),
    "word": (b'{"x":True}', "JSON"),
    "longer-word": (b'{"x":nullx}', "JSON"),
    "escape": (b'{"x":"\\x41"}', "escape"),
    "escape-digits": (b'{"x":"\\u00g0"}', "escape"),
    "newline-in-string": (b'{"x":"a\nb"}', "control"),
    "nul-in-string": (b'{"x":"a\0b"}', "control"),
    "nul-in-key": (b'{"mcp_servers\0":1}', "control"),
    "utf-8-lone": (b'{"x":"\x80"}', "UTF-8"),
    "utf-8-short": (b'{"x":"\xe2\x82"}', "UTF-8"),
    "utf-8-overlong": (b'{"x":"\xc0\xaf"}', "UTF-8"),
    "utf-8-overlong-3": (b'{"x":"\xe0\x80\xaf"}', "UTF-8"),
    "utf-8-overlong-4": (b'{"x":"\xf0\x80\x80\xaf"}', "UTF-8"),
    "utf-8-surrogate": (b'{"x":"\xed\xa0\x80"}', "UTF-8"),
    "utf-8-too-high": (b'{"x":"\xf4\x90\x80\x80"}', "UTF-8"),
    "utf-8-in-key": (b'{"\xff":1}', "UTF-8"),
    "deep": (nested(201), "more than 200 deep"),
    "deep-objects": (b'{"x":' * 201 + b"1" + b"}" * 201, "more than 200 deep"),
}  # fmt: skip

INNOCENT: dict[str, bytes] = {
    "plain": message(),
    "spaced": b' \n\t\r{ "messages" : [ ] } \n',
    "empty-object": b"{}",
    "tools": message(tools=[{"name": "x"}, {"type": "custom", "name": "y"}, {"type": "web_search_20250305"}]),
    "tool-escaped": b'{"tools":[{"\\u0074ype":"cust\\u006fm"}]}',
    "schema": message(tools=[{"name": "x", "input_schema": {
        "type": "object", "properties": {"mcp_servers": {"type": "array"}, "container": {"type": "string"},
                                         "source": {"type": "url", "url": "x"}, "type": {"type": "web_fetch"}}}}]),
    "input": content({"type": "tool_use", "name": "x", "input": {
        "mcp_servers": [1], "container": "x", "tools": [{"type": "web_fetch"}], "source": URL, "content": [IMAGE]}}),
    "duplicates-in-input": b'{"messages":[{"content":[{"input":{"type":1,"type":2,"source":1,"source":2}}]}]}',
    "duplicates-elsewhere": b'{"model":"a","model":"b","metadata":{"tools":1,"tools":2}}',
    "strings": content({"type": "text", "text": '{"mcp_servers": [], "source": {"type": "url"}} \\u006dcp_servers'}),
    "content-is-text": message(messages=[{"role": "user", "content": '{"type":"image","source":{"type":"url"}}'}]),
    "metadata": message(metadata={"mcp_servers": [], "container": 1, "messages": [{"content": [IMAGE]}]}),
    "mcp-servers-in-message": message(messages=[{"role": "user", "content": "x", "mcp_servers": 1, "container": 1}]),
    "other-key": message(mcp_server=1, containers=1, MCP_SERVERS=1),
    "backslash-key": b'{"\\\\u006dcp_servers":1,"\\"mcp_servers":1}',
    "long-key": b'{"' + b"mcp_servers" * 100 + b'":1}',
    "image": content(DATA),
    "documents": content({"type": "document", "source": {"type": "text", "data": "x"}},
                         {"type": "document", "source": {"type": "content", "content": [DATA]}},
                         {"type": "document", "source": {"type": "content", "content": "url"}}),
    "search-result": content({"type": "search_result", "source": "https://example.com", "content": [DATA]}),
    "result": content({"type": "tool_result", "content": [DATA, {"type": "tool_reference", "tool_name": "x"}]}),
    "result-is-text": content({"type": "tool_result", "content": "url"}),
    "search-results": content({"type": "web_search_tool_result", "content": [{"url": "https://x", "type": "x"}]}),
    "citation": content({"type": "text", "text": "x", "citations": [{"url": "https://x", "type": "url"}]}),
    "values": b'{"a":[true,false,null,0,-0,1.5,-1.5e+10,1E-3,10,"",[],{}],"b":{"c":{}}}',
    "escapes": b'{"x":"\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00\\ud83d"}',
    "unicode": message(system="\u00e9\u20ac\ud7ff\ue000\uffff\U00010000\U0010ffff") and json.dumps(
        {"x\u00e9": "\x7f\u0080\u07ff\u0800\u0fff\u20ac\ud7ff\ue000\uffff\U00010000\U000fffff\U0010ffff"},
        ensure_ascii=False).encode(),
    "deep": nested(200),
    "deep-objects": b'{"x":' * 200 + b"1" + b"}" * 200,
    "system": message(system=[{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]),
}  # fmt: skip


@pytest.mark.parametrize("case", HARMFUL)
def test_what_the_api_would_do_for_its_caller_is_refused(proxy: Proxy, case: str) -> None:
    body, reason = HARMFUL[case]
    refused(proxy, proxy.ask("POST", MESSAGES, body=body), reason)


@pytest.mark.parametrize("case", INNOCENT)
def test_a_look_alike_passes_byte_for_byte(proxy: Proxy, case: str) -> None:
    target = f"{MESSAGES}?{mark()}"
    assert proxy.ask("POST", target, body=INNOCENT[case]).status == 200
    assert proxy.arrived(target).body == INNOCENT[case]


def test_every_judged_path_is_judged(proxy: Proxy, batches: Proxy) -> None:
    body, reason = HARMFUL["mcp"]
    refused(proxy, proxy.ask("POST", f"{MESSAGES}/count_tokens?beta=true", body=body), reason)
    for path in ("/v1/messages/", "/V1/Messages", "/v1/messages/new"):
        refused(batches, batches.ask("POST", path, body=body), reason)
    batch = json.dumps({"requests": [{"custom_id": "1", "params": json.loads(body)}]}).encode()
    refused(batches, batches.ask("POST", f"{MESSAGES}/batches", body=batch), reason)
    target = f"{MESSAGES}/batches?{mark()}"
    assert batches.ask("GET", target).status == 200
    batches.arrived(target)


def test_a_bottle_may_have_the_api_fetch(opened: Proxy) -> None:
    target = f"{MESSAGES}/count_tokens?{mark()}"
    body, _ = HARMFUL["mcp"]
    assert opened.ask("POST", target, "anthropic-beta: mcp-client-2025-04-04", body=body).status == 200
    assert opened.arrived(target).header("anthropic-beta") == ["mcp-client-2025-04-04"]


@pytest.mark.parametrize("encoding", ["gzip", "identity", "br", ""])
def test_a_judged_body_is_not_encoded(proxy: Proxy, encoding: str) -> None:
    refused(proxy, proxy.ask("POST", MESSAGES, f"Content-Encoding: {encoding}", body=message()), "compressed")


@pytest.mark.parametrize(
    "kind",
    [
        "application/json; charset=utf-7",
        "application/json;charset=utf-16",
        "application/json; charset=utf-8; charset=utf-7",
        "application/json\r\nContent-Type: application/json; charset=utf-7",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
        "",
    ],
)
def test_a_judged_body_is_of_one_type(proxy: Proxy, kind: str) -> None:
    """In UTF-7 this key is `mcp_servers`."""
    body = b'{"+AG0-cp_servers":[]}'
    refused(proxy, proxy.ask("POST", MESSAGES, f"Content-Type: {kind}", body=body), "application/json in UTF-8")


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"']
)
def test_a_judged_body_may_say_that_it_is_json(proxy: Proxy, kind: str) -> None:
    target = f"{MESSAGES}?{mark()}"
    assert proxy.ask("POST", target, f"Content-Type: {kind}", body=message()).status == 200
    proxy.arrived(target)


@pytest.mark.parametrize(
    "header",
    [
        "anthropic-beta: mcp-client-2025-04-04",
        "anthropic-beta: oauth-2025-04-20,files-api-2025-04-14",
        "anthropic-beta: oauth-2025-04-20\r\nAnthropic-Beta: x, code-execution-2025-05-22",
        "ANTHROPIC-BETA:\tSkills-2025-10-02",
    ],
)
def test_betas_that_fetch_or_run_are_refused(proxy: Proxy, header: str) -> None:
    refused(proxy, proxy.ask("POST", MESSAGES, header, body=message()), "the beta")


def test_anthropic_headers_pass_unchanged(proxy: Proxy) -> None:
    sent = {
        "anthropic-beta": "oauth-2025-04-20,my-files-api-2025,context-management-2025-06-27",
        "anthropic-version": "2023-06-01",
        "x-app": "cli",
        "accept-encoding": "gzip, br",
        "user-agent": "claude-cli/1",
        "idempotency-key": "x",
    }
    target = f"{MESSAGES}?{mark()}"
    proxy.ask("POST", target, *(f"{name}: {value}" for name, value in sent.items()), body=message())
    arrived = dict(proxy.arrived(target).headers)
    assert arrived == sent | {"host": API, "authorization": BEARER, "content-length": str(len(message()))}


PASSING = (
    *(("POST", path) for path in (MESSAGES, f"{MESSAGES}/count_tokens")),
    *(("GET", f"/api/{path}") for path in ("claude_code/settings", "claude_code/policy_limits", "web/domain_info")),
    *((method, "/api/hello") for method in ("GET", "HEAD")),
)
REFUSED_PATHS = (
    *(("POST", path) for path in ("/v1/files", "/v1/skills", "/v1/messages/batches", "/v1/complete", "/v1/sessions")),
    *(("POST", path) for path in ("/v1/oauth/token", "/api/oauth/claude_cli/create_api_key", "/api/oauth/profile")),
    *(("GET", path) for path in ("/v1/files", "/v1/messages", "/v1/organizations/me", "/api/oauth/profile", "/")),
    *(("GET", path) for path in ("/api/hello/../x", "/api/hello/%2e%2e/x", "/api/..%2fhello")),
    *(
        ("GET", f"/api/{path}")
        for path in ("/hello", "hello;b", "a\\b", "hell%6f", "./hello", "hello/", "hello#y", "..")
    ),
    *(("GET", path) for path in ("/v1/models", "/API/hello", "//api/hello", "/api/hello%23", "/api/hello%252e")),
    *(("PUT", MESSAGES), ("DELETE", "/api/hello"), ("OPTIONS", MESSAGES)),
    *(("POST", path) for path in ("/api/event_logging/v2/batch", "/api/eval/sdk", "/.claude-bottle/self-test/right/")),
    *(("POST", "/v1/%6dessages"), ("POST", "/v1/messages/"), ("POST", "/v1//messages"), ("POST", "/v1/messages%3fx")),
)


@pytest.mark.parametrize(("method", "path"), PASSING)
def test_what_claude_code_needs_passes(proxy: Proxy, method: str, path: str) -> None:
    target = f"{path}?{mark()}"
    assert proxy.ask(method, target, body=message() if method == "POST" else None).status == 200
    assert proxy.arrived(target).header("authorization") == [BEARER]


@pytest.mark.parametrize(("method", "path"), REFUSED_PATHS)
def test_other_paths_of_the_api_are_refused(proxy: Proxy, method: str, path: str) -> None:
    response = proxy.ask(method, path, body=message() if method == "POST" else None)
    refused(proxy, response, "")


def test_a_refused_path_names_what_would_allow_it(proxy: Proxy) -> None:
    response = proxy.ask("POST", f"/v1/files?{mark()}", "Content-Type: x", body=b"x")
    refused(proxy, response, 'POST /v1/files is not what Claude Code needs of the API; to allow it: "api: {paths: [')
    line = proxy.logged("/v1/files")
    assert line["unlisted"] is True
    assert line["verdict"] == "blocked"


def test_a_bottle_may_have_more_paths(opened: Proxy) -> None:
    for method, path in (("POST", "/v1/files"), ("GET", "/v1/skills/x"), ("DELETE", "/v1/skills/")):
        target = f"{path}?{mark()}"
        assert opened.ask(method, target).status == 200
        assert opened.arrived(target).header("authorization") == [BEARER]
    for method, path in (("GET", "/v1/files"), ("POST", "/v1/files/x"), ("GET", "/v1/skills")):
        refused(opened, opened.ask(method, path), "is not what Claude Code needs")


DEFAULTS = {
    "claude.ai": ("GET", "/api/organizations", "/install.sh"),
    "claude.com": ("POST", "/", "/docs/x"),
    "code.claude.com": ("GET", "/docs", "/docs/en/overview.md"),
    "downloads.claude.ai": ("PUT", "/claude-code-releases/x", "/claude-code-releases/latest"),
    "mcp-proxy.anthropic.com": ("POST", "/v1/mcp/x", None),
    "platform.claude.com": ("POST", "/v1/oauth/token", "/docs/en/api"),
}


@pytest.mark.parametrize("key", DEFAULTS)
def test_the_other_default_hosts_serve_what_claude_code_needs_and_get_no_credential(proxy: Proxy, key: str) -> None:
    method, path, passing = DEFAULTS[key]
    refused(proxy, proxy.ask(method, path, key=key), "is not what Claude Code needs", key)
    if passing:
        target = f"{passing}?{mark()}"
        foreign = ("Authorization: Bearer foreign", "Cookie: sessionKey=foreign", "X-Api-Key: foreign")
        assert proxy.ask("GET", target, *foreign, key=key).status == 200
        arrived = proxy.arrived(target)
        assert b"foreign" not in arrived.head
        assert TOKEN.encode() not in arrived.head
        assert arrived.header("host") == [key]


FOREIGN = {
    "bearer": "Authorization: Bearer foreign",
    "upper": "AUTHORIZATION: Bearer foreign",
    "key": "x-api-key: foreign",
    "key-upper": "X-API-KEY: foreign",
    "keys": "x-api-key: foreign\r\nX-Api-Key: foreign",
    "empty-then-key": "x-api-key:\r\nx-api-key: foreign",
    "underscores": "x_api_key: foreign",
    "mixed": "x-api_key: foreign",
    "cookie": "Cookie: sessionKey=foreign",
    "cookies": "Cookie: a=b\r\nCookie: sessionKey=foreign",
    "cookie2": "Cookie2: foreign",
    "proxy": "Proxy-Authorization: Basic foreign",
    "forwarded": "X-Forwarded-Authorization: foreign",
    "original": "X-Original-Authorization: foreign",
    "auth-token": "X-Auth-Token: foreign",
    "apikey": "apikey: foreign",
    "google": "x-goog-api-key: foreign",
    "anthropic": "anthropic-api-key: foreign",
    "connection": "Connection: authorization, x-api-key\r\nx-api-key: foreign",
    "connection-keep-alive": "Connection: keep-alive, Authorization\r\nAuthorization: Bearer foreign",
    "tab": "x-api-key:\tforeign",
    "override": "X-HTTP-Method-Override: foreign",
    "rewrite": "X-Original-URL: /v1/foreign",
    "auth-key": "X-Auth-Key: foreign",
    "auth-email": "X-Auth-Email: foreign",
    "subscription-key": "Ocp-Apim-Subscription-Key: foreign",
    "jwt": "Cf-Access-Jwt-Assertion: foreign",
    "signature": "Signature: foreign",
    "method": "X-Method: foreign",
    "host-override": "X-HTTP-Host-Override: foreign",
    "x-host": "X-Host: foreign",
    "forwarded-host": "Forwarded: host=foreign",
    "te": "TE: foreign",
    "keep-alive": "Keep-Alive: foreign",
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_foreign_credential_does_not_leave(proxy: Proxy, case: str) -> None:
    target = f"{MESSAGES}?{mark()}"
    assert proxy.ask("POST", target, FOREIGN[case], body=message()).status == 200
    arrived = proxy.arrived(target)
    assert b"foreign" not in arrived.head
    assert arrived.header("authorization") == [BEARER]
    assert not [name for name, _ in arrived.headers if name in ("connection", "cookie", "x-api-key")]


MALFORMED = {
    "authorization-twice": request("POST", MESSAGES, "Authorization: x", "authorization: y", body=message()),
    "lower-case-method": request("post", MESSAGES, body=message()),
    "folded": request("POST", MESSAGES, "X-A: b\r\n x-api-key: foreign", body=message()),
    "folded-tab": request("POST", MESSAGES, "X-A: b\r\n\tx-api-key: foreign", body=message()),
    "space-before-colon": request("POST", MESSAGES, "x-api-key : foreign", body=message()),
    "nul": request("POST", MESSAGES, "X-A: b\0c", body=message()),
    "two-lengths": request("POST", MESSAGES, "Content-Length: 0", body=message()),
    "length-list": b"POST /v1/messages HTTP/1.1\r\nHost: api.anthropic.com\r\nContent-Length: 2, 2\r\n\r\n{}",
    "length-plus": b"POST /v1/messages HTTP/1.1\r\nHost: api.anthropic.com\r\nContent-Length: +2\r\n\r\n{}",
    "chunked-and-length": request("POST", MESSAGES, "Transfer-Encoding: chunked", "Content-Length: 2")
    + b"2\r\n{}\r\n0\r\n\r\n",
    "chunked-twice": request("POST", MESSAGES, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked")
    + b"0\r\n\r\n",
    "gzip-chunked": request("POST", MESSAGES, "Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
    "identity": request("POST", MESSAGES, "Transfer-Encoding: identity", body=b"{}"),
    "chunked-1.0": request("POST", MESSAGES, "Transfer-Encoding: chunked").replace(b"1.1", b"1.0") + b"0\r\n\r\n",
    "bad-chunk": request("POST", MESSAGES, "Transfer-Encoding: chunked") + b"x\r\n{}\r\n0\r\n\r\n",
    "two-hosts": request("GET", "/api/hello", f"Host: {API}"),
    "no-host": b"GET /api/hello HTTP/1.1\r\n\r\n",
    "no-host-1.0": b"GET /api/hello HTTP/1.0\r\n\r\n",
    "http-0.9": b"GET /api/hello\r\n",
    "http-2.0": request("GET", "/api/hello").replace(b"1.1", b"2.0"),
    "http-1.2": request("GET", "/api/hello").replace(b"1.1", b"1.2"),
    "preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "trace": request("TRACE", "/api/hello"),
    "connect": request("CONNECT", f"{API}:443"),
    "connect-path": request("CONNECT", "/api/hello"),
    "asterisk": request("OPTIONS", "*"),
    "absolute": request("GET", f"https://{API}/api/hello"),
    "absolute-elsewhere": request("GET", "http://elsewhere.test/api/hello"),
    "no-slash": request("GET", "api/hello"),
    "space-in-target": request("GET", "/api/hello x"),
    "websocket": request("GET", "/api/hello", "Connection: Upgrade", "Upgrade: websocket"),
    "h2c": request(
        "GET", "/api/hello", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQ"
    ),
    "upgrade-alone": request("GET", "/api/hello", "Upgrade: x"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_what_could_be_read_in_two_ways_is_refused(proxy: Proxy, case: str) -> None:
    with proxy.client() as client:
        client.send(MALFORMED[case])
        line = client.stream.until(b"\r\n") if case != "http-0.9" else b"HTTP/0.9 400"
    assert int(line.split()[1]) in (400, 405, 421, 501, 505)
    proxy.nothing_arrived()


@pytest.mark.parametrize("host", ["elsewhere.test", "claude.ai", f"{API}.", f"{API}:8443", "", "a@b", f"{API}@x"])
def test_host_must_be_the_name_of_the_handshake(proxy: Proxy, host: str) -> None:
    with proxy.client() as client:
        client.send(request("GET", "/api/hello", host=host))
        assert client.head()[0] in ((400, 421) if host in ("", "a@b", f"{API}@x") else (421,))
    proxy.nothing_arrived()


@pytest.mark.parametrize("host", [API, f"{API}:443", API.upper()])
def test_host_may_be_written_as_clients_do(proxy: Proxy, host: str) -> None:
    with proxy.client() as client:
        assert client.ask("GET", "/api/hello", host=host).status == 200


@pytest.mark.parametrize("sni", [None, "elsewhere.test", f"x.{API}"])
def test_another_name_is_refused_in_the_handshake(proxy: Proxy, sni: str | None) -> None:
    with pytest.raises(ssl.SSLError, match="unrecognized name"), proxy.client(sni=sni):
        pass


def test_the_name_of_another_ended_host_is_no_way_around(proxy: Proxy) -> None:
    for host in (API, "claude.ai", "claude.com"):
        with proxy.client("claude.ai", sni="claude.com") as client:
            client.send(request("GET", "/install.sh", host=host))
            assert client.head()[0] == 421
    with pytest.raises(ssl.SSLError, match="unrecognized name"), proxy.client(sni="claude.ai"):
        pass
    with pytest.raises(ssl.SSLError, match="unrecognized name"), proxy.client("claude.ai", sni=API):
        pass
    proxy.nothing_arrived()


def test_only_http_1_1_is_agreed_upon(proxy: Proxy) -> None:
    with proxy.client(alpn=("h2", "http/1.1")) as client:
        assert client.sock.selected_alpn_protocol() == "http/1.1"
    with pytest.raises(ssl.SSLError, match="no application protocol"), proxy.client(alpn=("h2",)):
        pass


def test_plain_http_is_refused(proxy: Proxy) -> None:
    with socket.create_connection((proxy.address, proxied.FIRST_RELAY), SECONDS) as sock:
        sock.sendall(request("GET", "/api/hello"))
        assert Stream(sock).until(b"\r\n").startswith(b"HTTP/1.1 400 ")
    proxy.nothing_arrived()


def test_a_client_that_waits_for_100_gets_it(proxy: Proxy) -> None:
    target = f"{MESSAGES}?{mark()}"
    with proxy.client() as client:
        client.send(request("POST", target, "Expect: 100-continue", f"Content-Length: {len(message())}"))
        assert client.stream.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue"
        client.send(message())
        assert client.answer().status == 200
    assert proxy.arrived(target).header("expect") == []


def test_chunks_become_one_body(proxy: Proxy) -> None:
    target, body = f"{MESSAGES}?{mark()}", message()
    with proxy.client() as client:
        client.send(request("POST", target, "Transfer-Encoding: chunked"))
        for place in range(0, len(body), 7):
            piece = body[place : place + 7]
            client.send(b"%x;ext=1\r\n%s\r\n" % (len(piece), piece))
        client.send(b"0\r\nx-api-key: trailer\r\n\r\n")
        assert client.answer().status == 200
    arrived = proxy.arrived(target)
    assert (arrived.body, arrived.header("x-api-key")) == (body, [])


def test_harm_in_chunks_is_refused(proxy: Proxy) -> None:
    with proxy.client() as client:
        client.send(request("POST", MESSAGES, "Transfer-Encoding: chunked"))
        client.send(b'6\r\n{"mcp_\r\nc\r\nservers":[]}\r\n0\r\n\r\n')
        refused(proxy, client.answer(), "mcp_servers")


def test_what_follows_a_refused_body_is_no_request_of_its_own(proxy: Proxy) -> None:
    inner = request("POST", f"{MESSAGES}?inner", body=message())
    with proxy.client() as client:
        client.send(request("POST", "/v1/files", body=inner))
        assert client.answer().status == 400
        assert client.sock.recv(1) == b""
    with proxy.client(USERS) as client:
        client.send(request("POST", "/x", "Upgrade: x", body=request("GET", "/inner", host=USERS), host=USERS))
        assert client.answer().status == 403
        assert client.ask("GET", f"/after?{mark()}").status == 200
    assert "/after" in proxy.internet.requests.get(timeout=SECONDS).line
    proxy.nothing_arrived()


def test_pipelined_requests_are_judged_one_by_one(proxy: Proxy) -> None:
    first, last = (f"{MESSAGES}?{mark()}" for _ in range(2))
    with proxy.client() as client:
        client.send(
            request("POST", first, "x-api-key: foreign", body=message())
            + request("POST", last, "x-api-key: foreign", body=message())
            + request("POST", "/v1/files", body=b"x")
        )
        assert [client.answer().status for _ in range(3)] == [200, 200, 400]
    for target in (first, last):
        assert b"foreign" not in proxy.arrived(target).head
    proxy.nothing_arrived()


def test_a_users_host_gets_its_own_credential_as_it_is(proxy: Proxy) -> None:
    target = f"/a/%2e%2e/b//c;d?{mark()}"
    foreign = (
        "Authorization: Bearer foreign",
        "X-Other-Key: foreign",
        "X_Other_Key: foreign",
        "Private-Token: foreign",
    )
    assert proxy.ask("PROPFIND", target, *foreign, "X-HTTP-Method-Override: PUT", key=USERS).status == 200
    arrived = proxy.arrived(target)
    assert arrived.line == f"PROPFIND {target} HTTP/1.1"
    headers = [(name, value.encode("latin-1").decode()) for name, value in arrived.headers]
    signed = [(name.lower(), value) for name, value in SIGNED[0].headers.items()]
    assert sorted(headers) == sorted([("host", USERS), ("x-http-method-override", "PUT"), *signed])


@pytest.mark.parametrize("path", ["/acme/site.git/", "/acme/site.git/info/refs", "/one", "/acme/site.git/%41"])
def test_a_path_that_is_named_passes(proxy: Proxy, path: str) -> None:
    target = f"{path}?{mark()}"
    assert proxy.ask("GET", target, "X-HTTP-Method-Override: PUT", key=NARROW).status == 200
    arrived = proxy.arrived(target)
    assert dict(arrived.headers) == {"host": NARROW, "authorization": "Basic abc"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(
            ("GET", path)
            for path in ("/", "/acme/site.git", "/acme/other.git/", "/one/", "/one/x", "/onex", "/ACME/site.git/")
        ),
        *(
            ("GET", f"/acme/site.git/{part}")
            for part in ("../x", "%2e%2e/x", "..%2fx", "..%5Cx", "a%252e", "./x", "/x")
        ),
        *(("GET", f"/acme/site.git/{part}") for part in ("..", ".", "a;b", "a\\b", "%2E", "..;/x", "x#y", "..\\x")),
        *(
            ("GET", f"/acme/site.git/{part}")
            for part in ("..%3B/x", "%C0%ae./x", "%c1%9c", "..%09/x", ".%0a./x", "..%7F/x")
        ),
        *(
            ("GET", path)
            for path in ("//acme/site.git/", "/x/../acme/site.git/", "/%61cme/site.git/", "/acme%2fsite.git/")
        ),
        *((method, "/one") for method in ("PUT", "DELETE", "HEAD")),
    ],
)
def test_other_paths_and_methods_are_refused(proxy: Proxy, method: str, path: str) -> None:
    with proxy.client(NARROW) as client:
        response = client.ask(method, path)
    assert response.status in ((403, 400) if ".." in path else (403,))
    proxy.nothing_arrived()


@pytest.mark.parametrize(
    ("method", "path", "key"), [("GET", "/api/hello", API), ("POST", "/x", USERS), ("POST", "/one", NARROW)]
)
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_the_host_ignores_is_not_its_next_request(
    proxy: Proxy, method: str, path: str, key: str, *, chunked: bool
) -> None:
    """A host that answers without the body reads on where the body begins, unless the connection ends there."""
    query, inner = mark(), request("POST", "/v1/files", "x-api-key: foreign", "Content-Length: 0", host=key)
    ignored = threading.Event()

    def ignore(stream: Stream, sock: ssl.SSLSocket) -> None:
        stream.until(b"\r\n") if chunked else None
        proxied.plain(sock)
        ignored.set()

    proxy.internet.readers[query] = ignore
    if chunked:
        framed = request(method, f"{path}?{query}", "Transfer-Encoding: chunked", host=key)
        framed += b"%x\r\n%s\r\n0\r\n\r\n" % (len(inner), inner)
    else:
        framed = request(method, f"{path}?{query}", body=inner, host=key)
    with proxy.client(key) as client:
        client.send(framed)
        assert client.head()[0] in (200, 502)
    assert ignored.wait(SECONDS)
    proxy.nothing_arrived()


def test_what_is_posted_to_the_api_keeps_its_connection(proxy: Proxy) -> None:
    seen = set()
    for _ in range(3):
        target = f"{MESSAGES}?{mark()}"
        assert proxy.ask("POST", target, body=message()).status == 200
        seen.add(proxy.arrived(target).connection)
    assert len(seen) == 1


def test_connections_outside_are_kept(proxy: Proxy) -> None:
    seen = set()
    for _ in range(5):
        target = f"/api/hello?{mark()}"
        assert proxy.ask("GET", target).status == 200
        seen.add(proxy.arrived(target).connection)
    assert len(seen) == 1


def test_a_kept_connection_that_has_ended_is_made_anew(proxy: Proxy) -> None:
    last = f"/api/hello?{mark()}"
    ended = threading.Event()

    def answer_and_end(_: Request, sock: ssl.SSLSocket) -> None:
        proxied.plain(sock)
        sock.shutdown(socket.SHUT_RDWR)
        ended.set()
        raise EOFError

    proxy.internet.answers[last.partition("?")[2]] = answer_and_end
    assert proxy.ask("GET", last).status == 200
    assert ended.wait(SECONDS)
    target = f"/api/hello?{mark()}"
    assert proxy.ask("GET", target).status == 200
    assert proxy.arrived(last).connection != proxy.arrived(target).connection


@pytest.mark.parametrize("name", ["stranger", "misnamed", "missing"])
def test_a_host_that_is_not_itself_is_no_host(proxy: Proxy, name: str) -> None:
    key = f"{name}.example.com"
    refused(proxy, proxy.ask("GET", "/", key=key), "cannot be reached, or its certificate is not trusted", key, 502)
    while (line := proxy.logged("/"))["host"] != key:
        pass
    assert (line["verdict"], line["status"]) == ("failed", 502)


def test_the_certificates_of_its_image_are_trusted_and_not_its_own(image: str, tmp_path: Path) -> None:
    with proxied.proxied(tmp_path, image, given=False) as proxy:
        target = f"/api/hello?{mark()}"
        assert proxy.ask("GET", target).status == 200
        proxy.arrived(target)
        for name in ("stranger", "misnamed"):
            key = f"{name}.example.com"
            refused(proxy, proxy.ask("GET", "/", key=key), "certificate is not trusted", key, 502)
        assert [proxy.ask("GET", f"{SELF_TEST}/{name}").status for name in ("right", "wrong")] == [200, 502]


@pytest.mark.parametrize("key", [API, USERS, NARROW])
def test_the_self_test_shows_what_would_have_left(proxy: Proxy, key: str) -> None:
    foreign = ("Authorization: foreign", "x-api-key: foreign", "Cookie: foreign", "X-Other-Key: foreign")
    with proxy.client(key) as client:
        answers = [client.ask("GET", f"{SELF_TEST}/{name}", *foreign) for name in ("right", "wrong")]
        more = client.ask("GET", f"{SELF_TEST}/right", "X-Other: foreign")
    expected = credential_proxy.digests(TOKEN, SIGNED, digest_key=DIGEST_KEY)[key]
    assert answers[0].json["digest"] == expected != more.json["digest"]
    assert answers[1].status == 502
    proxy.nothing_arrived()


def test_every_header_that_leaves_is_in_the_self_tests_digest(image: str, tmp_path: Path) -> None:
    """Those as well that nginx would take for invalid ones when they arrive."""
    headers = {"a_B": "1", "A.b!": "2", "authorization": "\u00e9 3 ", "Cookie": " 4"}
    signed = (Signed(Host(USERS), headers), *SIGNED[1:])
    with proxied.proxied(tmp_path, image, signed) as proxy:
        found = proxy.ask("GET", f"{SELF_TEST}/right", "a-b: foreign", key=USERS).json["digest"]
        assert proxy.ask("GET", target := f"/?{mark()}", key=USERS).status == 200
        assert {name for name, _ in proxy.arrived(target).headers} == {"host", "a_b", "a.b!", "authorization", "cookie"}
    made = [credential_proxy.digests(TOKEN, each, digest_key=DIGEST_KEY)[USERS] for each in (signed, SIGNED)]
    assert [found == each for each in made] == [True, False]


@pytest.mark.parametrize(
    ("request_", "key", "status"),
    [
        ("GET /one", NARROW, 200),
        ("POST /acme/site.git/x", NARROW, 200),
        ("DELETE /one", NARROW, 403),
        ("GET /two", NARROW, 403),
        ("GET /acme/site.git/%2e%2e/", NARROW, 403),
        ("PROPFIND /%2e%2e/", USERS, 200),
        ("GET /api/hello", API, 200),
        ("GET /v1/files", API, 400),
    ],
)
def test_the_self_test_judges_a_request_that_does_not_leave(proxy: Proxy, request_: str, key: str, status: int) -> None:
    method, _, path = request_.partition(" ")
    assert proxy.ask(method, f"{SELF_TEST}/right?{path}", key=key).status == status
    proxy.nothing_arrived()
    assert proxy.lines.get(timeout=SECONDS)["path"] == "/api/hello"  # what passes afterwards; the other is not logged


def test_the_self_test_is_no_message(opened: Proxy) -> None:
    """It would take one from the session's three, or be refused after them."""
    for _ in range(5):
        assert opened.ask("POST", f"{SELF_TEST}/right?{MESSAGES}", body=message()).status == 200
    opened.nothing_arrived()


@pytest.mark.parametrize(
    ("target", "key"),
    [
        ("right", "claude.ai"),
        ("wrong", "claude.ai"),
        ("right/", NARROW),
        ("right%3F/one", NARROW),
        ("righT", NARROW),
        ("other", NARROW),
    ],
)
def test_the_self_test_is_two_paths_of_signed_hosts_alone(proxy: Proxy, target: str, key: str) -> None:
    refused(proxy, proxy.ask("GET", f"{SELF_TEST}/{target}?/one", key=key), "/self-test/", key)
    assert proxy.logged(f"{SELF_TEST}/{target}")["verdict"] == "blocked"


def test_a_users_host_has_all_other_paths(proxy: Proxy) -> None:
    target = f"{SELF_TEST}/right/{mark()}"
    assert proxy.ask("GET", target, key=USERS).status == 200
    proxy.arrived(target)


def test_no_process_has_any_privilege(proxy: Proxy) -> None:
    found = proxy.ask("GET", f"{SELF_TEST}/right").json["processes"]
    assert {each["Name"] for each in found.values()} == {"bash", "nginx"}
    assert found["1"]["Name"] == "bash"
    for each in found.values():
        assert (each["Uid"], each["NoNewPrivs"]) == ([65533] * 4, "1")
        assert {each[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    seen = proxy.sh(
        "for each in /proc/[0-9]*; do grep -q claude-bottle-probe $each/cmdline || echo ${each#/proc/}; done"
    )
    assert set(found) <= set(seen.split())


def test_the_rules_are_loaded(proxy: Proxy, image: str) -> None:
    words = (
        "--rm",
        "--network",
        f"container:{proxy.name}",
        "--user",
        "0",
        "--cap-drop",
        "ALL",
        "--cap-add",
        "NET_ADMIN",
    )
    assert "table inet proof\n" in proxied.docker("run", *words, "--entrypoint", "nft", image, "list", "tables")


def test_nothing_secret_is_left_in_a_file_an_argument_or_the_environment(proxy: Proxy) -> None:
    assert proxy.ask("GET", "/api/hello").status == 200  # the program is right: it can find what there is
    files = proxy.sh("cd /run/proxy && ls -A").split()
    sockets = [f"{number}.sock" for number in range(len(proxy.hosts))] + ["self-test.sock"]
    folders = ["answers", "body", "fastcgi", "scgi", "uwsgi"]
    kept = ["authority.pem", "credential_proxy.lua", "leaf.pem", "more-ca.pem", "nginx.conf", "nginx.pid"]
    assert sorted(files) == sorted([*sockets, *folders, *kept])
    everything = proxy.sh("cat /run/proxy/*.[a-z]* /proc/[0-9]*/cmdline /proc/[0-9]*/environ || true")
    inspected = proxied.docker("inspect", proxy.name)
    logged = subprocess.run(("docker", "logs", proxy.name), capture_output=True, text=True, check=True)
    assert "-----BEGIN CERTIFICATE-----" in everything
    for text in (everything, inspected, logged.stdout, logged.stderr):
        for secret in (TOKEN, DIGEST_KEY.hex(), SIGNED[0].headers["Authorization"], "PRIVATE KEY"):
            assert secret not in text
    names = proxy.sh("tr '\\0' '\\n' < /proc/1/environ | cut -d= -f1 | sort").split()
    assert names == ["HOME", "LANG", "OPENSSL_CONF", "PATH", "PWD", "SHLVL"]  # the last two are bash's
    assert proxy.sh("grep -i 'core file' /proc/1/limits").split()[4:6] == ["0", "0"]


def test_the_authority_is_good_for_the_ended_hosts_alone(proxy: Proxy) -> None:
    def openssl(*words: str) -> str:
        done = subprocess.run(("openssl", *words), input=proxy.ca, capture_output=True, text=True, check=True)
        return done.stdout

    text = openssl("x509", "-noout", "-text")
    assert "ASN1 OID: prime256v1" in text
    constraints = openssl("x509", "-noout", "-ext", "nameConstraints")
    assert "critical" in constraints
    permitted, _, excluded = constraints.partition("Excluded:")
    assert [line.strip() for line in permitted.splitlines() if "DNS" in line] == [
        f"DNS:{host.name}" for host in proxy.hosts
    ]
    assert [line.strip() for line in excluded.splitlines() if line.strip()] == [
        "IP:0.0.0.0/0.0.0.0", "IP:0:0:0:0:0:0:0:0/0:0:0:0:0:0:0:0",
    ]  # fmt: skip
    assert "CA:TRUE, pathlen:0" in openssl("x509", "-noout", "-ext", "basicConstraints")
    for name in ("authority", "leaf"):
        dates = proxy.sh(f"openssl x509 -noout -startdate -enddate -in /run/proxy/{name}.pem").splitlines()
        first, last = (ssl.cert_time_to_seconds(line.partition("=")[2]) for line in dates)
        assert last - first == 31 * 86400
        assert 86400 <= int(proxy.sh("date +%s")) - first < 86400 + 3600
    with proxy.client() as client:  # by a verifier that knows no other authority, and as strictly as Python can
        assert client.sock.getpeercert()


def test_another_port_of_a_users_host_is_forwarded_unopened(proxy: Proxy) -> None:
    places = [host for host in proxy.hosts if proxied.FORWARDED in host.forwards]
    assert {host.name for host in places} == {each.host.name for each in SIGNED}
    number = len(proxy.hosts) + [host.name for host in places].index(USERS)
    target = f"/x?{mark()}"
    trusting = ssl.create_default_context(cafile=str(proxy.internet.folder / "internet.pem"))
    raw = socket.create_connection((proxy.address, proxied.FIRST_RELAY + number), SECONDS)
    with trusting.wrap_socket(raw, server_hostname=USERS) as sock:
        assert Client(sock, USERS).ask("GET", target, "Authorization: mine").status == 200
    assert proxy.arrived(target).header("authorization") == ["mine"]


def test_an_answer_is_streamed(proxy: Proxy) -> None:
    go_on = threading.Event()

    def stream(_: Request, sock: ssl.SSLSocket) -> None:
        sock.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"
        )
        assert go_on.wait(SECONDS)
        sock.sendall(b"6\r\nsecond\r\n0\r\n\r\n")

    query = mark()
    proxy.internet.answers[query] = stream
    with proxy.client() as client:
        client.send(request("POST", f"{MESSAGES}?{query}", body=message()))
        status, headers = client.head()
        assert (status, headers["content-type"], client.stream.chunk()) == (200, "text/event-stream", b"first")
        go_on.set()
        assert (client.stream.chunk(), client.stream.chunk()) == (b"second", b"")


def test_a_body_that_is_not_judged_is_streamed(proxy: Proxy) -> None:
    got, query = threading.Event(), mark()

    def read(stream: Stream, sock: ssl.SSLSocket) -> None:
        assert stream.chunk() == b"first"
        got.set()
        assert (stream.chunk(), stream.chunk()) == (b"last", b"")
        proxied.plain(sock)

    proxy.internet.readers[query] = read
    with proxy.client(USERS) as client:
        client.send(request("POST", f"/upload?{query}", "Transfer-Encoding: chunked", host=USERS) + b"5\r\nfirst\r\n")
        assert got.wait(SECONDS)
        client.send(b"4\r\nlast\r\n0\r\n\r\n")
        assert client.answer().status == 200


def large(end: bytes = b"1") -> bytes:
    """Return 30 MB of JSON in which there is much to judge."""
    item = '[{"type":"text","text":"\u20ac\\n","n":1.5},'.encode()
    count = 30_000_000 // (len(item) + 3)
    return b'{"messages":[' + b"".join([item + b"1]," for _ in range(count)]) + end + b"]}"


def test_a_large_body_passes_byte_for_byte(proxy: Proxy) -> None:
    target, body = f"{MESSAGES}?{mark()}", large()
    assert proxy.ask("POST", target, body=body).status == 200
    assert proxy.arrived(target).body == body
    line = proxy.logged(MESSAGES)
    while line["sent"] < len(body):
        line = proxy.logged(MESSAGES)
    assert line["verdict"] == "allowed"


def test_while_a_large_body_is_judged_other_requests_have_their_turn(proxy: Proxy) -> None:
    """The harm is at the end of it: from its last byte to its refusal there is nothing but the judge's work."""
    body = large(json.dumps({"content": IMAGE}).encode())
    done, count = threading.Event(), 0
    with proxy.client() as client, proxy.client() as other:
        client.send(request("POST", MESSAGES, body=body)[:-1])

        def ask() -> None:
            nonlocal count
            while not done.is_set():
                assert other.ask("GET", "/api/hello").status == 200
                count += 1

        thread = threading.Thread(target=ask)
        thread.start()
        while count < 50:  # meanwhile all but its last byte has been read
            assert thread.is_alive()
        before = count
        client.send(body[-1:])
        status, _ = client.head()
        after = count
        done.set()
        thread.join()
    assert status == 400
    assert after - before > 20


def test_a_body_that_is_too_large_is_refused(proxy: Proxy) -> None:
    body = b'{"x":"' + b"a" * (32 * MIB) + b'"}'
    with proxy.client() as client:
        client.send(request("POST", MESSAGES, f"Content-Length: {len(body)}"))
        response = client.answer()
    assert response.json["error"]["type"] == "request_too_large"
    refused(proxy, response, "at most 32 MiB", status=413)
    with proxy.client() as client:
        client.send(request("POST", MESSAGES, "Transfer-Encoding: chunked"))
        for place in range(0, 32 * MIB, MIB):
            client.send(b"%x\r\n%s\r\n" % (MIB, body[place : place + MIB]))
        client.send(b"%x\r\n%s\r\n" % (100, body[-100:]))
        refused(proxy, client.answer(), "at most 32 MiB", status=413)


def test_chunks_that_are_mostly_framing_do_not_fill_the_container(proxy: Proxy) -> None:
    piece = (b"1;" + b"x" * 2000 + b"\r\na\r\n") * 500
    with proxy.client() as client:
        client.send(request("POST", MESSAGES, "Transfer-Encoding: chunked"))
        status = 0
        try:
            for _ in range(50):
                client.send(piece)
            client.send(b"0\r\n\r\n")
            status = client.answer().status
        except OSError:
            status = 400  # refused before its end
    assert status in (400, 413, 500)
    proxy.nothing_arrived()


def test_a_large_head_is_refused(proxy: Proxy) -> None:
    """The heads of all of a bottle's connections must fit into the container's memory."""
    assert proxy.ask("GET", "/api/hello", *(f"X-{number}: {'x' * 15000}" for number in range(3))).status == 200
    proxy.forget()
    refused(proxy, proxy.ask("GET", "/api/hello", *(f"X-{number}: {'x' * 15000}" for number in range(5))), "malformed")


def test_all_bodies_that_are_held_have_a_bound(proxy: Proxy) -> None:
    """Four of 32 MiB may be held; a fifth is answered as an overload is, which Claude Code tries again."""
    head = request("POST", MESSAGES, "Expect: 100-continue", f"Content-Length: {32 * MIB}")
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            client = stack.enter_context(proxy.client())
            client.send(head)
            assert client.head()[0] == 100  # it is being held
        fifth = stack.enter_context(proxy.client())
        fifth.send(request("POST", MESSAGES, f"Content-Length: {32 * MIB}"))
        response = fifth.answer()
    assert (response.status, response.json["error"]["type"]) == (529, "overloaded_error")
    target = f"{MESSAGES}?{mark()}"  # what they held is free again, once nginx has seen them go
    body = b'{"x":"' + b"a" * 31 * MIB + b'"}'
    assert 200 in (proxy.ask("POST", target, body=body).status for _ in range(50))
    assert len(proxy.arrived(target).body) > 31 * MIB


def test_a_large_answer_passes_whole(proxy: Proxy) -> None:
    query, body = mark(), secrets.token_bytes(MIB) * 50
    proxy.internet.answers[query] = lambda _, sock: proxied.plain(sock, body)
    assert proxy.ask("GET", f"/x?{query}", key=USERS).body == body


def test_answers_give_nginx_no_orders_and_lose_nothing(proxy: Proxy) -> None:
    query = mark()
    head = (
        b"HTTP/1.1 503 Busy\r\nServer: behind\r\nDate: today\r\nRetry-After: 7\r\nSet-Cookie: a=b\r\n"
        b"X-Accel-Redirect: /.claude-bottle/self-test/right\r\nLocation: https://api.anthropic.com/x\r\n"
        b"Cache-Control: no-store\r\nContent-Length: 2\r\n\r\n{}"
    )
    proxy.internet.answers[query] = lambda _, sock: sock.sendall(head)
    response = proxy.ask("GET", f"/api/hello?{query}")
    assert (response.status, response.body) == (503, b"{}")
    assert response.headers == {
        "server": "behind", "date": "today", "retry-after": "7", "set-cookie": "a=b", "cache-control": "no-store",
        "location": "https://api.anthropic.com/x", "content-length": "2", "connection": "keep-alive",
    }  # fmt: skip
    assert proxy.logged("/api/hello")["verdict"] == "allowed"


def test_messages_are_counted_and_limited(opened: Proxy) -> None:
    for _ in range(3):
        target = f"{MESSAGES}?{mark()}"
        assert opened.ask("POST", target, body=message()).status == 200
        opened.arrived(target)
        assert opened.logged(MESSAGES)["messages"] is True
        assert opened.ask("POST", f"{MESSAGES}/count_tokens", body=message()).status == 200
        opened.arrived("count_tokens")
    refused(opened, opened.ask("POST", MESSAGES, body=message()), '"limits: {requests: 3}"')
    line = opened.logged(MESSAGES)
    assert (line["verdict"], "messages" in line) == ("blocked", False)


def test_a_handshake_leaves_no_line(proxy: Proxy) -> None:
    """The launcher reads stdout alone: stderr that an agent could fill would hold the proxy up."""
    before = errors(proxy)
    with proxy.client() as client, socket.create_connection(client.sock.getpeername(), SECONDS) as raw:
        hello, context = ssl.MemoryBIO(), ssl.create_default_context()
        with contextlib.suppress(ssl.SSLWantReadError):
            context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname=API).do_handshake()
        raw.sendall(hello.read())
        assert raw.recv(1)
        raw.sendall(b"\x16\x03\x03\xff\xff" + b"x" * 300)
        while raw.recv(1 << 16):
            pass
    assert proxy.ask("GET", "/api/hello").status == 200
    assert errors(proxy) == before


def errors(proxy: Proxy) -> bytes:
    """Return what the proxy has written on stderr."""
    return subprocess.run(("docker", "logs", proxy.name), check=True, capture_output=True).stderr


def test_a_request_is_one_line_of_the_log(proxy: Proxy) -> None:
    path = "/acme/site.git/" + mark() * 40
    body = b"x" * 5000
    assert proxy.ask("POST", f"{path}?secret", "x-api-key: foreign", body=body, key=NARROW).status == 200
    line = proxy.logged(path[:500])
    sent = len(request("POST", f"{path}?secret", "x-api-key: foreign", body=body, host=NARROW))
    assert line.pop("received") > 0
    assert line.pop("time").endswith("Z")
    number = int(line.pop("request_id").removeprefix("req-"))
    assert proxy.ask("GET", next_one := f"/acme/site.git/{mark()}", key=NARROW).status == 200
    assert int(proxy.logged(next_one)["request_id"].removeprefix("req-")) > number
    assert line == {"event": "request", "verdict": "allowed", "host": NARROW, "method": "POST", "path": path[:500],
                    "status": 200, "sent": sent}  # fmt: skip


@pytest.mark.parametrize("end", ["nginx", "stdin"])
def test_the_container_ends(image: str, tmp_path: Path, end: str) -> None:
    with proxied.proxied(tmp_path, image) as proxy:
        assert proxy.process.stdin
        if end == "stdin":
            proxy.process.stdin.close()
        else:
            proxy.sh("kill -KILL $(cat /run/proxy/nginx.pid)")
        proxy.process.wait(SECONDS)
        left = subprocess.run(("docker", "inspect", proxy.name), capture_output=True, check=False)
        assert left.returncode != 0
