"""What a self-test saw: the probe's answers and what `docker inspect` shows, as they came."""

import json
from dataclasses import dataclass, field
from typing import Any

from claude_bottle.bottle.plan import Plan
from claude_bottle.host.addresses import Addresses

Data = Any  # of JSON that others wrote: a check that trips over its shape has failed


class Moot(Exception):
    """A check cannot apply here; the message says why."""


class Doubt(Exception):
    """A check could not be decided for a reason that is no leak; the message says which."""


@dataclass(frozen=True)
class Evidence:
    """The plan and, to hold against it, everything that was seen; what was not seen is missing from the mappings."""

    plan: Plan
    known: Addresses
    probe: Data = field(repr=False)
    bottle: Data = field(repr=False)
    sidecar: Data = field(repr=False)
    key_holder: Data = field(repr=False)
    image: Data = field(repr=False)

    @classmethod
    def read(cls, plan: Plan, known: Addresses, probe: bytes, inspect: bytes) -> "Evidence":
        """Take apart what was printed; what cannot be read is as if nothing had been printed."""
        answers, shown = _parsed(probe), _parsed(inspect)
        objects = [each for each in shown if isinstance(each, dict)] if isinstance(shown, list) else []
        return cls(
            plan,
            known,
            probe=answers if isinstance(answers, dict) else {},
            bottle=_only([each for each in objects if each.get("Name") == f"/{plan.name}"]),
            sidecar=_only([each for each in objects if each.get("Name") == f"/{plan.sidecar}"]),
            key_holder=_only([each for each in objects if each.get("Name") == f"/{plan.key_holder}"]),
            image=_only([each for each in objects if plan.image.tag in (each.get("RepoTags") or ())]),
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


def _only(found: list[Data]) -> Data:
    return found[0] if len(found) == 1 else {}
