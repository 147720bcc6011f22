"""Decide whether a target may be reached: by its name, by its URL, by what the name resolves to, by how often."""

import asyncio
import ipaddress
import math
import re
import socket
import time
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path

from .config import Config

hosts = Path("/etc/hosts")
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

lookup_seconds = 5.0
networks = """0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.168.0.0/16 224.0.0.0/4
240.0.0.0/4 ::/128 ::1/128 fc00::/7 fe80::/10 ff00::/8"""
internal = tuple(ipaddress.ip_network(text) for text in networks.split())
# A name that a resolver library refuses to ask for at all is not asked for.
askable = re.compile(r"(?:(?!-)[A-Za-z0-9_-]{1,63}(?<!-)\.)*(?!-)[A-Za-z0-9_-]{1,63}(?<!-)\.?")
hints = {
    "allowlist": "Domain not on the allowlist. In strict mode, only allowlisted domains are reachable.",
    "dlp": "A DLP pattern matched this URL.",
    "ssrf": "SSRF protection blocked this URL.",
}


@dataclass(frozen=True)
class Refusal:
    scanner: str
    reason: str
    status: int = 403


class Unreachable(Exception):
    """Say why a name gave no usable address."""


def plain(host: str) -> str:
    """Lower a name, drop one trailing dot, and write an address in its usual form."""
    name = re.sub(r"(?<!\.)\.$", "", host.lower())
    number = re.fullmatch(r"(0x[0-9a-f]+|[0-9]+)(\.(0x[0-9a-f]+|[0-9]+)){3}|0x[0-9a-f]+|[0-9]+", name)
    try:
        return socket.inet_ntoa(socket.inet_aton(name)) if number else name
    except OSError:
        return name


def listed(name: str, allowlist: tuple[str, ...]) -> bool:
    """Say whether a name is on the list; `*.x` stands for x and everything below it."""
    return any(
        name == entry or (entry.startswith("*.") and (name == entry[2:] or name.endswith(entry[1:])))
        for entry in allowlist
    )


def entropy(label: str) -> float:
    return -sum(n / len(label) * math.log2(n / len(label)) for n in Counter(label).values())


class Judge:
    """Hold the rules in force and the recent requests that the rate limit counts."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.recent: dict[str, deque[float]] = {}

    def by_name(self, host: str, url: str) -> Refusal | None:
        """Judge what can be judged before any name is looked up."""
        name = plain(host)
        if self.config.mode == "strict" and not listed(name, self.config.api_allowlist):
            return Refusal("allowlist", f"domain not in allowlist: {name}")
        for pattern in self.config.dlp.patterns:
            if re.search(pattern.regex, url, re.IGNORECASE):
                return Refusal("dlp", f"DLP match: {pattern.name} ({pattern.severity})")
        return self.by_entropy(name)

    def by_entropy(self, name: str) -> Refusal | None:
        limit = self.config.fetch_proxy.monitoring.subdomain_entropy_threshold
        for label in name.split(".")[:-2]:
            if len(label) >= 8 and (value := entropy(label)) > limit:
                reason = f'high entropy subdomain label "{label}" ({value:.2f} > {limit:.2f} threshold)'
                return Refusal("entropy", reason)
        return None

    async def by_address(self, host: str) -> Refusal | None:
        """Judge every address that the name has."""
        try:
            await self.addresses(host)
        except Unreachable as error:
            text = str(error)
            return Refusal("ssrf", text if text.startswith("SSRF") else f"SSRF check failed: {text}")
        return None

    async def addresses(self, host: str) -> list[Address]:
        """Resolve a name to addresses that are all public, unless the name is a trusted one. Raises Unreachable."""
        found = await addresses(host)
        if not literal(host) and listed(plain(host), self.config.trusted_domains):
            return found
        for address in found:
            if any(address in network for network in internal):
                raise Unreachable(f"SSRF blocked: {host} resolves to internal IP {address}")
        return found

    def by_rate(self, host: str) -> Refusal | None:
        name, now = plain(host), time.monotonic()
        recent = self.recent.setdefault(name, deque())
        while recent and recent[0] < now - 60:
            recent.popleft()
        if len(recent) >= self.config.fetch_proxy.monitoring.max_requests_per_minute:
            return Refusal("ratelimit", f"rate limit exceeded for {name}", 429)
        recent.append(now)
        return None


async def addresses(host: str) -> list[Address]:
    """Resolve a name: /etc/hosts first, in any case and with a trailing dot or none, and only then by DNS."""
    name = host.strip("[]")
    if given := pinned(name):
        return given
    if not askable.fullmatch(name):
        raise Unreachable(f"DNS resolution error for {host}: lookup {host}: no such host")
    try:
        found = await asyncio.wait_for(
            asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM), lookup_seconds
        )
    except (OSError, UnicodeError) as error:
        missing = isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME
        detail = (
            "no such host" if missing else "i/o timeout" if isinstance(error, TimeoutError) else "server misbehaving"
        )
        raise Unreachable(f"DNS resolution error for {host}: lookup {host} on 127.0.0.11:53: {detail}") from error
    return [unmapped(ipaddress.ip_address(entry[4][0])) for entry in found]


def pinned(name: str) -> list[Address]:
    """Return the addresses that /etc/hosts gives a name."""
    lines = (line.partition("#")[0].split() for line in hosts.read_text(encoding="latin-1").splitlines())
    wanted = name.lower().removesuffix(".")
    return [unmapped(ipaddress.ip_address(words[0])) for words in lines if wanted in map(str.lower, words[1:])]


def literal(host: str) -> bool:
    """Say whether a host is an address."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def unmapped(address: Address) -> Address:
    """Take an IPv4 address out of its IPv6 coat."""
    return getattr(address, "ipv4_mapped", None) or address
