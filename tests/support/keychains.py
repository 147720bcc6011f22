"""Stand-ins for the programs of keychains, which record how they are called."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

PROGRAM = Path(__file__).parent / "programs" / "keychain.py"


@dataclass(frozen=True)
class Call:
    """One call of a keychain's program."""

    argv: tuple[str, ...]
    stdin: str


@dataclass(frozen=True)
class Standin:
    """A folder for PATH that has one such program; files in it change what it does: see programs/keychain.py."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, name: str) -> "Standin":
        """Make the program `name` in a new folder."""
        folder.mkdir()
        program = folder / name
        program.write_text(f"#!{sys.executable} -IS\n{PROGRAM.read_text()}")
        program.chmod(0o755)
        return cls(folder)

    def turn(self, mood: str, *, on: bool = True) -> None:
        """Make it `locked`, `full` or `broken`, or not."""
        (self.folder / mood).touch() if on else (self.folder / mood).unlink()

    @property
    def secret(self) -> str | None:
        """Return what it keeps."""
        path = self.folder / "secret"
        return path.read_text() if path.exists() else None

    @property
    def calls(self) -> list[Call]:
        """Return how it was called so far."""
        path = self.folder / "calls"
        found = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
        return [Call(tuple(each["argv"]), each["stdin"]) for each in found]
