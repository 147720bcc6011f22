"""A page that is renewed in place on the terminal's alternate screen; what was there before comes back at its end."""

import contextlib
import os
import select
import termios
import time
from collections.abc import Iterator
from typing import Any

from claude_bottle.host import console

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_TOP, _REST_OF_LINE, _REST, _WRAP_OFF, _WRAP_ON = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[?7l", "\x1b[?7h"
_QUIT = (b"q", b"Q")
_TICK = 0.25  # seconds between two looks at the terminal's size


class LivePage:
    """The alternate screen, without echo of what is typed, from `open` to `close`.

    Ctrl-C is a signal as ever. Ctrl-Z is nothing: the shell would have our screen.
    """

    def __init__(self) -> None:
        """Touch nothing yet."""
        self._before: list[Any] | None = None
        self._text, self._size = "", (0, 0)

    def open(self) -> None:
        """Take the terminal; raises OSError if it has gone."""
        with _terminal():
            self._before, mode = termios.tcgetattr(0), termios.tcgetattr(0)
            mode[3] &= ~(termios.ECHO | termios.ICANON)
            mode[6][termios.VSUSP] = b"\0"
            termios.tcsetattr(0, termios.TCSANOW, mode)
        console.draw(_ENTER)

    def close(self) -> None:
        """Give the terminal back as it was, once; one that has gone needs nothing."""
        before, self._before = self._before, None
        if before is not None:
            with contextlib.suppress(OSError):
                console.draw(_LEAVE)
            with contextlib.suppress(termios.error):
                termios.tcsetattr(0, termios.TCSAFLUSH, before)

    def show(self, text: str) -> None:
        """Replace what is shown by the lines of `text`, as far as they fit; raises OSError if the terminal has gone."""
        self._text, self._size = text, _size()
        rows, columns = self._size
        lines = [line[: columns or None] for line in text.split("\n")[: rows or None]]
        page = f"{_REST_OF_LINE}\r\n".join(lines)
        console.draw(f"{_WRAP_OFF}{_TOP}{page}{_REST_OF_LINE}{_REST}{_WRAP_ON}")

    def wait(self, seconds: float) -> bool:
        """Wait, and draw again after a resize; return whether the user typed `q` or the terminal has gone."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([0], [], [], min(left, _TICK))[0] and self._quits():
                return True
            if _size() != self._size:
                self.show(self._text)
        return False

    def _quits(self) -> bool:
        try:
            typed = os.read(0, 64)
        except OSError:
            return True
        return not typed or any(key in typed for key in _QUIT)


def _size() -> tuple[int, int]:
    with _terminal():
        return termios.tcgetwinsize(0)


@contextlib.contextmanager
def _terminal() -> Iterator[None]:
    """Have an error of the terminal be one of the system."""
    try:
        yield
    except termios.error as error:
        raise OSError(*error.args, "the terminal") from None
