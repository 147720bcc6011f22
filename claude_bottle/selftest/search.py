"""Search the processes and files of a bottle for all that has a token's shape; return keyed digests, never a token.

Sent over stdin to Python, a call of `search` behind it: in the probe, and in the bottle as the agent. So it is for
Python 3.9, the standard library alone, and imports nothing of claude_bottle. `credential_checks.py` judges.
"""

import hmac
import itertools
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress

_FOLDERS = ("/etc", "/home", "/root", "/run", "/tmp", "/var/tmp", "/work")  # noqa: S108
_SEARCHED = 1 << 20  # bytes of each file
_SECONDS = 2.0  # for all of them
_MOST = 1000  # digests of one file or more, after which there is no more searching


def search(shape: str, key: str, root: str = "") -> dict[str, object]:
    """Return the digests of what this user can read of the bottle, and whether there was time for the whole of it.

    `root` is the folder in which the bottle's files are.
    """
    found, end = set[str](), time.monotonic() + _SECONDS
    places = itertools.chain(_of_processes(), _files([f"{root}{folder}" for folder in _FOLDERS]))
    for path in places:
        if time.monotonic() > end or len(found) > _MOST:
            return {"digests": sorted(found), "whole": False}
        with suppress(OSError), open(path, "rb", opener=_without_waiting) as file:
            found.update(digests(shape, key, file.read(_SEARCHED)))
    return {"digests": sorted(found), "whole": True}


def digests(shape: str, key: str, data: bytes) -> set[str]:
    """Return a digest, under `key` in hex, of each part of `data` that has the shape, a regular expression."""
    return {hmac.new(bytes.fromhex(key), part, "sha1").hexdigest() for part in re.findall(shape.encode(), data)}


def _of_processes() -> Iterator[str]:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        yield from (f"/proc/{pid}/environ", f"/proc/{pid}/cmdline")


def _files(folders: list[str]) -> Iterator[str]:
    """Yield every regular file below the folders, and "" for all else: the caller looks at the clock each time."""
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                yield entry.path if entry.is_file(follow_symlinks=False) else ""


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
