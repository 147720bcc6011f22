"""The credentials of a bottle: read from its manifest, set by the credential proxy, never inside the bottle."""

import base64
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from claude_bottle.documents.escaping import escape_control_chars, is_utf8
from claude_bottle.egress import allowlist
from claude_bottle.host.machine import TOKEN_VARIABLE
from claude_bottle.manifest.environment import VARIABLE
from claude_bottle.manifest.request_rules import read_methods, read_paths
from claude_bottle.manifest.validation import ManifestContext, Value

_KEYS = ("host", "header", "basic", "methods", "paths")
_MOST = 100  # hosts: each has a loopback address of one /24
_PART = re.compile(r"\$\{([^}]*)\}")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")  # RFC 9110, 5.6.2
_BASIC = "Authorization"
# Of one connection, not of the request (RFC 9110, 7.6.1), or where a request ends; and what would change the method
# after `methods` was checked.
_REFUSED = frozenset(
    (
        *("connection", "content-length", "expect", "host", "http2-settings", "keep-alive", "te", "trailer"),
        *("trailers", "transfer-encoding", "upgrade"),
        *("x-http-method", "x-http-method-override", "x-method-override"),
    )
)
_REFUSED_PREFIX = "proxy-"


@dataclass(frozen=True)
class Header:
    """A header that the proxy sets, its value a template with `${NAME}` parts; of `basic` it is `user:password`."""

    name: str
    template: str = field(repr=False)
    basic: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        """Return the names of the host variables in it, each once."""
        return tuple(dict.fromkeys(_PART.findall(self.template)))

    def value(self, environ: Mapping[str, str]) -> str:
        """Return the header's secret value, with the host's variables as plain text; raises KeyError without one."""
        filled = _PART.sub(lambda part: environ[part[1]], self.template)
        return f"Basic {base64.b64encode(filled.encode()).decode()}" if self.basic else filled


@dataclass(frozen=True)
class Credential:
    """The headers that make a host know the user; empty `methods` or `paths`: all."""

    host: allowlist.Host
    headers: tuple[Header, ...]
    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """Return the names of all host variables in it, each once."""
        return tuple(dict.fromkeys(source for header in self.headers for source in header.sources))


def read_credentials(
    section: Value, context: ManifestContext, ssh: Iterable[allowlist.Host] = ()
) -> tuple[Credential, ...]:
    """Check the manifest's `credentials:`, beside its ssh hosts; the result is valid only if no fault was added."""
    items = section.items()
    if len(items) > _MOST:
        section.fail(f"more than {_MOST} hosts")
        return ()
    reserved, names = frozenset(ssh), set[str]()
    found = [_credential(item, context.environ, reserved, names) for item in items]
    return tuple(credential for credential in found if credential)


def _credential(
    item: Value, environ: Mapping[str, str], ssh: frozenset[allowlist.Host], names: set[str]
) -> Credential | None:
    item.keys(_KEYS)
    if not isinstance(item.data, dict):
        return None
    host = _host(item, ssh, names)
    header, basic, methods, paths = (item.get(key) for key in _KEYS[1:])
    if not header and not basic:
        item.fail('missing required key "header" or "basic"')
    elif header and basic:
        basic.fail('must not be beside "header"', key=True)
    headers = (*(_headers(header, environ) if header else ()), *(_basic(basic, environ) if basic else ()))
    allowed = (read_methods(methods) if methods else (), read_paths(paths) if paths else ())
    return Credential(host, headers, *allowed) if host and headers else None


def _host(item: Value, ssh: frozenset[allowlist.Host], names: set[str]) -> allowlist.Host | None:
    """Read the host, and add its name to `names`."""
    value = item.get("host")
    if value is None:
        item.fail('missing required key "host"')
        return None
    text = value.text()
    try:
        host = None if text is None else allowlist.parse_host(text)
    except ValueError as error:
        value.fail(str(error))
        return None
    if host and (problem := _host_problem(host, ssh, names)):
        value.fail(problem)
        return None
    names.update({host.name} if host else ())
    return host


