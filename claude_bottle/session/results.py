"""What came of the tasks of a list: a folder with three files a task, for this user alone to read.

`<task>.json` says how it ended, `<task>.txt` is the answer, `<task>.log` what the session said. The first is written
last: with it the result is whole.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from claude_bottle.errors import UsageError
from claude_bottle.host import own_file
from claude_bottle.host.machine import machine_fault

_MOST = 1 << 20  # bytes of a `<task>.json`


@dataclass(frozen=True)
class Result:
    """How a task ended; `hash` is of what the list said of it. Texts are as they were: escape them to print them."""

    task: str
    hash: str
    agent: str
    engine: str
    code: int
    session: str = ""
    branch: str = ""  # that came back; the first if there are more
    error: str = ""  # the last one
    seconds: int = 0  # that it took
    interrupted: bool = False  # `run` was ended before it
    cut: bool = False  # the answer was longer

    @property
    def state(self) -> str:
        """Return how it ended, in a word."""
        if self.code == 0:
            return "done"
        return "interrupted" if self.interrupted else f"failed ({self.code})"

    def as_json(self) -> dict[str, object]:
        """Return it as data for json.dumps."""
        return {**asdict(self), "state": self.state}


class Results:
    """The results of one list."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, there or not."""
        self.folder = folder

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder, and keep other runs out of it; raises UsageError if one is in it, or there is none."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(f"the results cannot be written: {machine_fault(error)}") from None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(f"another run writes its results to {self.folder}") from None
            yield
        finally:
            os.close(descriptor)

    def read(self, task: str) -> Result | None:
        """Return the result of a task; None if there is none, or none that can be used."""
        try:
            found = json.loads(own_file.read(self._path(task, "json"), most=_MOST))
            result = Result(**{each.name: found[each.name] for each in fields(Result)})
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None
        right = all(type(getattr(result, each.name)) is each.type for each in fields(Result))
        return result if right and result.task == task else None

    def write(self, result: Result, answer: bytes, log: bytes) -> None:
        """Write the result of a task in place of an older one, each file whole or not at all; raises OSError."""
        own_file.write_bytes(self._path(result.task, "txt"), answer)
        own_file.write_bytes(self._path(result.task, "log"), log)
        own_file.write_bytes(self._path(result.task, "json"), json.dumps(result.as_json(), indent=1).encode() + b"\n")

    def _path(self, task: str, kind: str) -> Path:
        return self.folder / f"{task}.{kind}"
