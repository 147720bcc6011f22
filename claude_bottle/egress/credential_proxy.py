"""The credential proxy: which hosts' TLS it ends, nginx's configuration, and its settings with all secrets. Pure.

In every request to these hosts it sets the session's own credential and drops all others. nginx does what configuration
can do, `credential_proxy.conf` beside this module; `credential_proxy.lua` does the rest.
"""

import hmac
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from claude_bottle.egress.allowlist import API, HTTPS, Host, defaults
from claude_bottle.host import installation

FIRST = IPv4Address("127.13.0.1")
SELF_TEST = "/.claude-bottle/self-test"  # at the name of each host with a credential; under it `right` and `wrong`
_GET = ("GET", "HEAD")
_POST = ("POST",)

# What passes to the default hosts without the bottle's `api: {paths: ...}`: methods, path, reason. A path that ends in
# "/" is a prefix. It is what Claude Code 2.1.331 was seen to need in a bottle, where telemetry is off. Nothing here
# mints, exchanges or lists credentials, uploads, or makes batches or remote sessions.
REQUESTS: Mapping[str, tuple[tuple[tuple[str, ...], str, str], ...]] = {
    API: (
        (_POST, "/v1/messages", "the conversation, and all that Claude asks on the side"),
        (_POST, "/v1/messages/count_tokens", "/context"),
        (_GET, "/api/claude_code/policy_limits", "the organization's limits; without an answer WebFetch is off"),
        (_GET, "/api/claude_code/settings", "the organization's settings; without an answer there is a warning"),
        (_GET, "/api/web/domain_info", "WebFetch: whether it may fetch from a domain"),
        (_GET, "/api/hello", "the check at start-up"),
    ),
    "claude.ai": ((_GET, "/install.sh", "WebFetch: how Claude Code is installed"),),
    "claude.com": ((_GET, "/docs/", "WebFetch: documentation"),),
    "code.claude.com": ((_GET, "/docs/", "WebFetch: documentation"),),
    "downloads.claude.ai": (
        (_GET, "/claude-code-releases/", "the list of plugins at each start; `claude update`"),
        (_GET, "/model-catalog/", "the models"),
    ),
    "mcp-proxy.anthropic.com": (),  # connectors of an account, which the session's token cannot use
    "platform.claude.com": (
        (_GET, "/docs/", "WebFetch: documentation"),
        (_GET, "/llms.txt", "WebFetch: the index of documentation"),
        (_GET, "/robots.txt", "WebFetch"),
    ),
}

# `openssl ca` alone sets both ends of a certificate's time. Without the excluded addresses an authority whose names are
# constrained could still sign for any address.
_AUTHORITY = """\
[req]
distinguished_name = subject
[subject]
[ca]
default_ca = signer
[signer]
database = index.txt
new_certs_dir = .
rand_serial = yes
default_md = sha256
policy = policy
[policy]
commonName = supplied
[authority]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
nameConstraints = critical, {permitted}, excluded;IP:0.0.0.0/0.0.0.0, excluded;IP:::/::
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""


@dataclass(frozen=True)
class Ended:
    """A host whose TLS the proxy ends, on `port` of a loopback address.

    `forwards` are the other ports there: what comes to them goes on to the real host as it is.
    """

    name: str
    port: int
    address: IPv4Address
    forwards: tuple[int, ...] = ()

    def __str__(self) -> str:
        """Return `name`, or `name:port` if the port is not 443."""
        return str(Host(self.name, self.port))


@dataclass(frozen=True)
class Signed:
    """A host of the user's, and the headers that are set there; empty `methods` or `paths`: all."""

    host: Host
    headers: Mapping[str, str] = field(repr=False)
    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()


def ended(credentials: Iterable[Host], ports: Iterable[int]) -> tuple[Ended, ...]:
    """Return the ended hosts, each at an address of its own: the default ones, sorted, then those of `credentials`.

    `ports` are the ports that the session declares. No port of a default host is forwarded: whatever serves the API on
    another port would take a foreign credential there.
    """
    declared = {*ports, HTTPS}
    found: list[tuple[Host, tuple[int, ...]]] = [(host, ()) for host in defaults()]
    found += [(host, tuple(sorted(declared - {host.port}))) for host in credentials]
    return tuple(Ended(host.name, host.port, FIRST + place, rest) for place, (host, rest) in enumerate(found))


def pairs(hosts: Iterable[Ended]) -> tuple[tuple[IPv4Address, int], ...]:
    """Return every address and port on which the proxy listens: all that the sidecar may reach on loopback."""
    return tuple((host.address, port) for host in hosts for port in (host.port, *host.forwards))


