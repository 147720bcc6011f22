"""A session as values: every name, address and file, decided before docker is called."""

import hmac
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network

from claude_bottle import PREFIX
from claude_bottle.bottle import home, passed_on, reach
from claude_bottle.bottle.image import Image
from claude_bottle.documents import files
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.egress import allowlist, credential_proxy
from claude_bottle.errors import DockerError, ManifestError
from claude_bottle.host.addresses import Addresses
from claude_bottle.host.machine import TOKEN_SHAPE, TOKEN_VARIABLE, Machine
from claude_bottle.host.owner import Owner
from claude_bottle.manifest import ssh_hosts
from claude_bottle.manifest.agent import Agent
from claude_bottle.manifest.credentials import Credential
from claude_bottle.manifest.git_identity import Identity
from claude_bottle.process.engine import EGRESS, Egress, EngineFacts
from claude_bottle.repository.clone import Repository

PROXY_PORT = 8888
SIDECAR_UID = 65534
PROXY_UID = 65533  # the credential proxy's
TOKEN = "CLAUDE_CODE_OAUTH_TOKEN"  # noqa: S105  (a name, no secret)
# What the bottle has in its place. Some of Claude's clients refuse a token of another shape.
PLACEHOLDER = f"sk-ant-oat01-{'placeholder-' * 7}only-AA"
_DEFAULT_RANGE = "10.213.0.0/16"
_LARGE = 19  # the longest prefix of a range that also has room for the egress network
_UNASKED = Addresses(why="no engine was asked")


@dataclass(frozen=True)
class Conversation:
    """A conversation of an earlier session, with which a new one goes on: Claude's own transcript of it."""

    session: str  # whose it was
    id: str  # Claude's
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Run:
    """How claude is run: on a terminal or headless, with which first message and further arguments.

    A `login` is `claude setup-token`, in a bottle without a credential proxy: its requests make the token.
    """

    terminal: bool
    question: str | None = None
    arguments: tuple[str, ...] = ()
    login: bool = False
    name: str = ""  # that the user gave the session
    resumed: Conversation | None = None

    def prompt(self, agent: Agent) -> str | None:
        """Return the first message: the question of --print, else the agent's prompt; a resumed one has had that."""
        return self.question if self.question is not None or self.resumed else agent.prompt


@dataclass(frozen=True)
class Signing:
    """What the credential proxy signs with, and how the self-test is judged, by digests under random keys."""

    settings: bytes = field(repr=False)
    key: str = field(repr=False)  # in hex, of the search for the token; the bottle gets it, but not the proxy's
    digests: Mapping[str, str]  # under the proxy's key, of the headers of a request to each host with a credential
    token: str  # under the search's key, of the token alone
    shaped: bool  # whether the token looks like one, without which nothing can be searched for it


@dataclass(frozen=True)
class Request:
    """What this machine and its user ask for; with the engine's facts it makes a plan."""

    machine: Machine
    agent: Agent
    run: Run
    images: tuple[Image, ...]  # each built on the one before, from the base to the bottle's
    token: str  # 8 random hex digits, which make the session unique
    digest_key: bytes = field(repr=False)  # random, of the credential proxy's answer to the self-test
    identity: Identity = field(default_factory=Identity)  # git's, inside the bottle
    repository: Repository | None = None  # what is taken in
    remote: bool = False  # the link to the engine can be cut silently
    known: Addresses = _UNASKED  # of the engine's host, which the bottle must not reach
    elsewhere: bool = False  # that host is not this machine: the session asks it for its addresses

    @property
    def sidecar_image(self) -> str:
        """Return the name of pipelock's image."""
        return self.machine.setting("PIPELOCK_IMAGE") or allowlist.image()

    @property
    def chosen_network(self) -> str | None:
        """Return the network that the user chose for the sidecars' way out, None for the shared one."""
        return self.machine.setting("EGRESS_NETWORK")


