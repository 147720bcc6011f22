"""The addresses of this host: what a bottle must not reach where the engine runs here."""

import re
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

_FIB_TRIE = Path("/proc/net/fib_trie")
_IF_INET6 = Path("/proc/net/if_inet6")
_LOCAL = re.compile(r"\|-- (\S+)\n(?:\s+/\d+ (?!host LOCAL).*\n)*\s+/32 host LOCAL")
_SIOCGIFADDR = 0x8915


@dataclass(frozen=True)
class Addresses:
    """IPv4 and IPv6 addresses of the engine's host, docker0's own; where there are none, `why`."""

    host: tuple[str, ...] = ()
    docker0: str | None = None
    why: str = ""


def read(local: bool) -> Addresses:
    """Return this host's addresses but the loopback's; none where the engine is not `local` or there is no /proc."""
    if not local:
        return Addresses(why="the engine is not on this host")
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
