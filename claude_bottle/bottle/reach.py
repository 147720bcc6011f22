"""What a bottle may reach, as a file for its agent, which then does not retry what cannot work. Pure.

The bottle's copy is the agent's own to change, and is never read again. The sidecar's, which the agent cannot change,
is what `allow` widens and `why` reads.
"""

import json
from collections.abc import Iterable

from claude_bottle.egress import allowlist
from claude_bottle.egress.allowlist import Host
from claude_bottle.host import installation
from claude_bottle.manifest.bottle import Bottle

FILE = "reach.json"
_ABOUT = "What this bottle can reach: each port on each host, nothing else. Editing this file changes nothing."


def reach(session: str, bottle: Bottle) -> bytes:
    """Return the file for a session's start; it holds no secret, and of this machine only names of variables."""
    limits = bottle.limits
    return _bytes(
        {
            "about": _ABOUT,
            "to_allow_more": f"The user runs: {allowing(session)}",
            "hosts": list(allowlist.allowlist(bottle.reach)),
            "ports": list(allowlist.ports(bottle.reach)),
            "allowed_since_the_start": [],
            "ssh": [{"name": h.alias, "host": h.host, "port": h.port, "user": h.user} for h in bottle.ssh],
            "credentials_set_outside": [
                {
                    "host": str(each.host),
                    "from": list(each.sources),
                    "methods": list(each.methods) or "all",
                    "paths": list(each.paths) or "all",
                }
                for each in bottle.credentials
            ],
            "limits": {
                "cpus": limits.cpus,
                "memory_bytes": limits.memory,
                "processes": limits.pids,
                "messages_to_the_api": limits.requests,
                "seconds": limits.time,  # from the start, which is the age of this file
            },
        }
    )


def memory(session: str) -> str:
    """Return the lines of Claude's memory that point to the file."""
    return (
        f"- This bottle reaches only the hosts and ports in ~/.claude-bottle/{FILE}; do not retry any other.\n"
        f"- If the work needs another host, ask the user to run `{allowing(session)}` on their machine.\n"
    )


def allowing(session: str, host: str = "HOST") -> str:
    """Return the command that allows a host while a session runs."""
    return installation.command(f"allow {session} {host}")


def widened(data: bytes, names: Iterable[str], hosts: Iterable[Host]) -> bytes:
    """Return the file with all `names` that the sidecar lets through now, and `hosts` as allowed since the start.

    Raises ValueError if `data` is no such file.
    """
    found = _parsed(data)
    before, opened = _texts(found, "hosts"), _ports(found)
    new = [host for host in hosts if host.name not in before or host.port not in opened]
    since = dict.fromkeys((*_texts(found, "allowed_since_the_start"), *map(str, new)))
    ports = sorted({*opened, *(host.port for host in new)})
    return _bytes(found | {"hosts": sorted(names), "ports": ports, "allowed_since_the_start": list(since)})


def state(data: bytes) -> tuple[tuple[int, ...], tuple[Host, ...]]:
    """Return the open ports and what was allowed since the start; neither if `data` is no such file."""
    try:
        found = _parsed(data)
        return _ports(found), tuple(map(allowlist.parse_host, _texts(found, "allowed_since_the_start")))
    except ValueError:
        return (), ()


def _parsed(data: bytes) -> dict[str, object]:
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004  (of the file, not of a call)
    return found


def _ports(found: dict[str, object]) -> tuple[int, ...]:
    ports = found.get("ports")
    return tuple(port for port in ports if isinstance(port, int)) if isinstance(ports, list) else ()


def _texts(found: dict[str, object], key: str) -> tuple[str, ...]:
    texts = found.get(key)
    return tuple(text for text in texts if isinstance(text, str)) if isinstance(texts, list) else ()


def _bytes(value: object) -> bytes:
    return f"{json.dumps(value, indent=2)}\n".encode()
