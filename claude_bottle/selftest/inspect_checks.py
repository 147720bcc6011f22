"""Judge what was really built, against the plan: from `docker inspect`, and from the kernel where it can be asked."""

import re
from collections.abc import Iterable, Iterator, Mapping

from claude_bottle.bottle import agent
from claude_bottle.bottle import key_holder as keyholder
from claude_bottle.bottle.plan import SIDECAR_UID
from claude_bottle.manifest.ssh_hosts import FOLDER
from claude_bottle.selftest import limit_checks, network_checks
from claude_bottle.selftest.evidence import Data, Evidence

# Named like a secret: API_KEY, apikey, DB_PASSWORD, GH_PAT; not KEYBOARD, PATH, MAX_TOKENS or TOKENIZERS_PARALLELISM.
SECRET = re.compile(
    r"(TOKEN|SECRETS?|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|API_?KEYS?|(^|_)KEYS?|_PWD|(^|_)PAT)(_|\d|$)",
    re.IGNORECASE,
)
# With these an image could have code of its own run in the launcher's programs: by every program's loader, by bash,
# Python, git or tar. Those that `container.clean` takes away are here as well: whoever sets them is after something.
LOADS_CODE = re.compile(
    r"(LD_.*|GCONV_PATH|BASH_ENV|ENV|BASH_FUNC_.*|SHELLOPTS|BASHOPTS|OPENSSL_(ENGINES|MODULES)|TAR_OPTIONS|"
    r"PYTHON(PATH|HOME|STARTUP|USERBASE|PLATLIBDIR|EXECUTABLE|PYCACHEPREFIX)|"
    r"GIT_(EXEC_PATH|TEMPLATE_DIR|CONFIG.*|DIR|EXTERNAL_DIFF))$"
)
_UNSHARED = {"PidMode": (), "UTSMode": (), "UsernsMode": (), "IpcMode": ("private", "shareable", "none")}
_ADDED = ("Devices", "DeviceRequests", "DeviceCgroupRules", "GroupAdd", "Links", "VolumesFrom")


# What the engine mounts in every container; device nodes, which are mounts if users are mapped; its init, in one.
_MOUNTS = re.compile(
    r"/|/(proc|sys)(/.*)?|/etc/(resolv\.conf|hostname|hosts)|(/usr)?/sbin/docker-init|"
    r"/dev(/[^/]+)?"
)
_DEVICES = frozenset(
    (
        "core",
        "fd",
        "full",
        "mqueue",
        "null",
        "ptmx",
        "pts",
        "random",
        "shm",
        "stderr",
        "stdin",
        "stdout",
        "tty",
        "urandom",
    )
) | {"zero"}
# The numbers of a machine's first ones (linux/proc_ns.h). An engine that is itself in others gives a container its own:
# there only `docker inspect` says so.
_INITIAL = ("ipc:[4026531839]", "uts:[4026531838]")


def secrets(seen: Evidence) -> Iterator[str]:
    """Names in both containers' configuration and in the environment of every process."""
    for role, container in (("bottle", seen.bottle), ("sidecar", seen.sidecar)):
        for name in filter(SECRET.search, _variables(container)):
            yield f"docker inspect shows {name} of the {role}"
    for pid, status in seen.processes.items():
        for name in filter(SECRET.search, status.get("names", ())):
            yield f"process {pid} has {name}"


def environment(seen: Evidence) -> Iterator[str]:
    """The bottle's variables: the image's and the planned ones, by value, which may be a secret and is not printed."""
    words = (*agent.proxy_variables(seen.plan), *keyholder.variables(seen.plan), *agent.trust_variables())
    planned = _pairs(word for word in words if "=" in word)
    wanted, found = _variables(seen.image) | planned, _variables(seen.bottle)
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            verb = "is missing" if name not in found else "differs" if name in wanted else "was not planned"
            yield f"{name} {verb}"
    first = set(seen.processes["1"]["names"])  # the kernel's account; docker itself sets the last ones
    yield from (
        f"process 1 has {name}" for name in sorted(first - wanted.keys() - {"HOME", "HOSTNAME", "PATH", "TERM"})
    )
    given = _variables(seen.base)
    for name, value in _variables(seen.image).items():
        if LOADS_CODE.match(name) and given.get(name) != value:
            yield f"the image sets {name}, with which code of its own is loaded into other programs"


