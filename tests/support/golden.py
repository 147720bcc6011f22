"""Golden files: what a reviewer reads instead of an assertion, an option and its value on one line."""

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from claude_bottle.session.steps import Kind, Step

_MANIFEST = re.compile(r"(?<=^claude-bottle.manifest)=.*(?=/bottles/)")
_FOLDER = Path(__file__).parents[1] / "unit" / "session" / "golden"


def same(name: str, text: str) -> None:
    """Compare `text` with the golden file; CLAUDE_BOTTLE_GOLDEN=write writes it anew, for review."""
    path = _FOLDER / f"{name}.txt"
    if os.environ.get("CLAUDE_BOTTLE_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


def lines(argv: Sequence[str]) -> str:
    """Return an argv for review, without the folder that a test has its manifests in."""
    return wrapped([_MANIFEST.sub("=<agents>", word) for word in argv])


def wrapped(argv: Sequence[str]) -> str:
    """Return an argv as a shell reads it, an option and the word after it on one line; `shlex.split` takes it back."""
    rows = list[list[str]]()
    for word in argv:
        full = not rows or (_is_option(rows[-1][0]) and len(rows[-1]) == 2)
        if full or _is_option(word):
            rows.append([])
        rows[-1].append(word)
    return "".join(f"  {shlex.join(row)}\n" for row in rows)


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-"  # which is stdin


def describe(step: Step) -> str:
    """Return all of a step but the bytes of a tar stream, a program or a key."""
    whole = b"\0" not in step.stdin and b"PRIVATE KEY" not in step.stdin and len(step.stdin) < 4096
    text = f"stdin{'' if whole else ' not shown here'}\n" if step.stdin else ""
    rules = "".join(f"  {line}\n" for line in step.stdin.decode().splitlines()) if whole else ""
    feed = step.stdin_from
    parts = [
        f"== {step.name}\n",
        f"needs {' '.join(step.needs)}\n" if step.needs else "",
        f"stdin after {' '.join(step.stdin_after)}\n" if step.stdin_after else "",
        f"rest of stdin after {' '.join(step.quote_after)}\n" if step.quote_after else "",
        f"is {step.kind.value}\n" if step.kind is not Kind.COMMAND else "",
        f"env {' '.join(step.env)}\n" if step.env else "",
        f"skip if\n{lines(step.skip_if)}" if step.skip_if else "",
        f"argv\n{lines(step.argv)}",
        text + rules,
        f"then what comes of\n{lines(feed.argv)}given\n  {feed.stdin.decode()}" if feed else "",
        f"undo\n{lines(step.undo)}" if step.undo else "",
    ]
    return "".join(parts)
