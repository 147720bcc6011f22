"""The installed program. Like the launcher of a checkout it keeps PYTHONPATH out of what it imports.

A user's PYTHONPATH may lead into a cloned repository, and an empty entry in it is the current directory. What comes
before this module cannot be kept out: the script that an installer makes imports `re`, `sys` and this package.
"""

import os
import sys


def main() -> None:
    """Run the command line in an isolated interpreter: this one, unless PYTHONPATH has changed what it imports."""
    if os.environ.get("PYTHONPATH") and not sys.flags.isolated:
        os.execv(sys.executable, (sys.executable, "-I", "-m", "claude_bottle", *sys.argv[1:]))
    from claude_bottle import cli

    cli.main(prog_name="claude-bottle")


if __name__ == "__main__":
    main()
