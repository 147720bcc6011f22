"""A folder of manifests that a test writes, and what is wrong with them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from claude_bottle.errors import ManifestError
from claude_bottle.manifest import agent as manifest
from claude_bottle.manifest.agent import Agent

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


@dataclass(frozen=True)
class Place:
    """A folder of agents, with a user's home beside it."""

    root: Path

    @property
    def agents(self) -> Path:
        return self.root / "agents"

    def write(self, path: str, text: str = "") -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    def load(self, name: str = "a", environ: Mapping[str, str] | None = None) -> Agent:
        return manifest.load_agent(self.agents, name, environ=environ or {}, home=self.root / "home")

    def load_all(self) -> tuple[Agent, ...]:
        return manifest.load_agents(self.agents, environ={}, home=self.root / "home")

    def faults(self, name: str | None = "a", environ: Mapping[str, str] | None = None) -> list[str]:
        """Return the lines of the error, each without the folder that all begin with."""
        with pytest.raises(ManifestError) as raised:
            self.load_all() if name is None else self.load(name, environ)
        return [line.replace(f"{self.agents}/", "") for line in str(raised.value).split("\n")]


def bottle_faults(place: Place, text: str) -> list[str]:
    place.write("agents/bottles/default.yaml", text)
    return place.faults()
