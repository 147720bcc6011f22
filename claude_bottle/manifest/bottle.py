"""A bottle: what an agent may touch, read from `bottles/<name>.yaml`."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from claude_bottle.documents import files
from claude_bottle.documents.files import MIB
from claude_bottle.egress import allowlist
from claude_bottle.manifest.api import Api, read_api
from claude_bottle.manifest.credentials import Credential, read_credentials
from claude_bottle.manifest.environment import EnvVar, read_variable
from claude_bottle.manifest.git_identity import Identity, read_identity
from claude_bottle.manifest.registries import Registry, read_registries, with_mirrors
from claude_bottle.manifest.ssh_hosts import SshHost, read_hosts
from claude_bottle.manifest.validation import ManifestContext, Value, file_path, file_problem, inside, nearest

_MOST_FILES = 16  # of certificates: each may have 1 MiB, and all are held in memory
_KEYS = ("env", "credentials", "api", "ssh", "git", "egress", "ca_certs", "limits", "image")
_NONE = "none"  # in the place of a limit that the user does without
_MOST_REQUESTS = 1_000_000
PRESETS = ("go", "java", "node", "python", "rust")  # each has a Dockerfile below presets/
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([kmgt]?)(?:i?b)?", re.IGNORECASE)
_VERSION = re.compile(r"[0-9]{1,9}\.[0-9]{1,9}\.[0-9]{1,9}")
_UNITS = {"": 1, "k": 1024, "m": MIB, "g": 1024 * MIB, "t": 1024**2 * MIB}


@dataclass(frozen=True)
class Limits:
    """What a bottle may use of the engine: cpus, memory in bytes, processes and threads together.

    `requests` is how many messages it may send to the API, retries included; `time` is in seconds. None: no limit.
    """

    cpus: float | None = 2
    memory: int | None = 4096 * MIB
    pids: int | None = 1024
    requests: int | None = None
    time: int | None = None


@dataclass(frozen=True)
class Bottle:
    """A checked bottle; `allow` and `ca_certs` hold nothing twice, and every path exists."""

    name: str
    path: Path
    env: tuple[EnvVar, ...] = ()
    allow: tuple[allowlist.Host, ...] = ()
    registries: tuple[Registry, ...] = ()
    ca_certs: tuple[Path, ...] = ()
    limits: Limits = Limits()
    presets: tuple[str, ...] = ()  # of PRESETS
    dockerfile: Path | None = None
    claude: str | None = None  # the version of Claude Code; None: the base image's pin
    ssh: tuple[SshHost, ...] = ()
    git: Identity | None = None  # None: not set by the manifest
    credentials: tuple[Credential, ...] = ()
    api: Api = field(default_factory=Api)

    @property
    def reach(self) -> tuple[allowlist.Host, ...]:
        """Return every host that it may reach besides the default ones."""
        registries = (host for registry in self.registries for host in registry.hosts)
        signed = (each.host for each in self.credentials)
        return (*self.allow, *registries, *(host.reach for host in self.ssh), *signed)

    @property
    def readable(self) -> tuple[str, ...]:
        """Return the variables whose values come from the host: the agent can read them."""
        return tuple(variable.name for variable in self.env if variable.source)

    @property
    def unlimited(self) -> tuple[str, ...]:
        """Return the keys of the limits that its manifest does without."""
        return tuple(key for key in ("cpus", "memory", "pids") if getattr(self.limits, key) is None)


def read_bottle(name: str, top: Value, context: ManifestContext) -> Bottle:
    """Check the manifest `top` and return its bottle, which is valid only if no fault was added."""
    top.keys(_KEYS)
    env, egress, certs, limits = (top.get(key) for key in ("env", "egress", "ca_certs", "limits"))
    image, ssh, git, credentials, api = (top.get(key) for key in ("image", "ssh", "git", "credentials", "api"))
    socket = env.get("SSH_AUTH_SOCK") if env else None
    if ssh and socket:
        socket.fail("is set by claude-bottle itself if the bottle has ssh hosts", key=True)
    ssh_hosts = read_hosts(ssh, context) if ssh else ()
    presets = _presets(image) if image else ()
    variables = _env(env, context) if env else ()
    registries = egress.get("registries") if egress else None
    wanted = read_registries(registries, presets) if registries else ()
    signed = read_credentials(credentials, context, [host.reach for host in ssh_hosts]) if credentials else ()
    return Bottle(
        name,
        top.path,
        env=variables,
        registries=with_mirrors(wanted, env, variables, context.environ) if env else wanted,
        allow=_egress(egress) if egress else (),
        ca_certs=_ca_certs(certs, context.home) if certs else (),
        limits=_limits(limits) if limits else Limits(),
        presets=presets,
        dockerfile=_dockerfile(image, context) if image else None,
        claude=_claude(image) if image else None,
        ssh=ssh_hosts,
        git=read_identity(git) if git else None,
        credentials=signed,
        api=read_api(api) if api else Api(),
    )


def _env(section: Value, context: ManifestContext) -> tuple[EnvVar, ...]:
    pairs = (read_variable(name, value, context.environ) for name, value in section.entries())
    return tuple(pair for pair in pairs if pair)


def _egress(section: Value) -> tuple[allowlist.Host, ...]:
    section.keys(("allow", "registries"))
    allow = section.get("allow")
    found = [_host(item) for item in allow.items()] if allow else []
    return tuple(dict.fromkeys(host for host in found if host))


def _host(item: Value) -> allowlist.Host | None:
    text = item.text()
    try:
        return None if text is None else allowlist.parse_further(text)
    except ValueError as error:
        item.fail(str(error))
        return None


def _limits(section: Value) -> Limits:
    keys = ("cpus", "memory", "pids", "requests", "time")
    section.keys(keys)
    usual = Limits()
    cpus, memory, pids, requests, time = (section.get(key) for key in keys)
    return Limits(
        cpus=_cpus(cpus) if cpus else usual.cpus,
        memory=_memory(memory) if memory else usual.memory,
        pids=_pids(pids) if pids else usual.pids,
        requests=_requests(requests) if requests else usual.requests,
        time=time.seconds() if time else usual.time,
    )


def _cpus(value: Value) -> float | None:
    if value.data == _NONE:
        return None
    number = value.number()
    if number is not None and not 0.01 <= number <= 4096:  # the kernel's least quota is 1 ms of a period of 100 ms
        value.fail("must be from 0.01 to 4096")
    return number or 0


def _memory(value: Value) -> int | None:
    if value.data == _NONE:
        return None
    size = _bytes(value.data)
    if size is None:
        value.expected("a size such as 4g, 512m or a number of bytes, or none")
    elif not 512 * MIB <= size <= 1024**5:  # claude alone takes about 275 MB when idle
        value.fail("must be from 512m (claude needs that much) to 1024t")
    return size or 0


def _bytes(data: object) -> int | None:
    if isinstance(data, int) and not isinstance(data, bool):
        return data
    match = _SIZE.fullmatch(data) if isinstance(data, str) else None
    return int(float(match[1]) * _UNITS[match[2].lower()]) if match and len(match[1]) < 20 else None


def _pids(value: Value) -> int | None:
    if value.data == _NONE:
        return None
    number = value.number()
    if number is not None and not (isinstance(number, int) and 64 <= number <= 4194304):  # the kernel's pid_max at most
        value.fail("must be a whole number, from 64 (claude and its tools need some) to 4194304")
    return int(number) if number and math.isfinite(number) else 0


def _requests(value: Value) -> int | None:
    number = value.number()
    if number is None or (isinstance(number, int) and 1 <= number <= _MOST_REQUESTS):
        return number
    value.fail(f"must be a whole number, from 1 to {_MOST_REQUESTS}")
    return None


def _ca_certs(section: Value, home: Path) -> tuple[Path, ...]:
    items = section.items()
    if len(items) > _MOST_FILES:
        section.fail(f"more than {_MOST_FILES} files")
        return ()
    found = [_ca_cert(item, home) for item in items]
    return tuple(dict.fromkeys(path for path in found if path))


def _ca_cert(item: Value, home: Path) -> Path | None:
    path = file_path(item, home)
    if path is None:
        return None
    try:
        pem = files.read(path)
    except OSError as error:
        item.fail(f"{path} cannot be read: {error.strerror}")
        return None
    if b"PRIVATE KEY-----" in pem:
        item.fail(f"{path} contains a private key, which must not enter a bottle")
    elif b"-----BEGIN CERTIFICATE-----" not in pem:
        item.fail(f"{path} contains no PEM certificate")
    return path


def version_problem(text: str) -> str | None:
    """Return why `text` is no version of Claude Code, None if it is one."""
    return None if _VERSION.fullmatch(text) else "must be a version such as 2.1.331"


def _claude(section: Value) -> str | None:
    value = section.get("claude")
    text = value.text() if value else None
    if value and text is not None and (problem := version_problem(text)):
        value.fail(problem)
    return text


def _presets(section: Value) -> tuple[str, ...]:
    """Read one preset or a list; they are built in one order, so that bottles with the same ones share an image."""
    section.keys(("preset", "dockerfile", "claude"))
    if section.data == {}:
        section.fail('missing key "preset", "dockerfile" or "claude"')
    value = section.get("preset")
    items = (value.items() if isinstance(value.data, list) else (value,)) if value else ()
    found = [(item, item.text()) for item in items]
    for item, name in found:
        if name is not None and name not in PRESETS:
            item.fail(f'no preset "{name}"{nearest(name, PRESETS) or "; there are " + ", ".join(PRESETS)}')
    return tuple(sorted({name for _, name in found if name}))


def _dockerfile(section: Value, context: ManifestContext) -> Path | None:
    value = section.get("dockerfile")
    if value is None:
        return None
    path = file_path(value, context.home)
    if path is None:
        return None
    # Its folder is the build context: agents from somebody else must not be able to name the user's home as one.
    if not inside(path, context.folder):
        value.fail(f"{path} is outside {context.folder}, and its folder would go into the image")
    elif problem := file_problem(path):
        value.fail(f"{path} {problem}")
    return path
