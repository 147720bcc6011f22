"""provisional"""
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

from claude_bottle.egress import allowlist
from claude_bottle.egress.allowlist import Host

FIRST = IPv4Address("127.13.0.1")


@dataclass(frozen=True)
class Ended:
    name: str
    port: int
    address: IPv4Address
    forwards: tuple[int, ...]


def ended(credentials: Iterable[Host], reach: Iterable[Host]) -> tuple[Ended, ...]:
    signed = tuple(credentials)
    declared = sorted({(host.name, host.port) for host in reach if host in set(reach) - set(signed)})
    hosts = (*allowlist.defaults(), *signed)
    return tuple(
        Ended(host.name, host.port, FIRST + n, tuple(port for name, port in declared if name == host.name))
        for n, host in enumerate(hosts)
    )


def pairs(ended: Iterable[Ended]) -> tuple[tuple[IPv4Address, int], ...]:
    return tuple((end.address, port) for end in ended for port in (end.port, *end.forwards))