def network(seen: Evidence) -> Iterator[str]:
    """One network, the planned one, and no way in."""
    mode, joined = seen.bottle["HostConfig"]["NetworkMode"], seen.bottle["NetworkSettings"]["Networks"]
    if mode != seen.plan.name:
        yield f"network mode {mode}"
    yield from (f"also on network {name}" for name in joined if name != seen.plan.name)
    if joined[seen.plan.name]["IPAddress"] != str(seen.plan.bottle_address):
        yield f"address {joined[seen.plan.name]['IPAddress']}"
    for address in set(seen.probe["addresses"]) ^ {str(seen.plan.bottle_address)}:
        yield f"address {address}, by the kernel"
    yield from (f"port {port} is published" for port in seen.bottle["HostConfig"]["PortBindings"] or ())


def mounts(seen: Evidence) -> Iterator[str]:
    """Binds, volumes and other mounts of the bottle; one may be there, for the key-holder's socket."""
    planned = _socket(seen, writable=False) if seen.plan.keys else None
    found = [_mount(mount) for mount in seen.bottle["Mounts"]]
    yield from (f"{kind} at {place}" for kind, _, place, _ in (mount for mount in found if mount != planned))
    if planned and planned not in found:
        yield f"the key-holder's socket is not mounted at {FOLDER}, read-only"
    yield from (f"tmpfs at {path}" for path in seen.bottle["HostConfig"].get("Tmpfs") or ())
    places = mounted(seen.probe["mounts"])
    yield from unplanned(places, (FOLDER,) if planned else ())
    if planned and not read_only(places.get(FOLDER, "")):
        yield f"{FOLDER} is writable, by the kernel"


def privileges(seen: Evidence) -> Iterator[str]:
    """What `docker run` can add to the bottle."""
    yield from confinement(seen.bottle)
    yield from (f"the device {name} is there" for name in seen.probe["devices"] if name not in _DEVICES)
    yield from (
        f"the {name} namespace is the host's" for name, at in seen.probe["namespaces"].items() if at in _INITIAL
    )
    for pid, status in seen.processes.items():
        yield from (f"process {pid} is in group {group}" for group in set(status["Groups"]) - set(status["Gid"]))
    mode = seen.bottle["HostConfig"].get("CgroupnsMode")
    if mode == "host" and seen.probe["cgroup2"]:  # version 1 has no other default
        yield "CgroupnsMode is host"


def restart(seen: Evidence) -> Iterator[str]:
    """The restart policies; lock and gate are gone after a restart."""
    for role, container in (("bottle", seen.bottle), ("sidecar", seen.sidecar)):
        policy = container["HostConfig"]["RestartPolicy"]["Name"]
        if policy not in ("", "no"):
            yield f"the {role}'s policy is {policy}"


def sidecar(seen: Evidence) -> Iterator[str]:
    """The sidecar's own flags."""
    yield from confinement(seen.sidecar)
    if not seen.sidecar["HostConfig"]["ReadonlyRootfs"]:
        yield "its file system is writable"
    if seen.sidecar["Config"]["User"] != f"{SIDECAR_UID}:{SIDECAR_UID}":
        yield f"it runs as {seen.sidecar['Config']['User'] or 'root'}"
    wanted = {seen.plan.name, seen.plan.egress.name}
    yield from (f"also on network {name}" for name in seen.sidecar["NetworkSettings"]["Networks"].keys() - wanted)
    yield from (f"{mount['Type']} at {mount['Destination']}" for mount in _foreign(seen.sidecar["Mounts"]))


def key_holder(seen: Evidence) -> Iterator[str]:
    """What has the ssh keys: no network, no writable file system, no swap, nothing mounted but its socket."""
    config = seen.key_holder["HostConfig"]
    yield from confinement(seen.key_holder)
    yield from (f"on network {name}" for name in seen.key_holder["NetworkSettings"]["Networks"] if name != "none")
    if config["NetworkMode"] != "none":
        yield f"network mode {config['NetworkMode']}"
    if not config["ReadonlyRootfs"]:
        yield "its file system is writable"
    if seen.key_holder["Config"]["User"] != keyholder.USER:
        yield f"it runs as {seen.key_holder['Config']['User'] or 'root'}"
    found = [_mount(mount) for mount in seen.key_holder["Mounts"]]
    yield from (f"{kind} at {place}" for kind, _, place, _ in found if (kind, place) != ("volume", FOLDER))
    if _socket(seen, writable=True) not in found:
        yield "its socket is not in the session's volume"
    if config["RestartPolicy"]["Name"] not in ("", "no"):
        yield f"its restart policy is {config['RestartPolicy']['Name']}"
    if config["LogConfig"]["Type"] != "none":
        yield f"its log driver is {config['LogConfig']['Type']}"
    yield from (f"{name} is in its environment" for name in filter(SECRET.search, _variables(seen.key_holder)))
    yield from _within_key_holder(seen.holder)
    planned = limit_checks.of_container(keyholder.MEMORY, keyholder.PIDS)
    unless = "so the ssh keys in the key-holder may be swapped out"
    yield from limit_checks.limited(seen, seen.holder, planned, unless)


