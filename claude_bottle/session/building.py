"""A build as its user sees it: one line of a terminal or all of its output, and nothing while a question waits."""

import threading
from collections.abc import Callable
from enum import Enum

from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.host import console
from claude_bottle.process import stream
from claude_bottle.process.build_output import BuildOutput, Kind
from claude_bottle.process.command import Client, Result

_MOST = 1 << 24  # bytes of output that are kept for a failure


class Shown(Enum):
    """What is shown of a build that goes on; all of its output if it fails."""

    NOTHING = "nothing"
    LINE = "line"  # renewed in place
    ALL = "all"


class Build:
    """One `docker build` or `docker pull`, whose output comes from one pipe."""

    def __init__(self, name: str, shown: Shown, made: Callable[[Kind, str], None] = lambda _, __: None) -> None:
        """Take the time from now on; `made` is called as `BuildOutput` does."""
        self._output, self._progress = BuildOutput(made), console.Progress(name)
        self._lock = threading.Lock()  # guards the next three
        self._shown, self._unseen, self._cut = shown, bytearray(), False

    def run(self, client: Client, stdin: bytes) -> Result:
        """Give it `stdin` and wait for its end; if it has failed, the caller calls `tell`."""
        try:
            return stream.follow(client, stdin, self._take, self._tick)
        finally:
            self._progress.close()
            with self._lock:
                self._print(last=True)

    def show(self, shown: Shown) -> None:
        """Show it so from now on, and what it has printed so far if that is all of it."""
        with self._lock:
            self._shown = shown
            self._print()

    def tell(self) -> None:
        """Print all its output that has not been shown."""
        with self._lock:
            self._shown = Shown.ALL
            self._print(last=True)

    def _take(self, data: bytes) -> None:
        self._output.read(data)
        with self._lock:
            self._unseen += data
            if len(self._unseen) > _MOST:
                self._cut = True
                del self._unseen[:-_MOST]
            self._print()

    def _tick(self) -> None:
        if self._shown is Shown.LINE:
            # ASCII alone: a character may be two columns wide, and a line that wraps could not be renewed.
            self._progress.detail = escape_control_chars(self._output.step).encode("ascii", "backslashreplace").decode()
            self._progress.tick()

    def _print(self, *, last: bool = False) -> None:
        """Print whole lines; the rest, too, if it is the `last`."""
        end = len(self._unseen) if last else self._unseen.rfind(b"\n") + 1
        if self._shown is not Shown.ALL or not end:
            return
        if self._cut:
            console.show(f"[only the last {_MOST >> 20} MiB are kept]")
            self._cut = False
        console.show(printable(bytes(self._unseen[:end])))
        del self._unseen[:end]


def printable(data: bytes) -> str:
    """Return a program's output as text for a terminal: each line escaped but for tabs; a CR ends a line."""
    lines = data.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join("\t".join(map(escape_control_chars, line.split("\t"))) for line in lines)
