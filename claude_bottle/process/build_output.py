"""What `docker build` prints while it works: the step it is at and, of the classic builder, what it has made."""

import re
from collections.abc import Callable
from typing import Literal

Kind = Literal["image", "container"]

_COLOUR = re.compile(rb"\x1b\[[0-9;]*m")  # the classic builder prints a RUN's stderr in red
_STEP = re.compile(r"Step (\d+/\d+) : (.*)")
_STAGE = re.compile(r"#\d+ \[(?:(\S+) )?(\d+/\d+)\] (.*)")  # BuildKit; `[claude 1/2]` is of a stage with a name
_INTERNAL = re.compile(r"#\d+ \[[a-z]+\] (.*)")
_IMAGE = re.compile(r" ---> ([0-9a-f]{12})")
_CONTAINER = re.compile(r" ---> Running in ([0-9a-f]{12})")
_CACHED = " ---> Using cache"
_LONGEST = 4096  # bytes of a line that are read


class BuildOutput:
    """Reads the output of one build, or pull, as it comes; `step` is where it is, for people."""

    def __init__(self, made: Callable[[Kind, str], None] = lambda _, __: None) -> None:
        """Call `made` with the id of each image of the classic builder that it has made, and of each container."""
        self.step = ""
        self._made, self._rest, self._numbered = made, b"", False
        self._others = False  # whether the next image was made by others: it is in the cache, or in FROM

    def read(self, data: bytes) -> None:
        """Take the next bytes of it."""
        *lines, rest = re.split(rb"[\r\n]", self._rest + data)
        self._rest = rest[:_LONGEST]
        for line in lines:
            self._line(_COLOUR.sub(b"", line[:_LONGEST]).decode(errors="replace"))

    def _line(self, line: str) -> None:
        self._image(line)
        if found := _STEP.fullmatch(line):
            self._others = found[2].split(maxsplit=1)[0].upper() == "FROM"
            self._at(found[1], found[2])
        elif found := _STAGE.fullmatch(line):
            self._at(f"{found[1]} {found[2]}" if found[1] else found[2], found[3])
        elif found := _INTERNAL.fullmatch(line):
            self.step = found[1]
        elif not self._numbered and line.strip() and not line.startswith("#"):  # before the first step, or of a pull
            self.step = line.strip()

    def _image(self, line: str) -> None:
        if found := _CONTAINER.fullmatch(line):
            self._made("container", found[1])
        elif found := _IMAGE.fullmatch(line):
            if not self._others:
                self._made("image", found[1])
            self._others = False
        elif line == _CACHED:
            self._others = True

    def _at(self, number: str, instruction: str) -> None:
        self.step, self._numbered = f"step {number}, {instruction}", True
