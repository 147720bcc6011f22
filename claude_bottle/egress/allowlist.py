"""What the sidecar lets out: host names, ports, their one-line summary, and the sidecar's own YAML."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import cast

from claude_bottle.documents import yaml_document
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.host import installation

API = "api.anthropic.com"
HTTPS = 443
_DATA = installation.DATA / "pipelock"
DEFAULTS = _DATA / "hosts.yaml"
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_LONGEST = 253  # RFC 1035, written out and without the root's dot
_SHOWN = 3
_LIST = "api_allowlist:\n"


class NoNameError(ValueError):
    """A destination that can never be allowed, since it is no public name: an address, or a name of one part."""


@dataclass(frozen=True, order=True)
class Host:
    """A host that may be reached: a lower-case name, or `*.name` for it and all that is under it, and a TCP port."""

    name: str
    port: int = HTTPS

    def __str__(self) -> str:
        """Return it as `parse_host` reads it."""
        return self.name if self.port == HTTPS else f"{self.name}:{self.port}"

    def covers(self, name: str) -> bool:
        """Return whether the sidecar lets a lower-case name through for this one; the port does not matter to it."""
        return name == self.name.removeprefix("*.") or (self.name[0] == "*" and name.endswith(self.name[1:]))


def parse_host(text: str) -> Host:
    """Read `name`, `name:port`, `*.name` or `*.name:port`.

    Strict, because pipelock is not: it ignores an entry that it cannot match (a port, a scheme).
    Raises ValueError with a one-line message.
    """
    _refuse_more(text)
    name, colon, port = text.partition(":")
    if (colon and not _PORT.fullmatch(port)) or int(port or HTTPS) > 65535:
        raise ValueError(f'"{text}": the port must be a number from 1 to 65535')
    if not name.isascii():
        raise ValueError(f'"{text}": only ASCII names can be allowed{_punycode(name, colon + port)}')
    _check_name(text, name.removeprefix("*.").lower(), wildcard=name.startswith("*."))
    return Host(name.lower(), int(port or HTTPS))


def parse_further(text: str) -> Host:
    """Read a host to be allowed besides the default ones, as `parse_host` does.

    Raises ValueError with a one-line message, also for a host that cannot be allowed.
    """
    host = parse_host(text)
    if problem := further_problem(host):
        raise ValueError(problem)
    return host


def further_problem(host: Host) -> str | None:
    """Return why a host can be no further one to be allowed, None if it can.

    Anybody can have an account at the API: another name of the same servers, or another port of them, would carry a
    foreign credential past the credential proxy.
    """
    domain = domain_of_defaults(host.name)
    if host.name in {default.name for default in defaults()}:
        wrong = f"only port {HTTPS} of {host.name} passes through the credential proxy"
        return f'"{host}": {wrong}' if host.port != HTTPS else None
    return (
        f'"{host}": a host of {domain} could front for the API and carry a foreign credential there' if domain else None
    )


def domain_of_defaults(name: str) -> str | None:
    """Return the domain of the default hosts that `name`, maybe a wildcard, is in; None if it is in none."""
    domains = {".".join(host.name.split(".")[-2:]) for host in defaults()}
    domain = ".".join(name.split(".")[-2:])
    return domain if domain in domains else None


def _refuse_more(text: str) -> None:
    """Refuse what is more, or less, than a name and a port."""
    if not text or " " in text or escape_control_chars(text) != text:
        raise ValueError(
            f'"{escape_control_chars(text)}": a host name must not be empty or contain spaces or control characters'
        )
    if "://" in text:
        raise ValueError(f'"{text}": leave out "{text.partition("://")[0]}://"; give only the host name')
    if "/" in text:
        raise ValueError(f'"{text}": leave out "/" and everything after it; only whole hosts can be allowed')
    if "@" in text:
        raise ValueError(f'"{text}": leave out "@" and everything before it')
    if text.count(":") > 1 or "[" in text:
        raise NoNameError(f'"{text}": only names can be allowed, not IPv6 addresses')


def _punycode(name: str, port: str) -> str:
    """Return a hint at the ASCII form of `name`, if it has one."""
    try:
        ascii_form = name.encode("idna").decode("ascii").lower() + port
        parse_host(ascii_form)
    except ValueError:
        return ""
    return f'; this one is "{ascii_form}" in ASCII'


def _check_name(text: str, name: str, *, wildcard: bool) -> None:
    labels = name.split(".")
    if name == "*":
        raise ValueError(f'"{text}" would allow every host; name the hosts, or "*.name.tld"')
    if "*" in name:
        raise ValueError(f'"{text}": "*" is only allowed at the front, as in "*.name.tld"')
    if _NUMBER.fullmatch(labels[-1]):
        raise NoNameError(f'"{text}": only names can be allowed, not IP addresses in any notation')
    if name.startswith(".") or name.endswith("."):
        raise ValueError(f'"{text}": leave out the dot at the {"start" if name.startswith(".") else "end"}')
    if len(labels) == 1 and wildcard:
        raise ValueError(f'"{text}" would allow a whole top-level domain; write at least "*.name.{name}"')
    if len(labels) == 1 or labels[-1] == "localhost":
        raise NoNameError(f'"{text}" is not a public name, and a bottle reaches nothing else; write it in full')
    if len(name) > _LONGEST or not all(_LABEL.fullmatch(label) for label in labels):
        parts = f"1 to 63 letters, digits and inner hyphens, {_LONGEST} characters in all at most"
        raise ValueError(f'"{text}": each part of a name must be {parts}')


def image() -> str:
    """Return the sidecar's pinned image, `name:tag@sha256:...`."""
    return _pairs("image.yaml")["image"]


