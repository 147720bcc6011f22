"""The package registries that a bottle may reach: by the hosts that their tools know, or by mirrors of the user's."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from urllib.parse import urlsplit

from claude_bottle.egress import allowlist
from claude_bottle.egress.allowlist import Host
from claude_bottle.manifest.environment import EnvVar
from claude_bottle.manifest.validation import Value, nearest

#: of each registry, the preset that has its tool
PRESET = {"npm": "node", "pypi": "python", "crates": "rust", "go": "go", "maven": "java"}
_TOOL = {"npm": "npm", "pypi": "pip", "crates": "cargo", "go": "go", "maven": "mvn"}
# The variables that give a tool another registry; cargo and Maven have none.
_SETTINGS = {
    "NPM_CONFIG_REGISTRY": "npm",
    "npm_config_registry": "npm",
    "PIP_INDEX_URL": "pypi",
    "UV_DEFAULT_INDEX": "pypi",
    "UV_INDEX_URL": "pypi",
    "GOPROXY": "go",
}
_NO_URL = ("direct", "off")  # in GOPROXY


@dataclass(frozen=True)
class Mirror:
    """A registry of the user's own: the URL that a tool is given, and its host."""

    url: str
    host: Host


@dataclass(frozen=True)
class Registry:
    """A registry, and its hosts as far as they are known; if the user has mirrors of it, these stand in for it."""

    name: str
    mirrors: tuple[Mirror, ...] = ()
    recorded: tuple[Host, ...] = ()

    @property
    def hosts(self) -> tuple[Host, ...]:
        """Return the hosts that it may be reached at; none if they are not known yet."""
        return tuple(mirror.host for mirror in self.mirrors) or self.recorded

    @property
    def where(self) -> str:
        """Return the same for people."""
        shown = [mirror.url for mirror in self.mirrors] or [str(host) for host in self.recorded]
        return ", ".join(shown) or f"{self.name}'s registry, known once the image is built"

    def known(self, recorded: Mapping[str, tuple[Host, ...]]) -> "Registry":
        """Return the registry with the hosts that an image has recorded."""
        return replace(self, recorded=recorded.get(self.name, ()))


def read_registries(section: Value, presets: Iterable[str]) -> tuple[Registry, ...]:
    """Check `egress.registries`; the result is valid only if no fault was added."""
    found = {}
    for item in section.items():
        name = item.text()
        if name is None:
            continue
        if name not in PRESET:
            item.fail(f'no registry "{name}"{nearest(name, PRESET) or "; there are " + ", ".join(PRESET)}')
        elif PRESET[name] not in presets:
            item.fail(f'the image has no {_TOOL[name]}; the preset "{PRESET[name]}" has it')
        found[name] = Registry(name)
    return tuple(found.values())


def with_mirrors(
    registries: Iterable[Registry], env: Value, variables: Iterable[EnvVar], environ: Mapping[str, str]
) -> tuple[Registry, ...]:
    """Return registries with the mirrors that the bottle's variables give their tools.

    A URL that cannot be a mirror is a fault, which shows nothing of it: it may come from the host, and be secret.
    """
    mirrors: dict[str, list[Mirror]] = {registry.name: [] for registry in registries}
    for variable in variables:
        name, value = _SETTINGS.get(variable.name, ""), env.get(variable.name)
        text = variable.literal if variable.source is None else environ.get(variable.source)
        if name in mirrors and value and text:
            try:
                mirrors[name].extend(_mirrors(text))
            except ValueError as error:
                value.fail(str(error))
    return tuple(replace(registry, mirrors=tuple(mirrors[registry.name])) for registry in registries)


def _mirrors(text: str) -> Iterator[Mirror]:
    """Read a URL, or GOPROXY's list of them; raises ValueError."""
    for url in re.split("[,|]", text):
        if url not in _NO_URL:
            yield _mirror(url)


def _mirror(url: str) -> Mirror:
    try:
        parts = urlsplit(url)
        name, port = parts.hostname or "", parts.port or allowlist.HTTPS
    except ValueError:
        raise ValueError("is no URL") from None
    if "@" in parts.netloc:
        raise ValueError('has a user name or a password in its URL, which the agent could read; use "credentials"')
    if parts.scheme != "https" or not name or parts.query or parts.fragment:
        raise ValueError("must be https, a host, maybe a port and a path, and nothing else: no other URL gets through")
    if _is_private(name):
        raise ValueError("has a private address, and a bottle reaches none")
    host = allowlist.parse_further(f"{name}:{port}")
    return Mirror(f"https://{host}{parts.path}", host)


def _is_private(text: str) -> bool:
    try:
        return not ip_address(text).is_global
    except ValueError:  # a name
        return text == "localhost"
