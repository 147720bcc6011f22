"""The other side: containers without the protection, in which every attack must be seen by its receiver.

open        on an ordinary bridge, as the image's user; an open proxy has the name and the port of the sidecar
root        the same, as root
internal    on a plain --internal network, as the image's user: the naive set-up
privileged  the same, with every privilege, as root
seccomp     the same, with every privilege, but as the image's user
weak        on the host's network, with the docker socket, as root
trusting    as open, but its proxy has the ended hosts' names on its own loopback, as the sidecar has
sidecar     in the open proxy's network namespace, as the sidecar's user
proxy       the same, as the credential proxy's user
router      another container on the ordinary bridge, as root with NET_ADMIN
beside      the same, where the sidecar's address is the open proxy's inner one
"""

from dataclasses import dataclass, replace

from claude_bottle.bottle.plan import PROXY_UID, SIDECAR_UID
from tests.isolation.machine import Machine, until
from tests.isolation.places import Place
from tests.isolation.rows import RELAYED
from tests.world.api import HOSTS

LIBRARY = "/usr/local/lib/battery"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
OPEN, OPEN6, INTERNAL, THIRD = "10.99.1.0/24", "fd77::/64", "10.99.2.0/24", "10.99.3.0/24"
GATEWAY, BROADCAST = "10.99.1.1", "10.99.1.255"
PIDS = 400  # more than a bottle's, few enough to be used up
USERS = {"open": "1000", "root": "0", "internal": "1000", "privileged": "0", "seccomp": "1000", "weak": "0",
         "trusting": "1000"}  # fmt: skip
WHO = {"sidecar": SIDECAR_UID, "proxy": PROXY_UID}
#: what listens in a sidecar's network namespace; the credential proxy has 443 on other addresses there
WITHIN = ("--tcp", "22,80,8443,9000", "--at", "127.0.0.1")
CONTAINERS = {"root": "open", "seccomp": "privileged"}


@dataclass(frozen=True)
class Naive:
    """The containers' image, the third network's address, and the addresses as seen from each place."""

    image: str
    third: str
    places: dict[str, Place]


def up(machine: Machine, image: str) -> Naive:
    """Make everything."""
    machine.docker("network", "create", "--subnet", THIRD, "third")
    machine.docker("network", "create", "--subnet", OPEN, "--ipv6", "--subnet", OPEN6, "open")
    machine.docker("network", "create", "--internal", "--subnet", INTERNAL, "internal")
    for name, alias in (("proxy", "pipelock"), ("other-proxy", "other")):
        _run(machine, name, image, f"{LIBRARY}/proxy.py", options=("--network", "open", "--network-alias", alias))
        machine.docker("network", "connect", "internal", name)
    ended = (word for place, host in enumerate(HOSTS) for word in ("--add-host", f"{host}:127.13.0.{place + 1}"))
    _run(machine, "trusting-proxy", image, f"{LIBRARY}/proxy.py", options=("--network", "open", *ended))
    for name in ("proxy", "trusting-proxy"):
        receive(machine, f"{name}-loopback", image, among("sidecar", name, ""), *WITHIN)
    receive(machine, "next", image, ("--network", "open", "--publish", "9100:9000"))
    receive(machine, "third", image, ("--network", "third"))
    machine.docker("network", "connect", "open", "third")
    _attackers(machine, image)
    return Naive(image, machine.address("third", "third"), _places(machine))


def _attackers(machine: Machine, image: str) -> None:
    """Start the containers in which attacks are run."""
    outer, inner = _proxy(machine.address("proxy", "open")), _proxy(machine.address("proxy", "internal"))
    socket = f"type=bind,src={machine.folder}/docker.sock,dst=/var/run/docker.sock"
    options = {
        "open": ("--network", "open", "--pids-limit", str(PIDS), *outer),
        "trusting": ("--network", "open", *_proxy(machine.address("trusting-proxy", "open"))),
        "internal": ("--network", "internal", *inner),
        "privileged": ("--network", "internal", "--privileged", *inner),
        "weak": ("--network", "host", "--mount", socket, *outer),
    }
    for name, words in options.items():
        _run(machine, name, image, "-c", "import time; time.sleep(3600)", options=words)
    # A port's relay and its other end, which is the host's there.
    waits = f"python3 -c 'import time; time.sleep(3600)  # main(int(sys.argv[1]))' {RELAYED}"
    machine.docker(
        "exec", "--detach", "--user", USERS["weak"], "weak", "bash", "-c", f"{waits} | python3 {LIBRARY}/relay.py"
    )


def _places(machine: Machine) -> dict[str, Place]:
    outer, other = machine.address("proxy", "open"), machine.address("other-proxy", "open")
    seen = Place(
        gateway=GATEWAY, broadcast=BROADCAST, bridge6=machine.bridge6("open"), sidecar=outer, sidecar_outer=outer,
        outer_gateway=GATEWAY, other_sidecar=other, other_sidecar_outer=other,
        neighbour=machine.address("next", "open"), neighbour_name="next", third=machine.address("third", "open"),
    )  # fmt: skip
    within = replace(seen, sidecar=machine.address("proxy", "internal"))
    places = dict.fromkeys(("open", "root", "weak", "trusting", "sidecar", "proxy", "router"), seen)
    return places | dict.fromkeys(("internal", "privileged", "seccomp", "beside"), within)


def shell(place: str, image: str) -> tuple[str, ...]:
    """Return the docker command that runs bash in a place."""
    if place in USERS:
        return ("exec", "--interactive", "--user", USERS[place], CONTAINERS.get(place, place), "bash")
    return fresh(image, among(place, "proxy", "open"))


def fresh(image: str, options: tuple[str, ...]) -> tuple[str, ...]:
    """Return the docker command that runs bash in a container of its own."""
    return ("run", "--rm", "--interactive", *options, "--entrypoint", "bash", image)


def among(place: str, sidecar: str, outer: str) -> tuple[str, ...]:
    """Return the options of a container in a sidecar's network namespace, or beside it on its outer network."""
    if place in WHO:
        return ("--network", f"container:{sidecar}", "--user", f"{WHO[place]}:{WHO[place]}", "--cap-drop", "ALL")
    return ("--network", outer, "--user", "0:0", "--cap-add", "NET_ADMIN")


def receive(machine: Machine, name: str, image: str, options: tuple[str, ...], *tcp: str) -> None:
    """Start a container with listeners, and wait until they listen."""
    listens = (*(tcp or ("--tcp", "443,9000")), "--udp", "9000")
    _run(machine, name, image, f"{LIBRARY}/receiver.py", *listens, options=options)


def _run(machine: Machine, name: str, image: str, *argv: str, options: tuple[str, ...]) -> None:
    """Start a container that runs Python; what serves says when it is ready."""
    machine.docker("run", "--detach", "--init", "--name", name, *options, "--entrypoint", "python3", image, "-u", *argv)
    if argv[0].startswith(LIBRARY):
        until(lambda: "ready" in machine.docker_log(name), f"{name} is ready")


def _proxy(address: str) -> tuple[str, ...]:
    variables = (f"{name}=http://pipelock:8888" for name in PROXIES)
    return ("--add-host", f"pipelock:{address}", *(word for one in variables for word in ("--env", one)))
