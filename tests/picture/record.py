"""Record the demo agent's session on a terminal, as a user types it into a shell."""

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pexpect
import pyte

from tests.world import REPOSITORY, World
from tests.world.shell import WorldError

COLUMNS, ROWS = 100, 31
GUARD = 300  # seconds until a recording gives up waiting
QUIET = 3.0  # seconds without output after which a screen counts as drawn
REQUEST = "RUN: curl --silent --show-error https://example.com"
#: to the alternate screen and back, which pyte does not know
SWITCH = re.compile(rb"\x1b\[\?1049[hl]")
#: queries and keyboard modes with a private prefix, whose last letter pyte would draw
PRIVATE = re.compile(rb"\x1b\[[<=>][0-9;]*[a-z]")


def screens(raw: bytes) -> list[pyte.Screen]:
    """Return what a terminal shows after `raw`: the main screen, the alternate one, the main one again."""
    shown = []
    for part in SWITCH.split(raw):
        shown.append(pyte.Screen(COLUMNS, ROWS))
        pyte.ByteStream(shown[-1]).feed(PRIVATE.sub(b"", part))
    return shown


def record(world: World, folder: Path) -> Sequence[pyte.Screen]:
    """Return the screens of a session: up to the receipt, Claude Code's, after it. Raise WorldError if it fails.

    `folder` holds the session's agents and git configuration. The user's home and it are shown in short.
    """
    (folder / "gitconfig").write_text("[user]\n\tname = Ada\n\temail = ada@example.org\n")
    kept = {name: os.environ[name] for name in os.environ if name in ("PATH", "HOME") or name.startswith("DOCKER_")}
    env = kept | world.environ(world.copy_agents(folder / "agents"))
    env |= {"GIT_CONFIG_GLOBAL": str(folder / "gitconfig"), "PS1": "$ ", "LANG": "C.UTF-8"}
    env |= {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    # The first use makes .venv and builds the image; the picture shows the second.
    first = ("./cli.py", "start", "demo", "--yes", "--print", "SAY: ready")
    if subprocess.run(first, cwd=REPOSITORY, env=env, stdin=subprocess.DEVNULL, check=False).returncode:
        raise WorldError("the demo agent's session failed")
    terminal = Terminal(env, {str(folder): "~/claude-bottle", str(Path.home()): "~"})
    terminal.type("./cli.py start demo\r", "Start this session? [y/N]")
    terminal.type("y\r", "I am a stand-in")
    terminal.settled()
    terminal.type(REQUEST, REQUEST)
    terminal.type("\r", "response 403")
    claude = terminal.settled()[1]
    # Claude Code forgets the first Ctrl-C within seconds.
    terminal.type("\x03", "Press Ctrl-C again")
    terminal.type("\x03", "refused: ")
    before, _, after = terminal.settled()
    terminal.child.sendeof()
    terminal.child.expect(pexpect.EOF)
    return before, claude, after


class Terminal:
    """A shell on a terminal, in the repository, and all that it wrote."""

    def __init__(self, env: dict[str, str], short: dict[str, str]) -> None:
        """Start the shell; `short` has texts and what is shown in their place."""
        shell = ["--norc", "--noprofile"]
        self.child: pexpect.spawn[bytes] = pexpect.spawn(
            "bash", shell, env=env, cwd=REPOSITORY, dimensions=(ROWS, COLUMNS), timeout=GUARD
        )
        self._raw, self._short = b"", short
        self.type("", "$ ")

    def type(self, keys: str, then: str) -> None:
        """Type, and wait until the screen shows `then`; raise WorldError if it does not come."""
        self.child.send(keys.encode())
        while not any(then in line for line in self._screens()[-1].display):
            if not self._read(GUARD):
                raise WorldError("\n".join((f"the terminal did not show {then!r}:", *self._screens()[-1].display)))

    def settled(self) -> list[pyte.Screen]:
        """Wait until nothing more is drawn, and return the screens."""
        while self._read(QUIET):
            pass
        return self._screens()

    def _read(self, seconds: float) -> bool:
        try:
            self._raw += self.child.read_nonblocking(1 << 16, seconds)
        except (pexpect.EOF, pexpect.TIMEOUT):
            return False
        return True

    def _screens(self) -> list[pyte.Screen]:
        raw = self._raw
        for text, shown in self._short.items():
            raw = raw.replace(text.encode(), shown.encode())
        return screens(raw)
