"""The stage dir: the folder on the host for what is about to be copied."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from claude_bottle import PREFIX
from claude_bottle.host.owner import Owner


@dataclass(frozen=True)
class StageDir:
    """The folder on the host for what is about to be copied; mode 700, its files 600."""

    path: Path

    @classmethod
    def make(cls, session: str, folder: Path | None = None) -> "StageDir":
        """Make it in `folder`, else in the temporary directory; its name contains its session."""
        return cls(Path(tempfile.mkdtemp(prefix=f"{PREFIX}-{session}-", dir=folder)))

    @classmethod
    @contextlib.contextmanager
    def held(cls, session: str, owner: Owner, folder: Path | None = None) -> "Iterator[StageDir]":
        """Yield one, removed at the end of the block; if the process is killed, `cleanup` removes it by its `owner`."""
        made = cls.make(session, folder)
        try:
            made.write("owner", str(owner).encode())
            yield made
        finally:
            made.remove()

    def write(self, name: str, data: bytes) -> None:
        """Write a file that only its user can read; raises OSError with its path."""
        path = self.path / name
        path.touch(mode=0o600)
        try:
            path.write_bytes(data)
        except OSError as error:  # of a full disk, it does not name the file
            raise OSError(error.errno, error.strerror, str(path)) from None

    def remove(self) -> None:
        """Remove the folder; absence is success. Raises OSError if it is still there."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self.path.exists():
            raise OSError(f"{self.path} could not be removed")
