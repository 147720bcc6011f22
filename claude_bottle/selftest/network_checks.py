"""Judge what a bottle can reach and what its processes may do, from the probe's answers."""

import json
from collections.abc import Callable, Iterable, Iterator

from claude_bottle import REFUSED
from claude_bottle.bottle.plan import PROXY_PORT, Plan
from claude_bottle.egress.allowlist import API
from claude_bottle.host.addresses import Addresses
from claude_bottle.selftest.evidence import Data, Evidence, Inconclusive, NotApplicable

OUTSIDE = "198.51.100.1"  # of TEST-NET-2 (RFC 5737): nobody's, so that a leak reaches nobody
_RESOLVER = "127.0.0.11"  # Docker's
_TCP_PORTS = (443, PROXY_PORT)
_UDP_PORTS = (53, 443)
_EVERYBODY = ("255.255.255.255", "224.0.0.251", "ff02::1")
# What the lock's rules and a missing route give. A refused connection is not among them: somebody answered. Nor is
# silence: the packet may have left.
_CLOSED = frozenset(("ENETUNREACH", "EHOSTUNREACH", "EPERM", "EACCES"))
_NO_IPV6 = frozenset(("EADDRNOTAVAIL", "EAFNOSUPPORT"))  # no address to send from, or not in this kernel
CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def question(plan: Plan, known: Addresses) -> dict[str, object]:
    """Return what the probe is asked to try."""
    return {
        "sidecar": ("pipelock", PROXY_PORT),
        "outside": API,
        "refused": REFUSED,
        "resolver": _RESOLVER,
        "tcp": _targets((OUTSIDE, _first(plan), *_docker0(known), *known.host), _TCP_PORTS),
        "udp": _targets((*_udp(plan, known), *_everybody(plan)), _UDP_PORTS),
    }


def direct(seen: Evidence) -> Iterable[str]:
    """TCP to an outside address."""
    return _open(seen.probe["tcp"], _targets((OUTSIDE,), _TCP_PORTS))


def gateway(seen: Evidence) -> Iterable[str]:
    """TCP to the network's first address, which is the host's unless the network is inhibited."""
    return _open(seen.probe["tcp"], _targets((_first(seen.plan),), _TCP_PORTS))


def docker0(seen: Evidence) -> Iterable[str]:
    """TCP to docker0's address."""
    if seen.known.docker0 is None:
        raise NotApplicable(
            seen.known.why or "there is no docker0 here, or the engine has a network namespace of its own"
        )
    return _open(seen.probe["tcp"], _targets(_docker0(seen.known), _TCP_PORTS))


def host(seen: Evidence) -> Iterable[str]:
    """TCP to every address of the host."""
    if not seen.known.host:
        raise NotApplicable(seen.known.why or "this host has no address")
    return _open(seen.probe["tcp"], _targets(seen.known.host, _TCP_PORTS))


def udp(seen: Evidence) -> Iterable[str]:
    """UDP to all of these, and to the sidecar."""
    return _open(seen.probe["udp"], _targets(_udp(seen.plan, seen.known), _UDP_PORTS))


def broadcast(seen: Evidence) -> Iterable[str]:
    """UDP to everybody on the network."""
    return _open(seen.probe["udp"], _targets(_everybody(seen.plan), _UDP_PORTS))


def names(seen: Evidence) -> Iterator[str]:
    """A look-up through the system, and Docker's resolver itself, whose port the lock refuses."""
    for address in seen.probe["resolved"]:
        yield f"{API} resolves to {address}"
    for protocol in ("udp", "tcp"):
        said = seen.probe["dns"][protocol]
        if said not in _CLOSED and said != "ECONNREFUSED":  # nobody else can answer here
            yield f"Docker's resolver is open over {protocol.upper()}: {said}"


def ipv6(seen: Evidence) -> list[str]:
    """Addresses of IPv6 that are not the loopback's."""
    return [str(address) for address in seen.probe["ipv6"]]


def proxy(seen: Evidence) -> Iterator[str]:
    """The sidecar's own page."""
    answer = seen.probe["health"]
    if _status(answer) != "200":
        yield f"the sidecar does not answer: {_told(answer)}"
    elif (mode := json.loads(answer.partition("\r\n\r\n")[2])["mode"]) != "strict":
        yield f"the sidecar's mode is {mode}"


def refusal(seen: Evidence) -> Iterator[str]:
    """CONNECT to a name that is on no list."""
    answer = seen.probe["refused"]
    if not _not_listed(answer):
        yield f"CONNECT {REFUSED}: {_told(answer)}"


def api(seen: Evidence) -> Iterator[str]:
    """CONNECT to the API; a network that is down is no leak."""
    answer = seen.probe["allowed"]
    status = _status(answer)
    if status in ("502", "503", "504") or answer == "no answer" or (status == "403" and not _not_listed(answer)):
        raise Inconclusive(f"{API} cannot be reached, is the network down? The sidecar says: {_told(answer)}")
    if status != "200":
        yield f"CONNECT {API}: {_told(answer)}"


def capabilities(seen: Evidence) -> Iterable[str]:
    """The five sets of every process."""

    def faults(status: Data) -> list[str]:
        return [f"has {key} {status[key][0]}" for key in CAPABILITIES if int(status[key][0], 16) != 0]

    return _each_process(seen, faults)


def no_new_privileges(seen: Evidence) -> Iterable[str]:
    """The flag of every process."""
    return _each_process(seen, lambda status: [] if status["NoNewPrivs"] == ["1"] else ["can gain privileges"])


def seccomp(seen: Evidence) -> Iterable[str]:
    """The mode of every process: 2 is a filter."""
    return _each_process(seen, lambda status: [] if status["Seccomp"] == ["2"] else ["has no seccomp filter"])


def docker_socket(seen: Evidence) -> list[str]:
    """Sockets of container engines."""
    return [str(path) for path in seen.probe["sockets"]]


def _first(plan: Plan) -> str:
    return str(plan.addresses[1])


def _docker0(known: Addresses) -> tuple[str, ...]:
    return () if known.docker0 is None else (known.docker0,)


def _udp(plan: Plan, known: Addresses) -> tuple[str, ...]:
    return (OUTSIDE, _first(plan), *_docker0(known), *known.host, str(plan.sidecar_address))


def _everybody(plan: Plan) -> tuple[str, ...]:
    return (*_EVERYBODY, str(plan.addresses.broadcast_address))


def _targets(addresses: Iterable[str], ports: Iterable[int]) -> list[str]:
    return list(dict.fromkeys(f"{address} {port}" for address in addresses for port in ports))


def _open(ended: dict[str, str], targets: Iterable[str]) -> Iterator[str]:
    """Yield the targets that are not closed; one that was not tried is a KeyError."""
    for target in targets:
        word = ended[target]
        if word not in _CLOSED and not (":" in target and word in _NO_IPV6):
            yield f"{target.replace(' ', ' port ')}: {word}"


def _each_process(seen: Evidence, faults: Callable[[Data], list[str]]) -> Iterator[str]:
    for pid, status in seen.processes.items():
        yield from (f"process {pid} {fault}" for fault in faults(status))


def _status(answer: str) -> str:
    return answer.split(" ")[1] if answer.startswith("HTTP/1.") else ""


def _not_listed(answer: str) -> bool:
    return _status(answer) == "403" and "not in allowlist" in answer


def _told(answer: str) -> str:
    """Return the first line of an answer and the last, where a refusal has its reason."""
    lines = answer.splitlines() or ["nothing"]
    return lines[0] if len(lines) == 1 else f"{lines[0]}: {lines[-1]}"
