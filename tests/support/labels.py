"""Sessions as docker lists them by their labels."""

import json

from claude_bottle.host.owner import Owner
from claude_bottle.host.proof import proof

LIST = "ps --all --no-trunc"
KEY = b"a key of a test's own, 32 bytes."
MANIFEST = "/agents/bottles/default.yaml"


def row(
    session: str,
    owner: Owner,
    role: str = "agent",
    agent: str = "demo",
    repository: str = "",
    *,
    manifest: str = MANIFEST,
    key: bytes = KEY,
    signs: str = "",
    time: str = "",
    called: str = "",
) -> str:
    """Return a container as `docker ps` lists it, with the proof that `key` makes."""
    name = f"claude-bottle-{session}{'' if role == 'agent' else f'-{role}'}"
    proven = proof(key, session, role, name, str(owner), repository, manifest)
    bottle = ("default", "headless", manifest, "claude-bottle:x", repository)
    labels = map(json.dumps, (session, str(owner), agent, *bottle, signs, time, called, proven, role, name))
    return "\t".join(("2026-11-24 11:00:00 +0100 CET", *labels)) + "\n"


def listed(name: str, session: str, owner: object, role: str) -> str:
    """Return an object as it is listed for removal."""
    return "\t".join(map(json.dumps, (name, session, str(owner), role))) + "\n"


def objects(session: str, owner: Owner) -> str:
    """Return containers as they are listed for removal."""
    names = ((f"claude-bottle-{session}-sidecar", "sidecar"), (f"claude-bottle-{session}", "agent"))
    return "".join(listed(name, session, owner, role) for name, role in names)