def _within_key_holder(files: Mapping[str, str]) -> Iterator[str]:
    """Yield what the kernel says otherwise of the key-holder's first process."""
    status = {key: value.split() for key, _, value in (line.partition(":") for line in files["status"].splitlines())}
    yield from (f"it has {key} {status[key][0]}" for key in network_checks.CAPABILITIES if int(status[key][0], 16))
    if {f"{user}:{group}" for user, group in zip(status["Uid"], status["Gid"], strict=True)} != {keyholder.USER}:
        yield f"its users are {', '.join(status['Uid'])}, by the kernel"
    if status["NoNewPrivs"] != ["1"]:
        yield "it can gain privileges"
    if status["Seccomp"] != ["2"]:
        yield "it has no seccomp filter"
    ways = [line.split()[0] for line in files["route"].splitlines()[1:]]
    ways += [line.split()[-1] for line in files.get("if_inet6", "").splitlines() if line.split()[-1] != "lo"]
    yield from (f"it has an address on {name}" for name in dict.fromkeys(ways))
    places = mounted(files["mountinfo"])
    if FOLDER not in places:
        yield "its mounts were not seen"
    yield from unplanned(places, (FOLDER, "/tmp"))  # noqa: S108  (a tmpfs of its own)
    if not read_only(places["/"]):
        yield "its file system is writable, by the kernel"


def mounted(text: str) -> dict[str, str]:
    """Return the options of each mount of a mountinfo, by its place."""
    return {words[4]: words[5] for words in map(str.split, text.splitlines())}


def unplanned(places: Iterable[str], planned: Iterable[str]) -> Iterator[str]:
    """Yield the mounts that are neither the engine's own nor planned."""
    for place in places:
        if not (_MOUNTS.fullmatch(place) or place in planned):
            yield f"a mount at {place}, by the kernel"


def read_only(options: str) -> bool:
    """Return whether a mount's options have it read-only."""
    return "ro" in options.split(",")


def _socket(seen: Evidence, *, writable: bool) -> tuple[str, str, str, bool | None]:
    return ("volume", seen.plan.key_volume, FOLDER, writable)


def _mount(mount: Data) -> tuple[str, str, str, bool | None]:
    return (mount["Type"], mount.get("Name", ""), mount["Destination"], mount.get("RW"))


def confinement(container: Data, added: Iterable[str] = ()) -> Iterator[str]:
    """Yield what a container's flags give it beyond the planned, `added` being the capabilities that it has."""
    config = container["HostConfig"]
    if config["Privileged"]:
        yield "it is privileged"
    if config["CapDrop"] != ["ALL"]:
        yield f"CapDrop is {config['CapDrop']}"
    if [option.removesuffix(":true") for option in config["SecurityOpt"] or ()] != ["no-new-privileges"]:
        yield f"SecurityOpt is {config['SecurityOpt']}"
    yield from (f"{key} is {config[key]}" for key in _ADDED if config.get(key))
    if sorted(name.removeprefix("CAP_") for name in config.get("CapAdd") or ()) != sorted(added):
        yield f"CapAdd is {config['CapAdd']}"
    yield from (f"{key} is {config[key]}" for key, usual in _UNSHARED.items() if config[key] not in ("", *usual))


def _foreign(mounts: Data) -> list[Data]:
    return [mount for mount in mounts if (mount["Type"], mount["Destination"]) != ("volume", "/config")]


def _variables(thing: Data) -> dict[str, str]:
    return _pairs(thing["Config"]["Env"] or ())


def _pairs(texts: Iterable[str]) -> dict[str, str]:
    return {name: value for name, _, value in (text.partition("=") for text in texts)}