@dataclass(frozen=True)
class Plan:
    """A session as values: all that its steps are made from."""

    session: str
    owner: Owner
    agent: Agent
    run: Run
    images: tuple[Image, ...]  # each built on the one before, from the base to the bottle's
    sidecar_image: str
    facts: EngineFacts
    addresses: IPv4Network
    range: IPv4Network
    config: bytes = field(repr=False)  # the sidecar's pipelock.yaml
    home: bytes = field(repr=False)  # the tar stream that fills the agent's home
    reach: bytes = field(repr=False)  # the file for the agent of what it may reach
    passed_on: tuple[str, ...]  # the user's variables that the manifest does not set itself
    certificates: bytes = field(repr=False)  # PEM, trusted inside the bottle besides the image's own
    signing: Signing
    keys: tuple[ssh_hosts.Key, ...]  # for the key-holder, which there is only where there are keys
    identity: Identity  # git's, inside the bottle
    known: Addresses = _UNASKED  # of the engine's host, which the bottle must not reach
    elsewhere: bool = False  # that host is not this machine: the session asks it for its addresses
    remote: bool = False  # the link to the engine can be cut silently
    repository: Repository | None = None  # what is taken in
    key: bytes = field(default=b"", repr=False)  # of the proof that the session is the user's own
    token_source: str = TOKEN_VARIABLE  # where the OAuth token comes from, for people
    engine: str = ""  # the docker context that the user chose for it

    def on(self, facts: EngineFacts) -> "Plan":
        """Return the same session for newer facts: with other addresses if its own are taken.

        Raises DockerError if no range of addresses is free.
        """
        start = int(self.session[-8:], 16)
        if not any(self.addresses.overlaps(subnet) for subnet in facts.taken):
            return replace(self, facts=facts)
        for addresses in candidates(self.range, start + 1):
            if not any(addresses.overlaps(subnet) for subnet in facts.taken):
                return replace(self, facts=facts, addresses=addresses)
        raise DockerError(f"no free /29 is left in {self.range}: end a session, or set CLAUDE_BOTTLE_SUBNET")

    @property
    def base(self) -> Image:
        """Return the image that every bottle begins with."""
        return self.images[0]

    @property
    def image(self) -> Image:
        """Return the bottle's own image, which may be the base."""
        return self.images[-1]

    @property
    def egress(self) -> Egress:
        """Return the network of the sidecar's way out."""
        return self.facts.egress

    @property
    def name(self) -> str:
        """Return the name of the session's container and network, the beginning of all its other names."""
        return f"{PREFIX}-{self.session}"

    @property
    def branch(self) -> str:
        """Return the name of the branch that the bottle's work is on."""
        return self.repository.work.back(self.session) if self.repository else f"bottle/{self.session}"

    @property
    def sidecar(self) -> str:
        """Return the name of the sidecar's container."""
        return f"{self.name}-sidecar"

    @property
    def key_holder(self) -> str:
        """Return the name of the container that has the ssh keys."""
        return f"{self.name}-key-holder"

    @property
    def gate(self) -> str:
        """Return the name of the credential proxy's container."""
        return f"{self.name}-gate"

    @property
    def key_volume(self) -> str:
        """Return the name of the volume in which its socket is."""
        return f"{self.name}-keys"

    @property
    def asks_addresses(self) -> bool:
        """Return whether the addresses of the engine's host are still to be asked for."""
        return self.elsewhere and not self.known.host

    @property
    def keeps_work(self) -> bool:
        """Return whether the bottle keeps its files for a while if the link to its launcher is cut."""
        return self.remote and self.repository is not None

    @property
    def locked_keys(self) -> tuple[ssh_hosts.Key, ...]:
        """Return the keys whose passphrase must be asked for."""
        return tuple(key for key in self.keys if key.file.encrypted)

    @property
    def sidecar_address(self) -> IPv4Address:
        """Return the sidecar's address on the session's network."""
        return self.addresses[3]

    @property
    def bottle_address(self) -> IPv4Address:
        """Return the agent container's address on the session's network."""
        return self.addresses[4]

    @property
    def allow(self) -> tuple[str, ...]:
        """Return the host names that the sidecar lets through."""
        return allowlist.allowlist(self.agent.bottle.reach)

    @property
    def ports(self) -> tuple[int, ...]:
        """Return the TCP ports that may leave."""
        return allowlist.ports(self.agent.bottle.reach)

    @property
    def ended(self) -> tuple[credential_proxy.Ended, ...]:
        """Return the hosts whose TLS the credential proxy ends; none without one."""
        return _ended(self.agent, self.run)

    @property
    def prompt(self) -> str | None:
        """Return the first message, None if there is none."""
        return self.run.prompt(self.agent)

    @property
    def env_names(self) -> tuple[str, ...]:
        """Return the variables handed to claude by name, their values being in the client's environment."""
        forwarded = tuple(variable.name for variable in self.agent.bottle.env if variable.source)
        return (*self.passed_on, *forwarded)


def session_id(agent: str, token: str) -> str:
    """Return `<agent slug, at most 30 characters>-<8 hex>`, usable in docker's names."""
    plain = unicodedata.normalize("NFKD", agent).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:30].strip("-") or "agent"
    return f"{slug}-{token}"


def address_range(machine: Machine) -> IPv4Network:
    """Return the range that sessions take their /29 from; ManifestError where the setting is no such range."""
    text = machine.setting("SUBNET") or _DEFAULT_RANGE
    largest = 29 if machine.setting("EGRESS_NETWORK") not in (None, EGRESS) else _LARGE
    try:
        network = IPv4Network(text)
    except ValueError as error:
        raise ManifestError(f"CLAUDE_BOTTLE_SUBNET: {error}; it takes an IPv4 range such as {_DEFAULT_RANGE}") from None
    if network.prefixlen > largest:
        raise ManifestError(f"CLAUDE_BOTTLE_SUBNET: {text} is too small; it takes a /{largest} or larger")
    return network


def egress_subnet(addresses: IPv4Network) -> IPv4Network:
    """Return the part of the range that the shared egress network has: its last /20."""
    return list(addresses.subnets(new_prefix=20))[-1]


def slots(network: IPv4Network) -> int:
    """Return how many /29s a network has room for."""
    return 1 << (29 - network.prefixlen)


