"""Where the receivers are: addresses that exist in the battery's own namespaces and nowhere else, and their names."""

from dataclasses import asdict, dataclass
from ipaddress import IPv4Address

#: the machine's own address, and its neighbour on the LAN
HOST, LAN = "198.51.100.130", "198.51.100.131"
OUTSIDE, OUTSIDE6 = "198.51.100.250", "fd67::250"
#: two hosts of the internet, one allowed. The gate refuses all special addresses, so these are of 44.128.0.0/16, which
#: the amateurs' network keeps for tests.
ANTHROPIC, PUBLIC = "44.128.0.1", "44.128.0.2"
METADATA, PRIVATE, LINK_LOCAL = "169.254.169.254", "10.66.0.1", "169.254.1.1"
BEYOND = (OUTSIDE, OUTSIDE6, ANTHROPIC, PUBLIC, METADATA, PRIVATE, LINK_LOCAL)
#: of these, where TCP 443 is a receiver's; at ANTHROPIC it is the API's
BEYOND443 = (LAN, OUTSIDE, PUBLIC, METADATA, PRIVATE, LINK_LOCAL)
DOCKER0 = "172.17.0.1"

#: on the bottle's list beside the seven; each resolves to what no bottle may reach
TRAPS = {
    "private.test": [PRIVATE],
    "loopback.test": ["127.0.0.1"],
    "metadata.test": [METADATA],
    "host.test": [HOST],
    "docker0.test": [DOCKER0],
    "mapped.test": [f"::ffff:{PRIVATE}"],
    "*.rebind.test": [PUBLIC, PRIVATE],  # asked twice, two answers
}


class Spelled(str):
    """An IPv4 address that can be written in other ways."""

    __slots__ = ()

    @property
    def decimal(self) -> str:
        """Return it as one number."""
        return str(int(IPv4Address(self)))

    @property
    def hexadecimal(self) -> str:
        """Return it as one hexadecimal number."""
        return hex(int(IPv4Address(self)))

    @property
    def octal(self) -> str:
        """Return each part as an octal number."""
        return ".".join(f"0{int(part):o}" for part in self.split("."))

    @property
    def mapped(self) -> str:
        """Return it as an IPv6 address."""
        return f"::ffff:{self}"


@dataclass(frozen=True)
class Place:
    """The addresses that a command's {names} stand for, as seen from one place."""

    gateway: str
    broadcast: str
    bridge6: str
    sidecar: str
    sidecar_outer: str
    outer_gateway: str
    other_sidecar: str
    other_sidecar_outer: str
    neighbour: str
    neighbour_name: str
    third: str

    def command(self, text: str, token: str) -> str:
        """Return a row's command with everything filled in."""
        return text.format(
            token=token, library="/usr/local/lib/battery/attack.py", host=HOST, lan=LAN, outside=Spelled(OUTSIDE),
            outside6=OUTSIDE6, anthropic=ANTHROPIC, public=PUBLIC, metadata=Spelled(METADATA), private=PRIVATE,
            link_local=LINK_LOCAL, docker0=DOCKER0, **asdict(self),
        )  # fmt: skip


#: what cannot be known before there is a bottle
NOWHERE = Place(*["unknown"] * 11)
