"""A page that is renewed in place: what the terminal shows, at any size, and that it is given back as it was."""

import os
import select
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pyte
import pytest

from tests.support.scene import ROOT

GUARD = 60
# The shell sees what becomes of its terminal. The page has 40 lines of 90 columns, each with its number.
PROGRAM = """
import sys, termios
from claude_bottle.cleanup.stack import Teardown
from claude_bottle.host.live_page import LivePage
page = LivePage()
with Teardown(stoppable=False) as undo:
    undo.arm(0, "page", page.close)
    page.open()
    page.show("\\n".join(f"{number:02} {'x' * 80} end {number:02}" for number in range(40)))
    while not page.wait(3600):
        pass
"""
SHELL = """
trap : INT
stty -echok
before=$(stty -g)
echo shell-begins
"$@"
echo code $?
[ "$(stty -g)" = "$before" ] && echo as-before
"""


class Terminal:
    """The user's side of it: what is shown, and what was written."""

    def __init__(self, rows: int = 24, columns: int = 80) -> None:
        argv = ("bash", "-c", SHELL, "bash", sys.executable, "-c", PROGRAM)
        self.child: pexpect.spawn[bytes] = pexpect.spawn(
            argv[0], list(argv[1:]), cwd=str(ROOT), timeout=GUARD, dimensions=(rows, columns)
        )
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""

    def until(self, text: str) -> None:
        while text not in "\n".join(self.screen.display):
            data = self.child.read_nonblocking(1 << 16, GUARD)
            self.raw += data
            self._stream.feed(data)

    def resize(self, rows: int, columns: int) -> None:
        self.screen.resize(rows, columns)
        self.child.setwinsize(rows, columns)

    def launcher(self) -> int:
        return int(Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children").read_text().split()[0])


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    made.child.close(force=True)


def test_what_does_not_fit_is_cut_and_a_resize_draws_it_again(terminal: Terminal) -> None:
    terminal.until("23 x")
    assert terminal.screen.display[0] == f"00 {'x' * 77}"
    assert terminal.screen.display[23] == f"23 {'x' * 77}"
    for rows, columns in ((10, 40), (45, 100), (24, 80)):
        terminal.resize(rows, columns)
        last = min(rows, 40) - 1
        full = f"{last:02} {'x' * 80} end {last:02}"[:columns]
        terminal.until(full)
        terminal.until(f"00 {'x' * (min(columns, 83) - 3)}")
        shown = [line.rstrip() for line in terminal.screen.display]
        assert [line[:2] for line in shown if line] == [f"{number:02}" for number in range(last + 1)]


@pytest.mark.parametrize(
    ("end", "code"),
    [(b"q", 0), (b"\x03", 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGQUIT, 131)],
    ids=["q", "Ctrl-C", "TERM", "HUP", "QUIT"],
)
def test_the_terminal_is_given_back(terminal: Terminal, end: bytes | signal.Signals, code: int) -> None:
    terminal.until("23 x")
    terminal.child.send(b"typed\x1a")  # neither shown, nor a stop
    if isinstance(end, bytes):
        terminal.child.send(end)
    else:
        os.kill(terminal.launcher(), end)
    terminal.until("as-before")
    assert f"code {code}" in "\n".join(terminal.screen.display)
    entered, _, left = terminal.raw.partition(b"\x1b[?1049h")
    assert b"shell-begins" in entered
    assert b"typed" not in terminal.raw
    assert left.index(b"\x1b[?25h\x1b[?1049l") < left.index(b"code ")


def test_a_terminal_that_closes_ends_it(terminal: Terminal) -> None:
    terminal.until("23 x")
    pid = terminal.launcher()
    pidfd = os.pidfd_open(pid)
    terminal.child.close(force=False)
    assert select.select([pidfd], [], [], GUARD)[0], "it goes on without a terminal"
    os.close(pidfd)
