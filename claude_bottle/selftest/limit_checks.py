"""Judge the limits in force, from the files of a container's cgroup, against the planned ones."""

import math
from collections.abc import Iterator, Mapping

from claude_bottle.host import installation
from claude_bottle.manifest.bottle import Limits
from claude_bottle.selftest.evidence import Evidence, Inconclusive

_NAMES = {"memory": "memory", "pids": "processes", "cpus": "cpus"}
_FILES = (
    *("memory.max", "memory.swap.max", "pids.max", "cpu.max"),  # of version 2
    *("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "cpu.cfs_quota_us", "cpu.cfs_period_us"),
)
_UNLIMITED = 1 << 62  # version 1 says the largest number of whole pages


def limits(seen: Evidence) -> Iterator[str]:
    """The bottle's limits, as the manifest has them."""
    planned = seen.plan.agent.bottle.limits
    if set(seen.probe["core"]) != {"0"}:
        yield f"core dumps: limited to {' and '.join(seen.probe['core'])} bytes, not switched off"
    yield from limited(seen, seen.probe["limits"], planned, "so the bottle may use more memory than planned")


def of_container(memory: int, pids: int) -> Limits:
    """Return the limits of a container that is not the bottle: `memory` in bytes, swap included, and processes."""
    return Limits(cpus=math.inf, memory=memory, pids=pids)


def limited(seen: Evidence, files: Mapping[str, str], planned: Limits, unless: str) -> Iterator[str]:
    """Yield the limits in force, by a cgroup's files, that are larger than planned or cannot be read.

    Raises Inconclusive for those that the bottle's manifest does without, and, with `unless`, if swap is not limited.
    """
    force, given_up = _in_force(files), seen.plan.agent.bottle.unlimited
    wanted = {key: limit for key in _NAMES if (limit := getattr(planned, key)) is not None}
    over = [key for key, limit in wanted.items() if force.get(key, math.inf) > _rounded(limit)]
    wrong = [key for key in over if key not in given_up]
    yield from (_told(_NAMES[key], force.get(key), wanted[key]) for key in wrong)
    if missing := [f"{key}: none" for key in wrong if force.get(key, math.inf) == math.inf]:
        yield f"see {installation.command('doctor')}; limits: {{{', '.join(missing)}}} in the bottle does without"
    doubts = [_NAMES[key] for key in given_up if key in over or key not in wanted]
    reasons = [f"not limited, as the bottle's manifest says: {', '.join(doubts)}"] if doubts else []
    if planned.memory is not None and "memory" not in wrong:
        both = force.get("swap", math.inf)
        if both == math.inf:
            reasons.append(f"the engine's kernel does not limit swap, {unless}")
        elif both > planned.memory:
            yield _told("memory and swap", both, planned.memory)
    if reasons:
        raise Inconclusive("; ".join(reasons))


def _told(name: str, force: float | None, limit: float) -> str:
    if force is None:
        return f"{name}: the limit in force cannot be read"
    return f"{name}: not limited" if force == math.inf else f"{name}: limited to {force:.12g}, not {limit:.12g}"


def _rounded(limit: float) -> float:
    """Return a limit as systemd may have it in force: cpus up to the next hundredth."""
    return limit if limit == math.inf else math.ceil(round(limit * 100, 6)) / 100


def _in_force(files: Mapping[str, str]) -> dict[str, float]:
    """Return what the files of a cgroup, of either version, limit, `swap` with memory; what cannot be read is missing.

    Of version 1, each controller may be missing on its own.
    """
    numbers = {name: [_number(word) for word in files[name].split()] for name in _FILES if name in files}
    memory = numbers.get("memory.max") or numbers.get("memory.limit_in_bytes")
    swap = numbers.get("memory.swap.max")
    cpu = numbers.get("cpu.max") or numbers.get("cpu.cfs_quota_us", []) + numbers.get("cpu.cfs_period_us", [])
    found = {
        "memory": memory,
        "swap": [memory[0] + swap[0]] if memory and swap else numbers.get("memory.memsw.limit_in_bytes"),
        "pids": numbers.get("pids.max"),
        "cpus": [cpu[0] / cpu[1]] if len(cpu) > 1 else None,
    }
    return {key: value[0] for key, value in found.items() if value}


def _number(word: str) -> float:
    number = math.inf if word in ("max", "-1") else int(word)
    return math.inf if number >= _UNLIMITED else number
