"""Golden files: what a reviewer reads instead of an assertion, one argument a line."""

import os
import re
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
    """Return an argv, one argument a line, without the folder that a test has its manifests in."""
    return "".join(f"  {_MANIFEST.sub('=<agents>', word)}\n" for word in argv)


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
        f"is {step.kind.value}\n" if step.kind is not Kind.COMMAND else "",
        f"env {' '.join(step.env)}\n" if step.env else "",
        f"skip if\n{lines(step.skip_if)}" if step.skip_if else "",
        f"argv\n{lines(step.argv)}",
        text + rules,
        f"then what comes of\n{lines(feed.argv)}given\n  {feed.stdin.decode()}" if feed else "",
        f"undo\n{lines(step.undo)}" if step.undo else "",
    ]
    return "".join(parts)
