"""What a self-test saw: the probe's answers and what `docker inspect` shows, as they came."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from claude_bottle.bottle.plan import Plan
from claude_bottle.host.addresses import Addresses

_FILE = re.compile(r"([a-z0-9_.]+)=([^;]*);")
Data = Any  # of JSON that others wrote: a check that trips over its shape has failed


class NotApplicable(Exception):
    """A check cannot apply here; the message says why."""


class Inconclusive(Exception):
    """A check could not be decided for a reason that is no leak; the message says which."""


@dataclass(frozen=True)
class Seen:
    """What a self-test's commands printed."""

    probe: bytes
    inspect: bytes
    processes: bytes  # `docker top`
    home: bytes  # the search of the bottle as the agent
    key_holder: bytes = b""  # its first line, which has the kernel's files in it; empty without one


@dataclass(frozen=True)
class Evidence:
    """The plan and, to hold against it, everything that was seen; what was not seen is missing from the mappings."""

    plan: Plan
    known: Addresses
    probe: Data = field(repr=False)
    bottle: Data = field(repr=False)
    sidecar: Data = field(repr=False)
    key_holder: Data = field(repr=False)
    holder: Mapping[str, str] = field(repr=False)  # the kernel's files in the key-holder, by their names
    gate: Data = field(repr=False)
    image: Data = field(repr=False)
    base: Data = field(repr=False)
    home: Data = field(repr=False)
    inspected: bytes = field(repr=False)  # all that `docker inspect` shows
    listed: tuple[tuple[str, ...], ...]  # the engine's list of processes: each one's id and its three users

    @classmethod
    def read(cls, plan: Plan, known: Addresses, seen: Seen) -> "Evidence":
        """Take apart what was printed; what cannot be read is as if nothing had been printed."""
        answers, shown = _parsed(seen.probe), _parsed(seen.inspect)
        objects = [each for each in shown if isinstance(each, dict)] if isinstance(shown, list) else []
        return cls(
            plan,
            known,
            probe=answers if isinstance(answers, dict) else {},
            bottle=_only([each for each in objects if each.get("Name") == f"/{plan.name}"]),
            sidecar=_only([each for each in objects if each.get("Name") == f"/{plan.sidecar}"]),
            key_holder=_only([each for each in objects if each.get("Name") == f"/{plan.key_holder}"]),
            holder={
                name: text.replace("|", "\n") for name, text in _FILE.findall(seen.key_holder.decode(errors="replace"))
            },
            gate=_only([each for each in objects if each.get("Name") == f"/{plan.gate}"]),
            image=_tagged(objects, plan.image.tag),
            base=_tagged(objects, plan.base.tag),
            home=_parsed(seen.home),
            inspected=seen.inspect,
            listed=tuple(tuple(line.split()) for line in seen.processes.decode(errors="replace").splitlines()[1:]),
        )

    @property
    def processes(self) -> dict[str, Data]:
        """Return every process of the bottle by its id; KeyError where the probe did not even see itself."""
        found = dict(self.probe["processes"])
        found[found.pop("self")]["names"]
        return found


def _parsed(text: bytes) -> Data:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _tagged(objects: list[Data], tag: str) -> Data:
    """Return an image by one of its tags; one that has two that were asked for is shown twice."""
    return _only(list({each.get("Id"): each for each in objects if tag in (each.get("RepoTags") or ())}.values()))


def _only(found: list[Data]) -> Data:
    return found[0] if len(found) == 1 else {}
