"""`make demo`: the demo agent's session, the real Claude Code through the real path, without an account."""

import os
import shutil
import sys

from tests import world
from tests.world import certificates

NOTICE = """
The demo: the real Claude Code, in a real bottle, behind the sidecar. But what
answers as Anthropic's API is a STAND-IN on this machine, not a model: no account
is used, and nothing goes to Anthropic. It does what a prompt like this one says:
    RUN: curl https://example.com
Claude Code then runs that in the bottle, and the sidecar refuses: the host is not
on the bottle's list.
"""
PROMPT = """\
RUN: echo "I am $(id -un) in $(pwd), and may do anything here."
RUN: curl --silent --show-error --max-time 10 https://example.com || echo "... and that was refused."
"""


def start() -> None:
    """Make the test world, then become `./cli.py start demo` in it."""
    ready = world.up()
    agents = certificates.cache() / "agents"
    shutil.rmtree(agents, ignore_errors=True)
    environ = os.environ | ready.environ(ready.copy_agents(agents))
    print(NOTICE, flush=True)
    command = str(world.REPOSITORY / "cli.py")
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    os.execve(command, (command, "start", "demo", *(() if terminal else ("--yes", "--print", PROMPT))), environ)
