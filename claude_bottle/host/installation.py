"""Where the program is and what it is called: a checkout of the repository, or an installation of its wheel."""

import sys
from collections.abc import Mapping
from os.path import lexists
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_PACKED = _PACKAGE / "data"  # made by the build of the wheel; a checkout has none

INSTALLED = _PACKED.is_dir()
IMPORTS = _PACKAGE.parent  # the folder from which `claude_bottle` is imported
DATA = _PACKED if INSTALLED else IMPORTS  # Dockerfile, presets/, pipelock/ and agents/ are here
NAME = "claude-bottle" if INSTALLED else "cli.py"  # of the program's file


def command(words: str) -> str:
    """Return a command of this program as its user types it, such as `./cli.py cleanup`."""
    return f"{'' if INSTALLED else './'}{NAME} {words}"


def program() -> str:
    """Return the program for scripts to call: its path, or its bare name if an installer put it on PATH only."""
    path = Path(sys.executable).with_name(NAME) if INSTALLED else IMPORTS / NAME
    return str(path) if path.exists() else NAME


def itself() -> tuple[str, ...]:
    """Return the words of this process's command line before the user's own: what runs this very program again."""
    return (sys.executable, *sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1])


def text(path: Path) -> str:
    """Return a file of the package that goes elsewhere, without its leading comment, which ends at an empty line."""
    return "\n" + path.read_text(encoding="utf-8").partition("\n\n")[2]


def manifests(environ: Mapping[str, str], home: Path) -> Path:
    """Return the folder of manifests if no setting names one.

    A checkout has its own and never looks elsewhere. An installation has the user's, or the shipped one if there is
    none: what an installer wrote is not for users to edit.
    """
    base = environ.get("XDG_CONFIG_HOME", "")
    # XDG Base Directory Specification: a relative path is invalid and ignored.
    own = Path(base if base.startswith("/") else home / ".config", "claude-bottle", "agents")
    return own if INSTALLED and lexists(own) else DATA / "agents"


def shipped(path: Path) -> bool:
    """Return whether an installer wrote this file, so that the next upgrade replaces it."""
    return INSTALLED and path.resolve().is_relative_to(DATA.resolve())
