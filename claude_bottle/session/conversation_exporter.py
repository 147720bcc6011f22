"""Export Claude's own transcript of the newest conversation in a bottle.

Runs in the bottle as the agent's user, beside the agent's processes. Python gets it on stdin, with the agent's home and
the most bytes as arguments, so it needs only Python 3.9 and the standard library, and imports nothing of claude_bottle.

It prints a line of JSON: the conversation's id and the size of its file, or why there is none. The file's content
follows. Nothing but a regular file is opened, no link is followed, and a FIFO does not block.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress

_FOLDERS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILES = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NAME = re.compile("([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})[.]jsonl")
_PROJECTS = (".claude", "projects")
_MOST_NAMES = 10_000  # to look at; a bottle that is used as intended has a few
_BLOCK = 1 << 18  # bytes

Found = tuple[int, str, int]  # the time of the last change in nanoseconds, the id, the open file


def main(home: str, most: int) -> None:
    """Print the newest conversation of at most `most` bytes, or why there is none."""
    try:
        newest = find(home)
    except OSError as error:
        _answer(why=f"{error.filename}: {error.strerror}")
        return
    if newest is None:
        _answer(why="Claude has written none")
        return
    _, name, file = newest
    size = os.fstat(file).st_size
    if size > most:
        _answer(why=f"it has {size} bytes, and {most} are the most that is kept")
        return
    _answer(id=name, size=size)
    while size > 0 and (data := os.read(file, min(size, _BLOCK))):
        _write(data)
        size -= len(data)


def find(home: str) -> Found | None:
    """Return the conversation that was changed last; None if there is none. Raises OSError without a folder of them."""
    newest: Found | None = None
    for folder in _projects(home):
        for name in _names(folder):
            match = _NAME.fullmatch(name)
            file = _opened(name, folder) if match else -1
            if match is None or file < 0:
                continue
            found = (os.fstat(file).st_mtime_ns, match[1], file)
            older = found if newest and found < newest else newest
            newest = newest if newest and found < newest else found
            if older:
                os.close(older[2])
        os.close(folder)
    return newest


def _projects(home: str) -> Iterator[int]:
    """Yield the open folder of each of Claude's projects."""
    above = os.open(home, _FOLDERS)
    for name in _PROJECTS:
        below = os.open(name, _FOLDERS, dir_fd=above)
        os.close(above)
        above = below
    for name in _names(above):
        with suppress(OSError):
            yield os.open(name, _FOLDERS, dir_fd=above)
    os.close(above)


def _names(folder: int) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for count, entry in enumerate(entries):
            if count == _MOST_NAMES:
                return
            yield entry.name


def _opened(name: str, folder: int) -> int:
    """Open a regular file that is not empty; return -1 if it is none."""
    try:
        file = os.open(name, _FILES, dir_fd=folder)
    except OSError:
        return -1
    status = os.fstat(file)
    if stat.S_ISREG(status.st_mode) and status.st_size:
        return file
    os.close(file)
    return -1


def _answer(**fields: object) -> None:
    _write(json.dumps(fields).encode() + b"\n")


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
