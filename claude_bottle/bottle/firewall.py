"""The nftables rules of the lock (the bottle's network namespace) and of the gate (the sidecar's)."""

from collections.abc import Iterable
from ipaddress import IPv4Address

from claude_bottle.bottle.plan import PROXY_PORT, PROXY_UID, SIDECAR_UID, Plan
from claude_bottle.egress import credential_proxy
from claude_bottle.process.engine import EGRESS

# Special-purpose ranges that are not the internet (IANA's registry, RFC 6890 and successors).
_SPECIAL = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
    *("192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
    *("224.0.0.0/4", "240.0.0.0/4"),
)
_TABLE = "claude_bottle"
_NAMES = ("udp dport 53 accept", "tcp dport 53 accept")
_NO_ROUTE = "reject with icmpx type no-route"  # at once, so that no client waits for its time-out
_PROHIBITED = "reject with icmpx type admin-prohibited"
_ESTABLISHED = "ct state established,related accept"
# Each connection takes a place in the table of the engine's host. As many as these are no package manager's; a closed
# one stays in the table for two minutes, but the kernel gives its place away when it needs one.
_RATE, _BURST, _AT_ONCE = 200, 400, 1000
_RESET = "reject with tcp reset"  # "connection refused", after which most clients try again


def lock(plan: Plan) -> bytes:
    """Return the rules that leave a bottle its loopback and its sidecar's port, nothing else, IPv4 and IPv6.

    To the sidecar go at most 200 new connections a second after a burst of 400, and 1,000 at once.
    """
    return _lock(plan.sidecar_address)


def trial() -> bytes:
    """Return a lock for nobody, with all that a kernel must know of nftables."""
    return _lock(IPv4Address("192.0.2.1"))


def _lock(address: IPv4Address) -> bytes:
    sidecar = f"ip daddr {address} tcp dport {PROXY_PORT}"
    # The rate first: the kernel remembers every connection that it has counted.
    fast = f"{sidecar} ct state new limit rate over {_RATE}/second burst {_BURST} packets {_RESET}"
    many = f"{sidecar} ct state new ct count over {_AT_ONCE} {_RESET}"
    # Docker's DNS listens on loopback, redirected by port; refused before loopback is accepted, names fail at once.
    dns = "ip daddr 127.0.0.11 reject with icmpx type port-unreachable"
    return _table(
        _chain("input", ['iif "lo" accept', _ESTABLISHED, _PROHIBITED]),
        _chain("output", [dns, 'oif "lo" accept', fast, many, f"{sidecar} accept", _NO_ROUTE]),
    )


def gate(plan: Plan) -> bytes:
    """Return the rules for the sidecar and the credential proxy, which share a network namespace.

    The sidecar serves its bottle alone. Both reach the internet's declared ports alone; on loopback the sidecar reaches
    what the credential proxy listens on, and both Docker's resolver.
    """
    asked = f"ip saddr {plan.bottle_address} ip daddr {plan.sidecar_address} tcp dport {PROXY_PORT} accept"
    ours = f"meta skuid {{ {PROXY_UID}, {SIDECAR_UID} }}"
    # Docker's resolver, which is root, asks for names from within this namespace; pipelock and nginx must not.
    names = [f"{ours} meta l4proto {{ tcp, udp }} th dport 53 {_NO_ROUTE}", *_NAMES]
    known = [address for address in plan.known.host if ":" not in address]
    host = [f"ip daddr {_set(known)} {_NO_ROUTE}"] if known else []  # a public one is in no special range
    if plan.asks_addresses:
        host = ["# here the addresses of the engine's host are refused; it has not been asked for them"]
    special = f"ip daddr {_set(_SPECIAL)} {_NO_ROUTE}"
    ports = "tcp dport @ports accept"
    out = [*names, *host, *_chosen(plan, ports), special, ports]
    return _table(
        # Named, so that a running session can be allowed more.
        f"  set ports {{\n    type inet_service;\n    elements = {_set(map(str, plan.ports))}\n  }}\n",
        _chain("input", ['iif "lo" accept', _ESTABLISHED, asked, _PROHIBITED]),
        _chain("output", [_ESTABLISHED, *_loopback(plan, ours), *out, _NO_ROUTE]),
    )


def _loopback(plan: Plan, ours: str) -> list[str]:
    # pipelock's own pages are on loopback too, and a name that may resolve to it may do so on every port.
    pairs = _set(f"{address} . {port}" for address, port in credential_proxy.pairs(plan.ended))
    ended = [f"meta skuid {SIDECAR_UID} ip daddr . tcp dport {pairs} accept"] if plan.ended else []
    # Docker redirects its resolver's port 53 to another before it comes by here.
    return [*ended, "ip daddr 127.0.0.11 accept", f'oif "lo" {ours} {_PROHIBITED}', 'oif "lo" accept']


def more_ports(ports: Iterable[int]) -> bytes:
    """Return what adds ports to a gate that stands; one that it has already is no error."""
    return f"add element inet {_TABLE} ports {_set(map(str, ports))}\n".encode()


def _chosen(plan: Plan, ports: str) -> list[str]:
    """Let a user-chosen network's own subnet through, but not its gateway, which is the host."""
    if plan.egress.name == EGRESS:
        return []
    if plan.egress.subnet is None:
        return [f"# here the subnet of {plan.egress.name} is accepted, but for its gateway; docker has not been asked"]
    gateway = [f"ip daddr {plan.egress.gateway} {_NO_ROUTE}"] if plan.egress.gateway else []
    return [*gateway, f"ip daddr {plan.egress.subnet} {ports}"]


def _set(items: Iterable[str]) -> str:
    return "{ " + ", ".join(items) + " }"


def _chain(hook: str, rules: list[str]) -> str:
    lines = [f"type filter hook {hook} priority 0; policy drop;", *rules]
    return f"  chain {hook} {{\n" + "".join(f"    {line}\n" for line in lines) + "  }\n"


def _table(*parts: str) -> bytes:
    return f"table inet {_TABLE} {{\n{''.join(parts)}}}\n".encode()
