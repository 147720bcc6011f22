"""Read files that others may have written: regular files up to a given size."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

MIB = 1 << 20
# Without O_NONBLOCK, opening a pipe blocks until it has a writer.
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


def read(path: Path, most: int = MIB) -> bytes:
    """Return the content of a regular file of at most `most` bytes.

    Raises OSError, also for anything else; its strerror says what is wrong.
    """
    with opened(path, most) as file:
        data = file.read(most + 1)  # it may grow meanwhile
    if len(data) > most:
        raise _too_large(path, most)
    return data


def opened(path: Path, most: int = MIB, *, follow: bool = True) -> BufferedReader:
    """Open a regular file of at most `most` bytes, a link's target only if `follow`; raises OSError as `read` does."""
    descriptor = os.open(path, _FLAGS | (0 if follow else os.O_NOFOLLOW))
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a file", str(path))
        if status.st_size > most:
            raise _too_large(path, most)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _too_large(path: Path, most: int) -> OSError:
    return OSError(errno.EFBIG, f"larger than {most >> 20} MiB", str(path))
