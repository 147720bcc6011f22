"""Sign in: Claude's own `setup-token` in a bottle of the base image alone, and the token that it shows."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from claude_bottle.bottle.plan import Run
from claude_bottle.errors import TokenError
from claude_bottle.host.machine import Machine
from claude_bottle.manifest.agent import Agent
from claude_bottle.manifest.bottle import Bottle
from claude_bottle.process.screen import Screen
from claude_bottle.session import start as session

_RUN = re.compile(r"[A-Za-z0-9_-]+")
_TOKEN = re.compile(r"sk-ant-oat01-[A-Za-z0-9_-]{40,}")  # today's have 95; a shortened one is none
_NEXT_LINE = re.compile(rf"[\s│|]*({_RUN.pattern})[\s│|]*")
_EDGE = 4  # columns that a frame and its padding may take at the end of a full line

# No prompt, skill, host, variable, key or certificate; `/` is no manifest to which `allow --save` could write.
_AGENT = Agent("login", Path("/"), "", Bottle("login", Path("/")))


def sign_in(machine: Machine, *, verbose: bool) -> str:
    """Run `claude setup-token` on the terminal and return the token that it has shown.

    Raises TokenError if it has shown none, and whatever `start` raises.
    """
    screen = Screen()
    options = session.Options(Run(terminal=True, login=True), yes=True, verbose=verbose, tap=screen.feed)
    session.start(machine, _AGENT, options)
    if token := token_on(screen.lines, screen.columns):
        return token
    raise TokenError("not signed in: claude has shown no token")


def token_on(lines: Sequence[str], columns: int) -> str | None:
    """Return the last OAuth token on a screen of so many columns, which may be wrapped; None if there is none."""
    found = [word for number, line in enumerate(lines) for word in _words(line, lines[number + 1 :], columns)]
    return next((word for word in reversed(found) if _TOKEN.fullmatch(word)), None)


def _words(line: str, following: Iterable[str], columns: int) -> Iterable[str]:
    """Yield the words of a line, the last one with its continuation if the line is full."""
    for match in _RUN.finditer(line):
        word, end = match[0], match.end()
        for each in following:
            # A wrapped word has all of the next line but a frame.
            rest = _NEXT_LINE.fullmatch(each) if end >= columns - _EDGE else None
            if not rest:
                break
            word, end = word + rest[1], rest.end(1)
        yield word
