"""Make shells complete the command line."""

import shlex
from collections.abc import Sequence

from claude_bottle.host.machine import ROOT

PROGRAM = "cli.py"


def completion(script: str, aliases: Sequence[str]) -> str:
    """Return click's completion script for this very cli.py, and for aliases of it.

    Click's scripts call the program by its bare name, which is on no PATH.
    """
    program = shlex.quote(str(ROOT / PROGRAM))
    names = [PROGRAM, *map(shlex.quote, aliases)]
    for old, new in (
        ("bash_complete $1", f"bash_complete {program}"),
        (f"zsh_complete {PROGRAM}", f"zsh_complete {program}"),
        (f"    (( ! $+commands[{PROGRAM}] )) && return 1\n", ""),
        (f"(commandline -t) {PROGRAM}", f"(commandline -t) {program}"),
        (f"_completion {PROGRAM}\n", f"_completion {' '.join(names)}\n"),
        (f"--command {PROGRAM}", " ".join(f"--command {name}" for name in names)),
    ):
        script = script.replace(old, new)
    return script
