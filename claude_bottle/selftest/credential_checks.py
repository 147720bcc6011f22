"""Judge the credential proxy: what it signs, what it trusts, what it may do; and that the bottle has no credential."""

import json
from collections.abc import Iterator

from claude_bottle.bottle import credential_proxy as container
from claude_bottle.bottle.plan import PROXY_UID, Plan
from claude_bottle.host.machine import TOKEN_SHAPE, TOKEN_VARIABLE
from claude_bottle.selftest import inspect_checks, limit_checks
from claude_bottle.selftest.evidence import Data, Evidence, Inconclusive
from claude_bottle.selftest.search import digests

_RIGHT, _WRONG = "/.claude-bottle/self-test/right", "/.claude-bottle/self-test/wrong"
_FOREIGN = {
    "Authorization": "Bearer foreign",
    "X-Api-Key": "foreign",
    "x-api-key": "foreign",
    "Cookie": "sessionKey=foreign",
    "Proxy-Authorization": "Basic Zm9yZWlnbjpmb3JlaWdu",
}
_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_EXTENSION = "X509v3 "
_NO_ADDRESS = {"IP:0.0.0.0/0.0.0.0", "IP:0:0:0:0:0:0:0:0/0:0:0:0:0:0:0:0"}  # each excluded with all behind it


def question(plan: Plan) -> dict[str, object]:
    """Return what the probe is asked to try."""
    shape, key = sought(plan)
    return {"right": _RIGHT, "wrong": _WRONG, "foreign": _FOREIGN, "shape": shape, "digest_key": key}


def sought(plan: Plan) -> tuple[str, str]:
    """Return what the bottle is searched for: a token's shape, and the key of the digests of all that has it."""
    return TOKEN_SHAPE, plan.signing.key


def signing(seen: Evidence) -> Iterator[str]:
    """The credentials that would have left, when foreign ones came."""
    status, body = seen.probe["signed"]
    if status != 200:
        yield f"the credential proxy answers {status}"
    elif json.loads(body)["digest"] != seen.plan.signing.digest:
        yield "other credentials would have left"


def upstream(seen: Evidence) -> Iterator[str]:
    """A server of the proxy's own, whose certificate nobody signed; with the right one it answers 200."""
    status, _ = seen.probe["wrong"]
    if status != 502:
        yield f"the credential proxy answers {status}"
    if seen.probe["signed"][0] != 200:
        yield "the credential proxy does not reach the server with the right certificate either"


def authority(seen: Evidence) -> Iterator[str]:
    """The constraints of the session's authority, which every client that checks them enforces."""
    count, lines = seen.probe["authority"]
    if count != 1:
        yield f"there are {count} certificates"
    found = _extensions(lines)
    if found.get("Basic Constraints: critical") != ["CA:TRUE, pathlen:0"]:
        yield "it is no authority, or may make others"
    if found.get("Key Usage: critical") != ["Certificate Sign"]:
        yield "its key is not for signing certificates alone"
    names = found.get("Name Constraints: critical", [])
    if names[:1] != ["Permitted:"] or "Excluded:" not in names:
        yield "its names are not constrained"
        return
    split = names.index("Excluded:")
    allowed, wanted = set(names[1:split]), {f"DNS:{end.name}" for end in seen.plan.ended}
    yield from (f"it may sign for {name}" for name in sorted(allowed - wanted))
    yield from (f"it may not sign for {name}" for name in sorted(wanted - allowed))
    if not _NO_ADDRESS.issubset(names[split:]):
        yield "it may sign for addresses"


def credential_proxy(seen: Evidence) -> Iterator[str]:
    """The proxy's container, and every process in it, by its own account and by the engine's."""
    config = seen.gate["HostConfig"]
    answer = json.loads(seen.probe["signed"][1])
    yield from _processes(answer["processes"])
    if seen.gate["Config"]["Image"] != seen.plan.base.tag:
        yield f"its image is {seen.gate['Config']['Image']}"
    if config["NetworkMode"] != f"container:{seen.sidecar['Id']}":
        yield f"network mode {config['NetworkMode']}"
    if not config["ReadonlyRootfs"]:
        yield "its file system is writable"
    yield from inspect_checks.confinement(seen.gate, added=container.CAPABILITIES)
    yield from (f"{mount['Type']} at {mount['Destination']}" for mount in seen.gate["Mounts"])
    places = inspect_checks.mounted(answer["mounts"])
    yield from inspect_checks.unplanned(places, (container.PLACE,))
    if not inspect_checks.read_only(places["/"]):
        yield "its file system is writable, by the kernel"
    yield from (f"{name} is in its environment" for name in filter(inspect_checks.SECRET.search, _names(seen)))
    if config["RestartPolicy"]["Name"] not in ("", "no"):
        yield f"its restart policy is {config['RestartPolicy']['Name']}"
    planned = limit_checks.of_container(container.MEMORY, container.PIDS)
    yield from limit_checks.limited(
        seen, answer["limits"], planned, "so the credentials in the proxy may be swapped out"
    )


def token(seen: Evidence) -> Iterator[str]:
    """All that has a token's shape in the bottle's processes and files, and in what the engine says of the session."""
    wanted, searches = seen.plan.signing, (seen.probe["tokens"], seen.home)
    if wanted.token in {digest for search in searches for digest in search["digests"]}:
        yield f"a process or a file of the bottle has the value of {TOKEN_VARIABLE}"
    if wanted.token in digests(*sought(seen.plan), seen.inspected):
        yield f"docker inspect shows the value of {TOKEN_VARIABLE}"
    if not wanted.shaped:
        raise Inconclusive(f"{TOKEN_VARIABLE} has another shape than a token's, so it cannot be searched for")
    if not all(search["whole"] is True for search in searches):
        raise Inconclusive("the bottle has more files than can be searched for the token in time, or too many tokens")


def _processes(found: Data) -> Iterator[str]:
    if "1" not in found or len(found) < 2:  # its first process, and nginx
        yield "its processes were not seen"
    for pid, status in found.items():
        if set(status["Uid"]) != {PROXY_UID} or set(status["Gid"].split()) != {str(PROXY_UID)}:
            yield f"process {pid} has the users {status['Uid']} and the groups {status['Gid'].split()}"
        if status["NoNewPrivs"] != "1":
            yield f"process {pid} can gain privileges"
        if status["Seccomp"] != "2":
            yield f"process {pid} has no seccomp filter"
        yield from (f"process {pid} has {key} {status[key]}" for key in _SETS if int(status[key], 16))


def _extensions(lines: list[str]) -> dict[str, list[str]]:
    """Return what OpenSSL prints below each extension of a certificate."""
    found: dict[str, list[str]] = {}
    below: list[str] = []
    for line in lines:
        if line.startswith(_EXTENSION):
            below = found[line.removeprefix(_EXTENSION)] = []
        else:
            below.append(line)
    return found


def _names(seen: Evidence) -> list[str]:
    return [text.partition("=")[0] for text in seen.gate["Config"]["Env"] or ()]
