"""Real tmux, as a user's terminal: what is typed goes in by its keys, what is seen is what it shows."""

import contextlib
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support.sessions import GUARD

ROWS, COLUMNS = 30, 100
PROMPT = "ready>"
SHELL = f"PS1='{PROMPT} ' exec bash --norc --noprofile"


class Tmux:
    """A tmux server of a test's own, with one window."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder, self._environ = folder, environ

    def __call__(self, *words: str) -> str:
        """Run a command of tmux; return what it prints."""
        argv = ("tmux", "-S", str(self._folder / "tmux"), "-f", "/dev/null", *words)
        return subprocess.run(argv, env=self._environ, check=True, stdout=subprocess.PIPE, text=True).stdout

    def shown(self, pane: int = 0) -> str:
        return self("capture-pane", "-p", "-t", f":.{pane}")

    def until(self, text: str, pane: int = 0) -> None:
        """Wait until a pane shows a text."""
        end = time.monotonic() + GUARD
        while text not in (shown := self.shown(pane)):
            assert time.monotonic() < end, f"no {text!r} in\n{shown}"
            time.sleep(0.05)

    def modes(self, pane: int = 0) -> str:
        """Return whether a pane shows the alternate screen, reports its mouse, and has a cursor."""
        return self("display", "-p", "-t", f":.{pane}", "#{alternate_on} #{mouse_any_flag} #{cursor_flag}").strip()

    def enter(self, text: str, pane: int = 0) -> None:
        """Type a text, and Enter once it is shown."""
        self("send-keys", "-t", f":.{pane}", "-l", text)
        self.until(text, pane)
        self("send-keys", "-t", f":.{pane}", "Enter")


@contextlib.contextmanager
def tmux(folder: Path, environ: Mapping[str, str]) -> Iterator[Tmux]:
    """Run tmux with a shell in its window; end it with all that runs there."""
    made = Tmux(folder, environ)
    made("new-session", "-d", "-x", str(COLUMNS), "-y", str(ROWS), SHELL)
    try:
        yield made
    finally:
        made("kill-server")