@cache
def defaults() -> tuple[Host, ...]:
    """Return the hosts that every bottle may reach."""
    return tuple(sorted(parse_host(name) for name in _pairs("hosts.yaml")))


@cache
def _pairs(file: str) -> dict[str, str]:
    data = cast("dict[str, yaml_document.Data]", yaml_document.load(_DATA / file).data)
    return {key: str(value) for key, value in data.items()}


def allowlist(extra: Iterable[Host]) -> tuple[str, ...]:
    """Return the distinct names of the default hosts and `extra`, sorted."""
    return tuple(sorted({host.name for host in (*defaults(), *extra)}))


def ports(extra: Iterable[Host]) -> tuple[int, ...]:
    """Return the TCP ports that may leave, sorted: 443 and those that `extra` declares."""
    return tuple(sorted({HTTPS, *(host.port for host in extra)}))


def summary(names: Sequence[str]) -> str:
    """Return a one-line summary: how many names, and the first three in order."""
    shown = sorted(names)[:_SHOWN]
    rest = [f"+{len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return f"{len(names)} host{'' if len(names) == 1 else 's'} allowed ({', '.join(shown + rest)})"


def config(names: Iterable[str], ended: Iterable[str] = ()) -> bytes:
    """Return the sidecar's YAML: the commented base and `names`, checked once more; ValueError if there are none.

    `ended` are the names that resolve to the credential proxy, on loopback.
    """
    base = (_DATA / "base.yaml").read_text(encoding="utf-8")
    trusted = "".join(f'  - "{parse_host(name).name}"\n' for name in ended)
    return _with_names(f"{base}trusted_domains:\n{trusted}" if trusted else base, names)


def configured(config: bytes) -> tuple[str, ...]:
    """Return the names in what `config` made; ValueError if there are none."""
    return tuple(parse_host(line.strip(' -"')).name for line in _halves(config)[1].splitlines())


def trusted(config: bytes) -> tuple[str, ...]:
    """Return the hosts in the sidecar's YAML whose TLS the credential proxy ends; raises YamlError if it is no YAML."""
    data = yaml_document.parse(config.decode()).data
    names = data.get("trusted_domains") if isinstance(data, dict) else None
    return tuple(map(str, names)) if isinstance(names, list) else ()


def extended(config: bytes, names: Iterable[str]) -> bytes:
    """Return what `config` made with more names, its base as it is."""
    return _with_names(_halves(config)[0], sorted({*configured(config), *names}))


def _with_names(base: str, names: Iterable[str]) -> bytes:
    hosts = "".join(f'  - "{parse_host(name).name}"\n' for name in names)
    if not hosts:
        raise ValueError("pipelock does not start with an empty list of hosts")
    return f"{base}{_LIST}{hosts}".encode()


def _halves(config: bytes) -> tuple[str, str]:
    base, found, names = config.decode().partition(f"\n{_LIST}")
    if not found:
        raise ValueError("the sidecar's configuration has no list of hosts")
    return f"{base}\n", names