def configuration(hosts: Iterable[Ended], *, more: bool = False) -> bytes:
    """Return nginx.conf, in which there is no secret; `more` is whether there are certificates in more-ca.pem."""
    text = installation.text(Path(__file__).with_name("credential_proxy.conf"))
    rows = [(number, host, host.port) for number, host in enumerate(hosts)]
    forwards = [(number, host, port) for number, host, _ in rows for port in host.forwards]
    apis, others = ([row for row in rows if (row[1].name == API) is which] for which in (True, False))

    def servers(server: str) -> str:
        of_others = _repeated(_replaced(server, "only the API", lambda _: ""), "each host", others)
        return of_others + _repeated(_replaced(server, "only the API", lambda part: part), "each host", apis)

    text = _replaced(text, "only with more certificates", lambda part: part if more else "")
    text = _replaced(text, "each server", servers)
    return _repeated(_repeated(text, "each host", rows), "each forward", forwards).encode()


def _repeated(text: str, mark: str, rows: Iterable[tuple[int, Ended, int]]) -> str:
    """Replace each part of the template with this mark by a copy for each row."""
    filled = tuple(rows)
    return _replaced(text, mark, lambda part: "".join(_filled(part, *row) for row in filled))


def _replaced(text: str, mark: str, made: Callable[[str], str]) -> str:
    """Replace each part of the template, which begins and ends with a comment of its `mark`, by what is made of it."""
    part = re.compile(rf"^ +# {mark}\n(.*?)^ +# end {mark}\n", re.MULTILINE | re.DOTALL)
    return part.sub(lambda found: made(found[1]), text)


def _filled(part: str, number: int, host: Ended, port: int) -> str:
    values = {"NUMBER": number, "KEY": host, "NAME": host.name, "ADDRESS": host.address, "PORT": port}
    return re.sub(r"\b(NUMBER|KEY|NAME|ADDRESS|PORT)\b", lambda word: str(values[word[0]]), part)


def program() -> bytes:
    """Return what nginx runs in Lua."""
    return Path(__file__).with_name("credential_proxy.lua").read_bytes()


def authority(hosts: Iterable[Ended]) -> bytes:
    """Return openssl's configuration for the session's authority, good for the ended hosts alone, and its one leaf."""
    names = [f"DNS:{host.name}" for host in hosts]
    permitted = ", ".join(f"permitted;{name}" for name in names)
    return _AUTHORITY.format(permitted=permitted, names=", ".join(names)).encode()


def settings(
    token: str,
    signed: Iterable[Signed],
    *,
    digest_key: bytes,
    requests: int | None = None,
    server_side_fetch: bool = False,
    paths: Iterable[tuple[str, str]] = (),
) -> bytes:
    """Return settings.json, which has every secret: the user's `token` for the API, and the headers of `signed`.

    `digest_key` is random, so that the self-test's answers mean nothing to anyone else. `requests` bounds the messages
    of the session. `paths` are further requests to the API, each a method, or "*", and a path.
    """
    hosts: dict[str, object] = {name: _default({}, _pairs(name)) for name in REQUESTS}
    hosts[API] = _default(_api_headers(token), [*_pairs(API), *map(list, paths)])
    hosts |= {str(each.host): _signed(each) for each in signed}
    data = {"digest_key": digest_key.hex(), "server_side_fetch": server_side_fetch, "hosts": hosts}
    limit = {} if requests is None else {"requests": requests}
    # A host's variable may hold any bytes.
    return json.dumps(data | limit, ensure_ascii=False).encode(errors="surrogateescape")


def digests(token: str, signed: Iterable[Signed], *, digest_key: bytes) -> Mapping[str, str]:
    """Return, by each host with a credential, what the self-test answers if its headers and no others would leave."""
    hosts = {API: _api_headers(token), **{str(each.host): each.headers for each in signed}}
    return {key: hmac.new(digest_key, _leaving(key, headers), "sha1").hexdigest() for key, headers in hosts.items()}


def _leaving(key: str, headers: Mapping[str, str]) -> bytes:
    sent = {"host": key, **{name.lower(): value.strip(" ") for name, value in headers.items()}}  # as nginx reads them
    return b"\n".join(sorted(f"{name}={value}".encode(errors="surrogateescape") for name, value in sent.items()))


def _api_headers(token: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _pairs(name: str) -> list[list[str]]:
    return [[method, path] for methods, path, _ in REQUESTS[name] for method in methods]


def _default(headers: Mapping[str, str], allowed: list[list[str]]) -> dict[str, object]:
    return {"set": headers, "paths": allowed, "default": True}


def _signed(each: Signed) -> dict[str, object]:
    methods = {"methods": dict.fromkeys(each.methods, True)} if each.methods else {}
    paths = {"paths": [["*", path] for path in each.paths]} if each.paths else {}
    return {"set": dict(each.headers), **methods, **paths}
