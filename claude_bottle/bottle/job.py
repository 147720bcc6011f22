"""A program in a bottle as a job that can be stopped, and goes on when the user wants it to.

What `docker exec` starts on a terminal leads a session, and has no parent that would wake it when it stops.
"""

from claude_bottle.process.terminal import GO_ON, STOPPED

# Only -m, not `set -m`, has bash hand its terminal on to the job. A function that calls itself, as bash leaves a loop
# in which a job stops. Of what bash says, such as "Killed", nothing is shown. While the job is stopped, keys that were
# typed ahead are dropped, Ctrl-C among them.
_PROGRAM = rf"""
ended() {{
  code=$?
  jobs %% || exit $code
  trap '' INT QUIT
  word=$'{STOPPED.decode().encode("unicode_escape").decode()}'
  while IFS= read -rsN1 -p "$word" byte 2>&3 || exit; [[ $byte != $'\x{GO_ON[0]:02x}' ]]; do word=; done
  fg
  ended
}}
exec 3>&2 2>/dev/null
"$@" 2>&3 3>&-
ended >/dev/null
"""


def stoppable(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command that runs `argv` on a terminal, for `process.terminal.run` with `stops`."""
    return ("/bin/bash", "-mc", _PROGRAM, "bash", *argv)
