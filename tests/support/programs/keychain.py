"""Stands for `secret-tool` and for `security`, by its name: keeps one secret in a file beside it, and notes each call.

What they print and how they exit is as seen of secret-tool 0.20 and as documented of macOS; a file `locked` beside it
makes it wait as for a password, `broken` fail.
"""

import json
import shlex
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
SECRET, NAME = HERE / "secret", Path(sys.argv[0]).name


def fail(code: int, said: str = "") -> None:
    print(said, file=sys.stderr)
    sys.exit(code)


def load() -> None:
    print(SECRET.read_text(), end="" if NAME == "secret-tool" else "\n")


def interactive(text: str) -> None:
    """As `security -i`: whatever becomes of a command, it goes on and succeeds."""
    for line in text.splitlines():
        words = shlex.split(line)
        if words[:2] == ["add-generic-password", "-U"] and not (HERE / "full").exists():
            SECRET.write_text(words[words.index("-w") + 1])


def main() -> None:
    stdin = sys.stdin.read()
    with (HERE / "calls").open("a") as calls:
        calls.write(json.dumps({"argv": [NAME, *sys.argv[1:]], "stdin": stdin}) + "\n")
    if (HERE / "locked").exists():
        time.sleep(300)
    if (HERE / "broken").exists():
        fail(1, f"{NAME}: Cannot autolaunch D-Bus without X11 $DISPLAY")
    act(sys.argv[1:], stdin)


def act(words: list[str], stdin: str) -> None:
    match words:
        case ["lookup" | "clear", *_] if not SECRET.exists():
            sys.exit(1)
        case ["find-generic-password" | "delete-generic-password", *_] if not SECRET.exists():
            fail(44, "security: The specified item could not be found in the keychain.")
        case ["lookup" | "find-generic-password", *_]:
            load()
        case ["clear" | "delete-generic-password", *_]:
            SECRET.unlink()
        case ["store", *_]:
            SECRET.write_text(stdin)
        case ["-i"]:
            interactive(stdin)
        case _:
            fail(2)


main()