def _host_problem(host: allowlist.Host, ssh: frozenset[allowlist.Host], names: set[str]) -> str | None:
    if host.name.startswith("*."):
        return f'"{host}": must be one name, not a wildcard'
    if domain := allowlist.domain_of_defaults(host.name):
        return f'"{host}": no other credential can be set for {domain}; {allowlist.API} gets {TOKEN_VARIABLE}'
    if host in ssh:
        return f'"{host}" is an ssh host of this bottle on the same port; ssh cannot pass through the credential proxy'
    return f'duplicate host "{host.name}"' if host.name in names else None


def _headers(section: Value, environ: Mapping[str, str]) -> Iterator[Header]:
    known: set[str] = set()
    if section.data == {}:
        section.fail("is empty; give at least one header")
    for name, value in section.entries():
        same = name.lower().replace("_", "-")  # some servers read one as the other
        if problem := _name_problem(name, same) or ("duplicate header" if same in known else None):
            value.fail(problem, key=True)
        known.add(same)
        template = _template(value, environ)
        if template is None:
            continue
        if not _PART.search(template):
            value.fail('has no "${NAME}": a secret belongs in a variable of the host, not in a manifest')
        yield Header(name, template)


def _name_problem(name: str, same: str) -> str | None:
    if not _TOKEN.fullmatch(name):
        return "is not the name of a header"
    if same in _REFUSED or same.startswith(_REFUSED_PREFIX):
        return "cannot be set: it belongs to the connection, or changes how a request is read"
    return None


def _basic(section: Value, environ: Mapping[str, str]) -> Iterator[Header]:
    section.keys(("user", "password"))
    user, password = (_required(section, key) for key in ("user", "password"))
    if user is None or password is None:
        return
    first, second = (_template(value, environ) for value in (user, password))
    if first is None or second is None:
        return
    # RFC 7617: the first colon ends the user's name.
    if ":" in _PART.sub("", first):
        user.fail('must not contain ":"')
    for source in _PART.findall(first):
        if ":" in environ[source]:
            user.fail(f'{source} contains ":" on the host, which a user name cannot')
    if not _PART.search(first + second):
        section.fail('has no "${NAME}": a secret belongs in a variable of the host, not in a manifest')
    yield Header(_BASIC, f"{first}:{second}", basic=True)


def _required(section: Value, key: str) -> Value | None:
    value = section.get(key)
    if value is None and isinstance(section.data, dict):
        section.fail(f'missing required key "{key}"')
    return value


def _template(value: Value, environ: Mapping[str, str]) -> str | None:
    """Return a template, every variable of which is set; None, and a fault that shows no value, for anything else."""
    text = value.text()
    if text is None:
        return None
    literal, sources = _PART.sub("", text), _PART.findall(text)
    problems = []
    if "${" in literal or not all(map(VARIABLE.fullmatch, sources)):
        problems = ['"${" only works in "${NAME}" with the name of a host variable']
    elif escape_control_chars(text) != text:
        problems = ["must not contain control or invisible characters"]
    else:
        problems = [problem for source in dict.fromkeys(sources) if (problem := _source_problem(source, environ))]
    for problem in problems:
        value.fail(problem)
    return None if problems else text


def _source_problem(source: str, environ: Mapping[str, str]) -> str | None:
    value = environ.get(source)
    if source == TOKEN_VARIABLE:
        return f"{source} is for {allowlist.API} alone"
    if value is None:
        return f"{source} is not set on the host"
    if not value:
        return f"{source} is empty on the host"
    if not is_utf8(value):
        return f"{source} is not UTF-8 text on the host"
    if any(unicodedata.category(character) == "Cc" for character in value):
        return f"{source} contains a line break or another control character on the host, which no header can hold"
    return None
