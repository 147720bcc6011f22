"""Debian packages, from the sources that this machine already has."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from tests.world.shell import attempt, need_root, run, say

POLICY = Path("/usr/sbin/policy-rc.d")
INSTALL = ("apt-get", "install", "--yes", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300")
QUIET = {"DEBIAN_FRONTEND": "noninteractive"}


def install(*packages: str) -> None:
    """Install packages; the lists are fetched anew only where the ones at hand do not do."""
    need_root(f"{', '.join(packages)} must be installed")
    with no_services():
        if attempt(*INSTALL, *packages, env=QUIET).returncode != 0:
            attempt("apt-get", "update", env=QUIET)
            run(*INSTALL, *packages, env=QUIET)
    say(f"installed {', '.join(packages)}")


@contextlib.contextmanager
def no_services() -> Iterator[None]:
    """Keep packages from starting services where no systemd is there to do it: init scripts could hang."""
    if POLICY.exists() or Path("/run/systemd/system").exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


def mirror(label: str) -> str | None:
    """Return the URI that this machine gets the archive `label` from ("Debian", "Debian-Security"), if any."""
    found = _known_mirror(label)
    if found is None:  # apt knows the labels of archives only while it has their lists
        attempt("apt-get", "update", env=QUIET)
        found = _known_mirror(label)
    return found


def _known_mirror(label: str) -> str | None:
    targets = run("apt-get", "indextargets", "--format", "$(LABEL)|$(REPO_URI)", "Created-By: Packages")
    found = re.search(rf"^{label}\|(\S+?)/?$", targets, re.MULTILINE)
    return found[1] if found else None
