"""The lines of a bottle's manifest, and of the list of default hosts, that open hosts."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from claude_bottle.documents import yaml_document
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.documents.yaml_document import Data, Document, Place
from claude_bottle.egress import allowlist
from claude_bottle.egress.allowlist import Host
from claude_bottle.manifest.registries import Registry

_SSH = 22


@dataclass(frozen=True)
class HostLine:
    """Where a host is opened; `key` is the section, such as "egress.allow", line and column count from 1."""

    host: Host
    key: str
    path: Path
    line: int
    column: int

    def __str__(self) -> str:
        """Return it in the form of a manifest's faults, which editors recognize."""
        return escape_control_chars(f"{self.path}:{self.line}:{self.column}: {self.key}: {self.host}")


def of_manifest(path: Path, registries: Iterable[Registry] = ()) -> tuple[HostLine, ...]:
    """Return the lines of a bottle's manifest, leaving out what is no host; raises YamlError if it cannot be read.

    `registries` are those of the bottle, as far as their hosts are known.
    """
    document = yaml_document.load(path)
    return (*_lines(path, document), *_registries(path, document, registries))


def of_defaults() -> tuple[HostLine, ...]:
    """Return the lines of the default hosts."""
    document = yaml_document.load(allowlist.DEFAULTS)
    places = ((host, document.where((host.name,), key=True)) for host in allowlist.defaults())
    return tuple(HostLine(host, "default", allowlist.DEFAULTS, *place) for host, place in places)


def _lines(path: Path, document: Document) -> Iterator[HostLine]:
    for key in ("egress.allow", "ssh", "credentials"):
        parts = key.split(".")
        for index, item in enumerate(_items(document.data, parts)):
            place: Place = (*parts, index)
            text, port = item, None
            if isinstance(item, dict):
                place, text, port = (*place, "host"), item.get("host"), item.get("port", _SSH)
            try:
                host = allowlist.parse_host(str(text))
            except ValueError:
                continue
            if key == "ssh" and isinstance(port, int):
                host = Host(host.name, port)
            yield HostLine(host, key, path, *document.where(place))


def _registries(path: Path, document: Document, registries: Iterable[Registry]) -> Iterator[HostLine]:
    hosts = {each.name: each.hosts for each in registries}
    key = ("egress", "registries")
    for index, item in enumerate(_items(document.data, list(key))):
        place = document.where((*key, index))
        yield from (HostLine(host, ".".join(key), path, *place) for host in hosts.get(str(item), ()))


def _items(data: Data, keys: list[str]) -> list[Data]:
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, list) else []
