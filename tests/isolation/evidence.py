"""What the receivers of a run saw, in one place; judged by tokens alone."""

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.isolation.machine import Machine
from tests.isolation.places import PRIVATE
from tests.isolation.rows import ROWS, Row

SIDES = ("bottle", "anti-test")
#: receivers of the machine itself, whose logs have these names
LOGS = ("host", "outside", "names", "wire")


def token() -> str:
    """Return a word that occurs nowhere else, short enough for a process's name and for a frame's padding."""
    return f"cb{secrets.token_hex(6)}"


def _tokens() -> dict[str, dict[str, str]]:
    return {side: {row.name: token() for row in ROWS} for side in SIDES}


def _credentials(request: dict[str, Any]) -> list[str]:
    names = ("authorization", "x-api-key", "cookie", "proxy-authorization")
    return [value for name, value in request["headers"] if name.lower() in names]


@dataclass
class Evidence:
    """What was seen, and which commands were run at all; a token belongs to one row on one side."""

    tokens: dict[str, dict[str, str]] = field(default_factory=_tokens)
    seen: dict[str, str] = field(default_factory=dict)
    """By receiver, what it saw of both sides."""
    outputs: dict[str, str] = field(default_factory=dict)
    """What a command printed, by token; one that was not run has none."""
    frames: dict[str, list[str]] = field(default_factory=dict)
    """The kinds of frames that the bottle sent, and the container on the ordinary bridge."""
    neighbour: tuple[int, str] = (-1, "")
    """The next session's exit code and output."""
    unsigned: tuple[int, str] = (-1, "")
    """The same of the session whose credential proxy was killed."""

    relayed: tuple[int, str] = (-1, "")
    """The same of the port whose relay was attacked."""
    honest: int | None = -1
    """The exit code of the other port, which is None while it runs."""

    def arrived(self, row: Row, side: str) -> bool:
        """Tell whether the row's receiver saw the token; KeyError where the command was not run."""
        sought = self.tokens[side][row.name]
        output = self.outputs[sought]
        return sought in (output if row.receiver == "answer" else self.seen[row.receiver])

    def gather(self, machine: Machine, neighbour: str, ours: Mapping[str, str]) -> None:
        """Read the logs of all listeners.

        `neighbour` is the log of the one in the next bottle, `ours` the user's own tokens by the hosts that get them.
        """
        self.seen |= {name: machine.log(name) for name in LOGS}
        # Not the prompts, which have other rows' tokens.
        self.seen["api"] = "\n".join(f"{one['path']} {one['headers']}" for one in machine.asked())
        signed = (one["path"] for one in machine.asked() if _credentials(one) == [f"Bearer {ours.get(one['host'])}"])
        self.seen["signed"] = "\n".join(signed)
        self.seen["rebound"] = "\n".join(line for line in self.seen["outside"].splitlines() if f"'{PRIVATE}'" in line)
        self.seen["neighbour"] = machine.log(neighbour) + machine.docker_log("next")
        self.seen["third"] = machine.docker_log("third")
        self.seen["loopback"] = "".join(
            machine.docker_log(f"{whose}-loopback") for whose in ("our", "proxy", "trusting-proxy")
        )

    def frames_of(self, addresses: Iterable[str]) -> list[str]:
        """Return the kinds of frames that came from these addresses, on whatever wire."""
        kinds = [line.split() for line in self.seen["wire"].splitlines() if line.startswith("kind ")]
        return sorted({" ".join((kind[2], kind[3], *kind[5:])) for kind in kinds if kind[4] in addresses})
