"""Check this machine for problems: docker, images, token, kernel, leftovers, addresses."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import collapse_addresses
from typing import Any

from claude_bottle import PREFIX
from claude_bottle.bottle import docker_flags, firewall
from claude_bottle.bottle import plan as plans
from claude_bottle.bottle.image import Image
from claude_bottle.bottle.plan import slots
from claude_bottle.cleanup import orphans
from claude_bottle.commands import history
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.egress import allowlist
from claude_bottle.errors import BottleError
from claude_bottle.host import installation
from claude_bottle.host.machine import TOKEN_VARIABLE, Machine
from claude_bottle.process.engine import DEBUG_LOG, Engine
from claude_bottle.session import engines, planning, token_store

_DNS_FIXED = ((23, 0, 11), (25, 0, 5), (26, 0, 0))  # CVE-2024-29018; nothing of 24.0 has it
# By the engine's default seccomp profile: socket(2) from 23.0 on, io_uring from 25.0 on, never the socketcall(2) of
# 32-bit programs. No rule of nftables sees such a socket.
_VSOCK_BLOCKED = (25, 0, 0)
# What of `docker info` must be true of each limit of a bottle.
_LIMITED_BY = {"memory": ("MemoryLimit",), "pids": ("PidsLimit",), "cpus": ("CpuCfsPeriod", "CpuCfsQuota")}
_NO_APPARMOR = "not used by this engine; no promise needs it"
_USERS = {
    "rootless": "rootless: root in a container is a user without rights here",
    "userns": "mapped: root in a container is a user without rights here",
}
_NOT_MAPPED = "not mapped: the numbers of a container's users are those of this machine"
_GATEWAY_MODES = (28, 0, 0)  # gateway_mode_ipv4=isolated; older engines accept and ignore it


@dataclass(frozen=True)
class Finding:
    """The result of one check: a `fault` keeps sessions from starting, `open` means that a bottle leaks."""

    name: str
    detail: str
    fault: bool = False
    open: bool = False

    @property
    def line(self) -> str:
        """Return the finding as one line."""
        return f"{'FAULT' if self.fault else 'open' if self.open else 'ok':<6} {self.name:<15} {self.detail}"


def examine(machine: Machine) -> Iterator[Finding]:
    """Yield findings in the order in which a start would meet them; nothing is changed or built."""
    yield _token(machine)
    if kept := history.summary(machine):
        yield Finding("kept sessions", kept)
    places = engines.every(machine)
    if len(places) == 1:
        yield from _engine(machine)
        return
    for place, why in engines.probed(places):
        yield Finding(
            "engine",
            escape_control_chars(f"{place.engine} does not answer: {why}" if why else place.engine),
            fault=bool(why),
        )
        if not why:
            yield from _engine(place)


def _engine(machine: Machine) -> Iterator[Finding]:
    """Yield what is found of one engine."""
    engine = Engine(planning.client_environment(machine))
    try:
        versions = engine.versions()
        yield Finding("docker client", versions.client)
        where = "on this machine" if engine.endpoint().is_here else "remote"
        yield Finding("docker engine", f"{versions.engine}, {where}")
        yield from _peculiarities(versions.engine)
        yield from _abilities(engine.info())
        yield from _asked(machine, engine)
        yield _subnets(machine, engine)
        yield _leftovers(machine)
    except BottleError as error:
        yield Finding("docker", str(error), fault=True)


def _token(machine: Machine) -> Finding:
    if machine.token_problem:
        return Finding("token", machine.token_problem, fault=True)
    if machine.has_token:
        return Finding("token", f"{TOKEN_VARIABLE} is set")
    if place := token_store.recorded(machine):
        return Finding("token", f"in {place.title}, since {installation.command('login')}")
    return Finding("token", token_store.NO_TOKEN, fault=True)


def _peculiarities(engine: str) -> Iterator[Finding]:
    version = _numbers(engine)
    affected = not any(version[0] == fixed[0] and version >= fixed for fixed in _DNS_FIXED) and version < _DNS_FIXED[-1]
    cve = (
        "affected: an --internal network leaks DNS queries; the bottle's --dns and lock prevent it"
        if affected
        else "fixed"
    )
    yield Finding("CVE-2024-29018", cve)
    leak = f"in a virtual machine, {engine} lets a bottle open sockets to the hypervisor; 25.0 and newer block that"
    blocked = version >= _VSOCK_BLOCKED
    yield Finding("AF_VSOCK", "blocked for 64-bit programs" if blocked else leak, open=not blocked)
    known = (
        "supported"
        if version >= _GATEWAY_MODES
        else "not supported: inhibit_ipv4 keeps the gateway's address off the host"
    )
    yield Finding("gateway modes", known)


def _abilities(info: Mapping[str, Any]) -> Iterator[Finding]:
    """Say what this engine cannot promise, by its own account; the self-test of each start looks at what is."""
    options = [dict(_pair(word) for word in str(each).split(",")) for each in info.get("SecurityOptions") or ()]
    security = {option.get("name", ""): option for option in options}
    cgroups = f"version {info.get('CgroupVersion') or 1}, driver {info.get('CgroupDriver') or 'unknown'}"
    missing = [key for key, names in _LIMITED_BY.items() if not all(info.get(name) for name in names)]
    if missing:
        cause = "rootless engines need cgroup v2 and systemd" if "rootless" in security else "its kernel lacks them"
        without = ", ".join(f"{key}: none" for key in missing)
        told = f"cannot be enforced: {', '.join(missing)} ({cgroups}; {cause}); limits: {{{without}}} does without"
    yield Finding("limits", told if missing else f"enforced ({cgroups})", fault=bool(missing))
    if "memory" not in missing:
        swap = bool(info.get("SwapLimit"))
        unlimited = "not limited: secrets may be swapped out; switch swap off, or boot with swapaccount=1"
        yield Finding("swap", "limited" if swap else unlimited, open=not swap)
    yield _seccomp(security.get("seccomp"))
    yield Finding("apparmor", "a second guard of each container" if "apparmor" in security else _NO_APPARMOR)
    yield Finding("users", next((text for name, text in _USERS.items() if name in security), _NOT_MAPPED))


def _pair(word: str) -> tuple[str, str]:
    key, _, value = word.partition("=")
    return key, value


def _seccomp(option: Mapping[str, str] | None) -> Finding:
    profile = option.get("profile", "default") if option else "unconfined"
    if profile == "unconfined":
        return Finding("seccomp", "off: no bottle starts without; use an engine with its default profile", fault=True)
    own = profile not in ("default", "builtin")
    told = f"{escape_control_chars(profile)} is not the engine's own profile: a bottle may do what that allows"
    return Finding("seccomp", told if own else "the engine's own profile", open=own)


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split("+", maxsplit=1)[0].split("-", maxsplit=1)[0].split(".")
    return tuple(int(part) if part.isdigit() else 0 for part in parts)


def _asked(machine: Machine, engine: Engine) -> Iterator[Finding]:
    base, *_ = planning.images(machine)
    sidecar = machine.setting("PIPELOCK_IMAGE") or allowlist.image()
    facts = engine.facts((base.tag, sidecar))
    yield Finding("debug log", DEBUG_LOG if facts.debug else "off: the engine logs no secret", open=facts.debug)
    there, claude = base.tag in facts.present, facts.claude.get(base.tag, "of an unknown version")
    yield Finding("image", f"{base.tag}, {f'Claude Code {claude}' if there else 'built by the first start'}")
    pulled = sidecar in facts.present
    yield Finding("sidecar image", f"{sidecar}, {'present' if pulled else 'pulled by the first start'}")
    yield _nf_tables(machine, engine, base) if there else Finding("nf_tables", "not checked: this needs the image")


def _nf_tables(machine: Machine, engine: Engine, image: Image) -> Finding:
    # With an owner, so that cleanup finds it should this process be killed; without a session, which it is not.
    name = f"{PREFIX}-doctor-{machine.owner.pid}"
    rules = firewall.trial()
    argv = docker_flags.nft(name, "none", image.tag, docker_flags.owner_labels("", "doctor", machine.owner), rules)
    result = engine.ask(*argv[1:], stdin=rules)
    detail = "supported by the engine's kernel" if result.ok else f"nft fails on the engine's kernel: {result.reason}"
    return Finding("nf_tables", detail, fault=not result.ok)


def _subnets(machine: Machine, engine: Engine) -> Finding:
    if chosen := machine.setting("EGRESS_NETWORK"):
        engine.egress(chosen)
    addresses = plans.address_range(machine)
    kept = plans.reserved(addresses)
    # Each network takes the /29s that it touches; what stands in another is counted once.
    touched = [net.supernet(new_prefix=29) if net.prefixlen > 29 else net for net in engine.subnets()]
    taken = collapse_addresses(net for net in (*touched, *kept) if net.overlaps(addresses))
    every = slots(addresses) - sum(map(slots, kept))
    free = slots(addresses) - sum(min(slots(net), slots(addresses)) for net in taken)
    return Finding("subnets", f"{free} of {every} in {addresses} are free", fault=free == 0)


def _leftovers(machine: Machine) -> Finding:
    env = planning.client_environment(machine)
    found = (*orphans.listed(env), *orphans.stage_dirs(env))
    dead = orphans.dead(env, found, machine.owner)
    detail = (
        f"{len(dead)} objects of dead sessions; remove them with {installation.command('cleanup')}" if dead else "none"
    )
    return Finding("leftovers", detail)
