"""One budget of time for many commands, and the end of it if the user gives up."""

import math
import time

from claude_bottle.errors import RepositoryError
from claude_bottle.process import stream


class Deadline:
    """The time that a task has for all its commands, from now on; without an end unless `seconds` are given."""

    def __init__(self, seconds: float = math.inf) -> None:
        """Begin now."""
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def over(self) -> str:
        """Return why no further command may start; nothing while one may."""
        if stream.given_up():
            return "given up"
        if time.monotonic() >= self._end:
            return f"out of time: the {spoken(self._seconds)} are over"
        return ""

    def left(self, most: float | None = None) -> float:
        """Return the seconds that the next command may take, at most `most`; RepositoryError if it may not start."""
        if why := self.over:
            raise RepositoryError(why)
        # A moment later there may be nothing left: such a command is ended at once.
        return max(0.0, min(math.inf if most is None else most, self._end - time.monotonic()))


def spoken(seconds: float) -> str:
    """Return a number of seconds in words, in minutes if it is whole ones."""
    return f"{seconds / 60:.0f} minutes" if seconds >= 60 and seconds % 60 == 0 else f"{seconds:.0f} seconds"
