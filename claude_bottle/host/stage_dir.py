"""The stage dir: the folder on the host for what is about to be copied."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from claude_bottle import PREFIX
from claude_bottle.host import proof
from claude_bottle.host.owner import Owner


def links(env: Mapping[str, str]) -> Path:
    """Return the folder of links to this user's stage dirs outside the temporary directory, there or not."""
    return proof.key_file(env.get("XDG_STATE_HOME"), Path(env.get("HOME", "/"))).with_name("stage-dirs")


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
    def held(
        cls, session: str, owner: Owner, folder: Path | None = None, links: Path | None = None
    ) -> "Iterator[StageDir]":
        """Yield one in `folder`, else in the temporary directory; it is removed at the end of the block.

        If the process is killed, `cleanup` removes it by its `owner`; one in `folder` is found by a link in the folder
        `links`, if that can be made. Raises OSError if the stage dir cannot be made, written or removed.
        """
        made = cls.make(session, folder)
        link = links / made.path.name if links and folder else None
        try:
            if link:
                with contextlib.suppress(OSError):  # the work is worth more
                    link.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    link.symlink_to(made.path.absolute())
            made.write("owner", str(owner).encode())
            yield made
        finally:
            made.remove()
            if link:
                with contextlib.suppress(OSError):
                    link.unlink(missing_ok=True)

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
