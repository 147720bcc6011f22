"""Judge the credential proxy: what it signs, what it trusts, what it may do; and that the bottle has no credential."""

import json
from collections.abc import Iterator

from claude_bottle.bottle import credential_proxy as container
from claude_bottle.bottle.plan import PROXY_UID, Plan
from claude_bottle.egress.allowlist import API, Host
from claude_bottle.egress.credential_proxy import REQUESTS, SELF_TEST, Signed
from claude_bottle.host.machine import TOKEN_SHAPE, TOKEN_VARIABLE
from claude_bottle.selftest import inspect_checks, limit_checks
from claude_bottle.selftest.evidence import Data, Evidence, Inconclusive
from claude_bottle.selftest.search import digests

RIGHT, WRONG = f"GET {SELF_TEST}/right", f"GET {SELF_TEST}/wrong"
_FOREIGN = {
    "Authorization": "Bearer foreign",
    "X-Api-Key": "foreign",
    "x-api-key": "foreign",
    "Cookie": "sessionKey=foreign",
    "Proxy-Authorization": "Basic Zm9yZWlnbjpmb3JlaWdu",
    **dict.fromkeys(("Private-Token", "X-Consumer-Key", "X-Credential", "X-Jwt", "X-Password"), "foreign"),
    **dict.fromkeys(("X-Secret", "X-Signature"), "foreign"),
}
_OVERRIDES = {"X-HTTP-Method-Override": "DELETE", "X-Original-URL": "/"}  # of the method and path that were judged
_ELSEWHERE = "/.claude-bottle/elsewhere"
_CLIMB = "%2e%2e/"  # which a server could read as "../"
_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_EXTENSION = "X509v3 "
_NO_ADDRESS = {"IP:0.0.0.0/0.0.0.0", "IP:0:0:0:0:0:0:0:0/0:0:0:0:0:0:0:0"}  # each excluded with all behind it


def question(plan: Plan) -> dict[str, Data]:
    """Return what the probe is asked to try."""
    shape, key = sought(plan)
    return {"signed": [_asked(host) for host in signed(plan)], "shape": shape, "digest_key": key}


def sought(plan: Plan) -> tuple[str, str]:
    """Return what the bottle is searched for: a token's shape, and the key of the digests of all that has it."""
    return TOKEN_SHAPE, plan.signing.key


def signed(plan: Plan) -> Iterator[Signed]:
    """Yield every host with a credential, with the names of its headers, but without their values."""
    bottle = plan.agent.bottle
    if not plan.ended:
        return
    paths = (*(path for _, path, _ in REQUESTS[API]), *(path for _, path in bottle.api.paths))
    yield Signed(Host(API), {"Authorization": ""}, paths=paths)
    for each in bottle.credentials:
        yield Signed(each.host, {header.name: "" for header in each.headers}, each.methods, each.paths)


def forbidden(host: Signed) -> Iterator[str]:
    """Yield requests, each a method and a path, that the manifest's `methods` and `paths` do not allow at a host."""
    method, path = next(iter(host.methods), "GET"), next(iter(host.paths), "/")
    if host.methods:
        other = (each for each in ("DELETE", "POST", "GET") if each not in host.methods)
        yield f"{next(other, max(host.methods) + 'X')} {path}"
    if host.paths:
        prefixes = tuple(each for each in host.paths if each.endswith("/"))
        yield f"{method} {prefixes[0] if prefixes else path + '/'}{_CLIMB}"
        if not _ELSEWHERE.startswith(prefixes) and _ELSEWHERE not in host.paths:
            yield f"{method} {_ELSEWHERE}"


def signing(seen: Evidence) -> Iterator[str]:
    """What would have left for each host when foreign credentials came, and what of it the manifest forbids."""
    for host, key, answers in _answered(seen):
        status, body = answers[RIGHT]
        if status != 200:
            yield f"the credential proxy answers {status} for {key}"
        elif json.loads(body)["digest"] != seen.plan.signing.digests[key]:
            yield f"other credentials would have left for {key}"
        for request in forbidden(host):
            status, _ = answers[_judged(request)]
            if status != (400 if key == API else 403):
                yield f"the credential proxy answers {status} to a forbidden {request} for {key}"


def upstream(seen: Evidence) -> Iterator[str]:
    """A server of the proxy's own, whose certificate nobody signed; with the right one it answers 200."""
    for _, key, answers in _answered(seen):
        status, _ = answers[WRONG]
        if status != 502:
            yield f"the credential proxy answers {status} for {key}"
        if answers[RIGHT][0] != 200:
            yield f"the credential proxy does not reach the server with the right certificate for {key} either"


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
    answer = json.loads(seen.probe["signed"][API][RIGHT][1])
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


def _answered(seen: Evidence) -> Iterator[tuple[Signed, str, Data]]:
    """Yield each host with a credential, its name, and what the proxy has answered there, by request."""
    for host in signed(seen.plan):
        yield host, str(host.host), seen.probe["signed"][str(host.host)]


def _asked(host: Signed) -> tuple[str, str, int, dict[str, str], list[str]]:
    """Return what the probe asks at a host: its key, name and port, the headers, and the requests."""
    sent = {**_FOREIGN, **(_OVERRIDES if host.methods or host.paths else {})}
    known = {name.lower() for name in sent}
    # Some servers read a "_" as a "-".
    own = (spelled for name in host.headers for spelled in dict.fromkeys((name, name.replace("_", "-"))))
    sent |= {name: "foreign" for name in own if name.lower() not in known}
    requests = [RIGHT, WRONG, *map(_judged, forbidden(host))]
    return str(host.host), host.host.name, host.host.port, sent, requests


def _judged(request: str) -> str:
    """Return the request by which the self-test judges another one, a method and a path, as if it were to leave."""
    method, _, path = request.partition(" ")
    return f"{method} {SELF_TEST}/right?{path}"


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
