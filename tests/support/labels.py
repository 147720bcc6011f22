"""Sessions as docker lists them by their labels."""

import json

from claude_bottle.host.owner import Owner

LIST = "ps --all --no-trunc"


def row(
    session: str, owner: Owner, role: str = "agent", agent: str = "demo", repository: str = "",
    manifest: str = "/agents/bottles/default.yaml",
) -> str:  # fmt: skip
    """Return a container as `docker ps` lists it."""
    bottle = ("default", "headless", manifest, "claude-bottle:x", repository)
    labels = map(json.dumps, (session, str(owner), role, agent, *bottle))
    return "\t".join(("2026-11-24 11:00:00 +0100 CET", *labels)) + "\n"


def objects(session: str, owner: Owner) -> str:
    """Return containers as they are listed for removal."""
    names = ((f"claude-bottle-{session}-sidecar", "sidecar"), (f"claude-bottle-{session}", "agent"))
    return "".join(f"{name}\t{session}\t{owner}\t{role}\n" for name, role in names)