def reserved(addresses: IPv4Network) -> tuple[IPv4Network, ...]:
    """Return what no session takes of a range: other sessions may have the shared egress network there."""
    return (egress_subnet(addresses),) if addresses.prefixlen <= _LARGE else ()


def candidates(addresses: IPv4Network, start: int) -> Iterator[IPv4Network]:
    """Yield every /29 that a session may take, beginning somewhere and going round once."""
    count = slots(addresses) - sum(map(slots, reserved(addresses)))
    first = int(addresses.network_address)
    for index in range(count):
        yield IPv4Network((first + (start + index) % count * 8, 29))


def environment(machine: Machine, agent: Agent) -> dict[str, str]:
    """Return the secrets, by their names in the bottle, for the environment of the client that runs claude."""
    return {v.name: machine.environ[v.source] for v in agent.bottle.env if v.source}


def make(request: Request, facts: EngineFacts) -> Plan:
    """Make the plan of a session.

    Raises ManifestError if a setting is wrong or a skill, certificate or key cannot be read.
    """
    machine, agent, run = request.machine, request.agent, request.run
    addresses = address_range(machine)
    certificates = _certificates(agent)
    prompt = run.prompt(agent)
    session = session_id(agent.name, request.token)
    reached = reach.reach(session, agent.bottle)
    more = [home.Entry(f"{home.FOLDER}/{reach.FILE}", reached), *_git_and_ssh(agent, request.identity)]
    if run.resumed:
        more += home.conversation(run.resumed.id, run.resumed.data)
    return Plan(
        session=session,
        owner=machine.owner,
        agent=agent,
        run=run,
        images=request.images,
        sidecar_image=request.sidecar_image,
        facts=facts,
        addresses=next(candidates(addresses, int(request.token, 16))),
        range=addresses,
        config=allowlist.config(allowlist.allowlist(agent.bottle.reach), (end.name for end in _ended(agent, run))),
        home=home.home(agent.skills, prompt, more, certificates, idle=run.terminal and prompt is None),
        reach=reached,
        passed_on=_passed_on(machine, agent),
        certificates=certificates,
        signing=_signing(request),
        keys=_keys(agent),
        identity=request.identity,
        known=request.known,
        elsewhere=request.elsewhere,
        remote=request.remote,
        repository=request.repository,
        key=machine.key,
        token_source=machine.token_source,
        engine=machine.engine,
    )


def _passed_on(machine: Machine, agent: Agent) -> tuple[str, ...]:
    own = {variable.name for variable in agent.bottle.env}
    return tuple(name for name in passed_on.names(machine.environ) if name not in own)


def _ended(agent: Agent, run: Run) -> tuple[credential_proxy.Ended, ...]:
    bottle = agent.bottle
    if run.login:
        return ()
    return credential_proxy.ended((each.host for each in bottle.credentials), allowlist.ports(bottle.reach))


def _signing(request: Request) -> Signing:
    environ, bottle = request.machine.environ, request.agent.bottle
    key, token = request.digest_key, environ.get(TOKEN_VARIABLE, "")
    signed = [_signed(each, environ) for each in bottle.credentials]
    settings = credential_proxy.settings(
        token,
        signed,
        digest_key=key,
        requests=bottle.limits.requests,
        server_side_fetch=bottle.api.server_side_fetch,
        paths=bottle.api.paths,
    )
    digests = credential_proxy.digests(token, signed, digest_key=key)
    # Whoever has the key of the search could guess a short password by its digest, were it the proxy's key as well.
    search = hmac.new(key, b"search", "sha1")
    alone = hmac.new(search.digest(), token.encode(), "sha1").hexdigest()
    return Signing(settings, search.hexdigest(), digests, alone, shaped=bool(re.fullmatch(TOKEN_SHAPE, token)))


def _signed(each: Credential, environ: Mapping[str, str]) -> credential_proxy.Signed:
    headers = {header.name: header.value(environ) for header in each.headers}
    return credential_proxy.Signed(each.host, headers, each.methods, each.paths)


def _git_and_ssh(agent: Agent, identity: Identity) -> Iterator[home.Entry]:
    git, files = identity.config(), ssh_hosts.files(agent.bottle.ssh, f"pipelock:{PROXY_PORT}")
    if git:
        yield home.Entry(".gitconfig", git)
    if files:
        yield home.Entry(".ssh", mode=0o700)
    yield from (home.Entry(f".ssh/{name}", data) for name, data in files.items())


def _certificates(agent: Agent) -> bytes:
    try:
        return b"".join(home.certificates(files.read(path)) for path in agent.bottle.ca_certs)
    except OSError as error:
        raise ManifestError(f"{escape_control_chars(str(error.filename))}: cannot be read: {error.strerror}") from None


def _keys(agent: Agent) -> tuple[ssh_hosts.Key, ...]:
    try:
        return ssh_hosts.keys(agent.bottle.ssh)
    except OSError as error:
        raise ManifestError(f"{escape_control_chars(str(error.filename))}: cannot be read: {error.strerror}") from None
