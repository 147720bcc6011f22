"""The launcher's image: what it is built from, and its tag."""

import hashlib
import importlib.util
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

from claude_bottle.bottle.image import Image
from claude_bottle.host import installation

NAME = "claude-bottle-launcher"
_DOCKERFILE = Path(__file__).with_name("launcher.Dockerfile")
_PACKAGES = ("click", "pexpect", "ptyprocess", "ruamel")  # those of this program's own interpreter
_DATA = ("Dockerfile", "presets", "pipelock")


def launcher(base: Image) -> Image:
    """Describe the launcher's image, built on `base`; raises OSError."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        for name, path in sorted(_files()):
            entry = tarfile.TarInfo(name)
            entry.size = path.stat().st_size
            with path.open("rb") as file:
                tar.addfile(entry, file)
    data = context.getvalue()
    tag = f"{NAME}:{hashlib.sha256(base.tag.encode() + data).hexdigest()[:12]}"
    argv = ("docker", "build", "--force-rm", "--label", "claude-bottle.role=image", "--tag", tag)
    return Image(tag, (*argv, "--build-arg", f"BASE_IMAGE={base.tag}", "-"), data)


def _files() -> Iterator[tuple[str, Path]]:
    yield "Dockerfile", _DOCKERFILE
    yield from _below("launcher/claude_bottle", installation.IMPORTS / "claude_bottle")
    for name in () if installation.INSTALLED else _DATA:
        yield from _below(f"launcher/{name}", installation.DATA / name)
    for name in _PACKAGES:
        found = importlib.util.find_spec(name)
        for folder in (found.submodule_search_locations or ()) if found else ():
            yield from _below(f"launcher/packages/{name}", Path(folder))


def _below(name: str, path: Path) -> Iterator[tuple[str, Path]]:
    if path.is_file():
        yield name, path
        return
    for each in path.rglob("*"):
        if each.is_file() and "__pycache__" not in each.parts:
            yield f"{name}/{each.relative_to(path)}", each
