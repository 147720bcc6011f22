"""The addresses of the engine's host, which a bottle must not reach: this machine's, or those that another lists."""

import re
import socket
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_address, ip_network
from pathlib import Path

_FIB_TRIE = Path("/proc/net/fib_trie")
_IF_INET6 = Path("/proc/net/if_inet6")
_LOCAL = re.compile(r"\|-- (\S+)\n(?:\s+/\d+ (?!host LOCAL).*\n)*\s+/32 host LOCAL")
_SIOCGIFADDR = 0x8915
# What `parse` takes: the second one names the interfaces of networks, the third is not there without IPv6.
LISTS = ("/proc/net/fib_trie", "/proc/net/route", "/proc/net/if_inet6")
_ROUTE = re.compile(r"^docker0\t([0-9A-F]{8})\t00000000\t\S+\t\S+\t\S+\t\S+\t([0-9A-F]{8})\t", re.MULTILINE)
_INET6 = re.compile(r"^[0-9a-f]{32} .*$", re.MULTILINE)


@dataclass(frozen=True)
class Addresses:
    """IPv4 and IPv6 addresses of the engine's host, docker0's own; if there are none, `why`."""

    host: tuple[str, ...] = ()
    docker0: str | None = None
    why: str = ""


def read() -> Addresses:
    """Return this machine's addresses but the loopback's; none if there is no /proc."""
    try:
        ipv4 = _ipv4(_FIB_TRIE.read_text(encoding="ascii"))
    except OSError:
        return Addresses(
            why="this system does not list its addresses in /proc, the engine runs in a machine of its own"
        )
    try:
        ipv6 = _ipv6(_IF_INET6.read_text(encoding="ascii"))
    except OSError:  # a kernel without IPv6
        ipv6 = ()
    return Addresses((*ipv4, *ipv6), _docker0())


def parse(text: str) -> Addresses:
    """Return the addresses in what a Linux host has in LISTS, one after the other; none if it is anything else."""
    try:
        ipv4, ipv6 = _ipv4(text), _ipv6("\n".join(_INET6.findall(text)))
        networks = [_network(match) for match in _ROUTE.finditer(text)]
    except ValueError:
        return Addresses()
    docker0 = next((each for each in ipv4 if any(ip_address(each) in network for network in networks)), None)
    return Addresses((*ipv4, *ipv6), docker0)


def _network(route: re.Match[str]) -> IPv4Network:
    # The kernel prints both as numbers of its own byte order, which is this one wherever there are images.
    address, mask = (ip_address(bytes.fromhex(word)[::-1]) for word in route.groups())
    network = ip_network(f"{address}/{mask}", strict=False)
    assert isinstance(network, IPv4Network)  # noqa: S101  (of four bytes)
    return network


def _ipv4(trie: str) -> tuple[str, ...]:
    """Return the local addresses of fib_trie, whose tables show each more than once; in its order."""
    return tuple(dict.fromkeys(text for text in _LOCAL.findall(trie) if not ip_address(text).is_loopback))


def _ipv6(rows: str) -> tuple[str, ...]:
    found = (ip_address(bytes.fromhex(row.split()[0])) for row in rows.splitlines())
    return tuple(dict.fromkeys(str(address) for address in found if not address.is_loopback))


def _docker0() -> str | None:
    """Ask the kernel for docker0's IPv4 address (netdevice(7)); None where there is no such interface."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        try:
            answer = fcntl.ioctl(asker, _SIOCGIFADDR, b"docker0".ljust(256, b"\0"))
        except OSError:
            return None
    return socket.inet_ntoa(answer[20:24])
