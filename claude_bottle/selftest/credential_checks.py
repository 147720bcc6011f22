"""Judge the credential proxy: what it signs, what it trusts, what it may do; and that the bottle has no credential."""

import json
from collections.abc import Iterator

from claude_bottle.bottle import credential_proxy as container
from claude_bottle.bottle.plan import PROXY_UID, TOKEN, Plan
from claude_bottle.selftest import inspect_checks
from claude_bottle.selftest.evidence import Evidence

_RIGHT, _WRONG = "/.claude-bottle/self-test/right", "/.claude-bottle/self-test/wrong"
_FOREIGN = {
    "Authorization": "Bearer foreign",
    "X-Api-Key": "foreign",
    "x-api-key": "foreign",
    "Cookie": "sessionKey=foreign",
    "Proxy-Authorization": "Basic Zm9yZWlnbjpmb3JlaWdu",
}
_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def question(plan: Plan) -> dict[str, object]:
    """Return what the probe is asked to try."""
    return {"right": _RIGHT, "wrong": _WRONG, "foreign": _FOREIGN, "digest_key": plan.signing.key}


def signing(seen: Evidence) -> Iterator[str]:
    """The credentials that would have left, when foreign ones came."""
    status, body = seen.probe["signed"]
    if status != 200:
        yield f"the credential proxy answers {status}"
    elif json.loads(body)["digest"] != seen.plan.signing.digest:
        yield "other credentials would have left"


def upstream(seen: Evidence) -> Iterator[str]:
    """A server of the proxy's own, whose certificate nobody signed."""
    status, _ = seen.probe["wrong"]
    if status != 502:
        yield f"the credential proxy answers {status}"


def authority(seen: Evidence) -> Iterator[str]:
    """The constraints of the session's authority, which every client that checks them enforces."""
    lines = seen.probe["authority"]
    if "X509v3 Name Constraints: critical" not in lines:
        yield "its names are not constrained"
    if "CA:TRUE, pathlen:0" not in lines:
        yield "it is no authority, or may make others"
    allowed = {line.removeprefix("DNS:") for line in lines if line.startswith("DNS:")}
    yield from (f"it may sign for {name}" for name in sorted(allowed - {end.name for end in seen.plan.ended}))


def credential_proxy(seen: Evidence) -> Iterator[str]:
    """The proxy's container, and every process in it, by its own account and by the engine's."""
    config = seen.gate["HostConfig"]
    for pid, status in json.loads(seen.probe["signed"][1])["processes"].items():
        if set(status["Uid"]) != {PROXY_UID}:
            yield f"process {pid} has the users {status['Uid']}"
        if status["NoNewPrivs"] != "1":
            yield f"process {pid} can gain privileges"
        yield from (f"process {pid} has {key} {status[key]}" for key in _SETS if int(status[key], 16))
    if config["NetworkMode"] != f"container:{seen.sidecar['Id']}":
        yield f"network mode {config['NetworkMode']}"
    if not config["ReadonlyRootfs"]:
        yield "its file system is writable"
    yield from inspect_checks.confinement(seen.gate, added=container.CAPABILITIES)
    yield from (f"{mount['Type']} at {mount['Destination']}" for mount in seen.gate["Mounts"])
    yield from (f"{name} is in its environment" for name in filter(inspect_checks.SECRET.search, _names(seen)))
    if config["RestartPolicy"]["Name"] not in ("", "no"):
        yield f"its restart policy is {config['RestartPolicy']['Name']}"
    unless = "so the credentials in the proxy may be swapped out"
    yield from inspect_checks.limited(seen.gate, {}, container.MEMORY, unless)


def token(seen: Evidence) -> Iterator[str]:
    """All that has a token's shape in the bottle's processes and files, and what the launcher put there."""
    if seen.plan.signing.token in seen.probe["tokens"]:
        yield f"a process or a file of the bottle has the value of {TOKEN}"


def _names(seen: Evidence) -> list[str]:
    return [text.partition("=")[0] for text in seen.gate["Config"]["Env"] or ()]
