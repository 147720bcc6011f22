"""A file of this user's own: read one that may be anything another user has put there, write one for nobody else."""

import contextlib
import os
import stat
import tempfile
from pathlib import Path

LONGEST = 1024  # bytes


def read(path: Path, *, private: bool = False, most: int = LONGEST) -> bytes:
    """Return the content of a regular file of this user's; `private` if nobody else may have access to it.

    `most` is its largest size in bytes.

    Raises PermissionError if it is not that, another OSError if it cannot be read. Nothing is read before that is
    known, no link is followed, and a FIFO does not block.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid() or status.st_size > most:
            raise PermissionError(0, "not a small regular file of this user's own", str(path))
        if private and stat.S_IMODE(status.st_mode) & 0o077:
            raise PermissionError(0, "others may read it", str(path))
        return os.read(descriptor, most)
    finally:
        os.close(descriptor)


def write(path: Path, text: str) -> None:
    """Write a text, ASCII alone, and a line end, as `write_bytes` does.

    Raises OSError.
    """
    write_bytes(path, f"{text}\n".encode("ascii"))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file for this user alone to read; whole or not at all, in place of an older one.

    Raises OSError.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # with mode 600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def owns_folder(path: Path) -> bool:
    """Return whether a path is a folder of this user's own, and not a link to one; raises OSError if it is gone."""
    status = path.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
