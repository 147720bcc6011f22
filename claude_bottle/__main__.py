"""The installed program. Like `cli.py` of a checkout, it imports nothing from PYTHONPATH.

A user's PYTHONPATH may contain a cloned repository, and an empty entry in it is the current directory. The imports
before this module cannot be protected: an installer's script imports `re`, `sys` and this package first.
"""

import os
import sys


def main() -> None:
    """Run the command line, in a new isolated interpreter if PYTHONPATH is set."""
    if os.environ.get("PYTHONPATH") and not sys.flags.isolated:
        os.execv(sys.executable, (sys.executable, "-I", "-m", "claude_bottle", *sys.argv[1:]))
    from claude_bottle import cli

    cli.main(prog_name="claude-bottle")


if __name__ == "__main__":
    main()
