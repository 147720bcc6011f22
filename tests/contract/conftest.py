"""The sidecars under test: one for the rows, one whose configuration the reload rows replace."""

import os
from collections.abc import Iterator

import pytest

from claude_bottle.egress import allowlist
from tests.contract.rig import Rig, Sidecar
from tests.world import standin

ZONE: dict[str, list[str] | list[list[str]]] = {
    "allowed.test": ["here"],
    "new.test": ["here"],
    "wild.test": ["here"],
    "one.wild.test": ["here"],
    "one.two.three.wild.test": ["here"],
    "kq3xz7wv9m2pt8rn5yb1.wild.test": ["here"],
    "private.test": ["10.1.2.3"],
    "loopback.test": ["127.0.0.1"],
    "metadata.test": ["169.254.169.254"],
    "mixed.test": ["here", "192.168.1.1"],
    "mapped.test": ["::ffff:172.16.1.1"],
    "rebinding.test": [["here"], ["10.1.2.3"]],
    "pinned.test": ["here"],
}
ALLOWED = (
    "*.wild.test", "allowed.test", "loopback.test", "mapped.test", "metadata.test", "missing.test", "mixed.test",
    "private.test", "rebinding.test",
)  # fmt: skip
#: names that have an address of the sidecar's own instead of one from the name server
PINNED = dict.fromkeys(("pinned.test", "unlisted.test", "untrusted.test"), "127.0.0.1")
TRUSTING = allowlist.config((*ALLOWED, "pinned.test", "untrusted.test")) + (
    b"trusted_domains: [pinned.test, unlisted.test]\n"
)


@pytest.fixture(scope="session")
def rig() -> Iterator[Rig]:
    rig = Rig(os.environ.get("CLAUDE_BOTTLE_PIPELOCK_IMAGE") or standin.build())
    with rig.undo:
        rig.up(ZONE)
        yield rig


@pytest.fixture(scope="session")
def sidecar(rig: Rig) -> Sidecar:
    return rig.sidecar(1, allowlist.config(ALLOWED))


@pytest.fixture(scope="session")
def reloaded(rig: Rig) -> Sidecar:
    """A sidecar of the reload rows' own."""
    return rig.sidecar(2, allowlist.config(ALLOWED))


@pytest.fixture(scope="session")
def trusting(rig: Rig) -> Sidecar:
    """A sidecar in which names have given addresses, some of them trusted."""
    return rig.sidecar(4, TRUSTING, PINNED)
