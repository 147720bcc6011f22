"""What a session is doing: a word that Claude's own hooks write into a file of the bottle, and how it is read.

The agent can write there as well, so the file is a claim, never followed, and of which a few bytes are read.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from claude_bottle import PREFIX
from claude_bottle.process import container

Argv = tuple[str, ...]

FILE = f".{PREFIX}/state"  # below the agent's home
STARTING, WORKING, WAITS, UNKNOWN = "starting", "working", "waits", "?"
_WORDS = (STARTING, WORKING, WAITS)
_SIZE = max(map(len, _WORDS))  # bytes
_PATH = f"{container.HOME}/{FILE}"
_WAITING_TOOLS = "AskUserQuestion|ExitPlanMode"
# As measured with 2.1.331: docs/facts.md. A tool's use says "working" again after a message that was queued, whose own
# event comes before the end of the one before it. After Esc there is no event. Notifications come late, even after the
# next message, and tell nothing that the others do not.
_EVENTS = (
    ("UserPromptSubmit", "", WORKING),
    ("PreToolUse", "", WORKING),
    ("PostToolUse", _WAITING_TOOLS, WORKING),
    ("ElicitationResult", "", WORKING),
    ("PermissionRequest", "", WAITS),
    ("Elicitation", "", WAITS),
    ("Stop", "", WAITS),
    ("StopFailure", "", WAITS),
)
_HOOK_SECONDS = 5  # for a file that the agent has made a full FIFO

# The words have one size, so that one write in place replaces one by the other: no reader sees a part. 1<> neither
# truncates nor waits. Never a failure: the exit code 2 of a shell would forbid what the hook is about.
_WRITE = "printf '%s' 2>/dev/null 1<>%s || :"

# Neither a link, a FIFO, a device nor a large file holds this up. No folder yet: what fills the home comes later.
_READ = f"""
cd {container.HOME} || exit
word() {{
  if [[ -d {FILE.partition("/")[0]} ]]; then
    /usr/bin/dd if={FILE} iflag=nofollow,nonblock bs={_SIZE} count=1 status=none
  else
    printf {STARTING}
  fi
}}
exec 2>/dev/null
"""
# The kernel's own files, of either version of cgroups; nothing where they are not.
_LOOK = r"""
echo
cd /sys/fs/cgroup
look() {
  if [[ -f cpu.stat ]]; then read -r _ used <cpu.stat; used+=000; else used=$(<cpuacct/cpuacct.usage); fi
  echo "$EPOCHREALTIME $used"
}
look
read -rt 0.25 _ <> <(:)
look
if [[ -f memory.current ]]; then echo "$(<memory.current)"; else echo "$(<memory/memory.usage_in_bytes)"; fi
while read -r key value; do
  [[ $key == inactive_file || $key == total_inactive_file ]] && inactive=$value
done < <(cat memory.stat memory/memory.stat)
echo "$inactive"
"""
# Ends with its stdin, which the launcher holds. A word counts once it was there twice: one between two others does not.
_FOLLOW = """
while :; do
  now=$(word)
  [[ $now == "$last" && $now != "$told" ]] && { told=$now; printf '%s\\n' "$now"; }
  last=$now
  read -rt 1 _ || (( $? > 128 )) || exit
done
"""
_USAGE = re.compile(rb"(\d{1,12}\.\d{6}) (\d{1,19})\n(\d{1,12}\.\d{6}) (\d{1,19})\n(\d{1,19})\n(\d{1,19})\n")


@dataclass(frozen=True)
class Usage:
    """What a bottle uses: `cpu` in percent of one CPU, over a quarter of a second, and `memory` in bytes."""

    cpu: float
    memory: int


def hooks(*, idle: bool) -> Mapping[str, object]:
    """Return Claude's setting of hooks; `idle` is whether it begins by waiting: on a terminal, without a prompt."""
    events = (*_EVENTS, *((("SessionStart", "startup|resume", WAITS),) if idle else ()))
    return {
        event: [{"matcher": matcher, "hooks": [{"type": "command", "command": _write(text), "timeout": _HOOK_SECONDS}]}]
        for event, matcher, text in events
    }


def first() -> bytes:
    """Return the content of the file before Claude has begun."""
    return STARTING.ljust(_SIZE).encode()


def query(name: str, *, usage: bool) -> Argv:
    """Return the command that prints what the file of a bottle holds, then its usage if that is wanted."""
    return container.execute(name, "/bin/bash", "-c", f"{_READ}word{_LOOK if usage else ''}")


def follow(name: str) -> Argv:
    """Return the command that prints each new word of a bottle's file as a line, until its stdin ends."""
    return container.execute(name, "/bin/bash", "-c", _READ + _FOLLOW)


def word(said: bytes) -> str:
    """Return which of the words it is; UNKNOWN for anything else."""
    found = said.partition(b"\n")[0][:_SIZE].decode("ascii", "replace").rstrip(" ")
    return found if found in _WORDS else UNKNOWN


def usage(said: bytes) -> Usage | None:
    """Return the usage in the rest of what `query` prints; None if it is none."""
    found = _USAGE.fullmatch(said.partition(b"\n")[2])
    if not found:
        return None
    before, after = float(found[1]), float(found[3])
    used, more, memory, inactive = (int(found[number]) for number in (2, 4, 5, 6))
    if after <= before:
        return None
    return Usage(max(0.0, (more - used) / (after - before) / 1e7), max(0, memory - inactive))


def _write(text: str) -> str:
    return _WRITE % (text.ljust(_SIZE), _PATH)
