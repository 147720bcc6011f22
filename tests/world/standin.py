"""The stand-in for pipelock's image, which no package registry has: built from `pipelock/` beside this file."""

import hashlib
import io
import tarfile
from pathlib import Path

from tests.world.shell import attempt, run, say

_CONTEXT = Path(__file__).with_name("pipelock")


def image() -> str:
    """Return the tag, which names the inputs: an edit makes another image."""
    return f"claude-bottle-pipelock-standin:{hashlib.sha256(_context()).hexdigest()[:12]}"


def build() -> str:
    """Build the image unless the engine has it; return its tag."""
    tag = image()
    if attempt("docker", "image", "inspect", tag).returncode != 0:
        run("docker", "build", "--force-rm", "--tag", tag, "-", stdin=_context())
        say(f"built {tag}")
    return tag


def _context() -> bytes:
    """Pack what the Dockerfile takes, the same bytes for the same files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        sources = sorted(f"standin/{path.name}" for path in _CONTEXT.glob("standin/*.py"))
        for name in ("Dockerfile", "pipelock", *sources):
            content = (_CONTEXT / name).read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755 if name == "pipelock" else 0o644
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()
