"""Read a file that should be this user's own, and may be anything that another user of the machine has put there."""

import os
import stat
from pathlib import Path

LONGEST = 1024  # bytes


def read(path: Path, *, private: bool = False) -> bytes:
    """Return the content of a small regular file of this user's; `private` if nobody else may have access to it.

    Raises PermissionError if it is not that, another OSError if it cannot be read. Nothing is read before that is
    known, no link is followed, and a FIFO does not block.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid() or status.st_size > LONGEST:
            raise PermissionError(0, "not a small regular file of this user's own", str(path))
        if private and stat.S_IMODE(status.st_mode) & 0o077:
            raise PermissionError(0, "others may read it", str(path))
        return os.read(descriptor, LONGEST)
    finally:
        os.close(descriptor)


def owns_folder(path: Path) -> bool:
    """Return whether a path is a folder of this user's own, and not a link to one; raises OSError if it is gone."""
    status = path.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
