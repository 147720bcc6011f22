"""What an image is built from, and its tag: a hash of that, so that an edit rebuilds and nothing else does."""

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from claude_bottle.documents.escaping import harmless
from claude_bottle.errors import ManifestError
from claude_bottle.host import installation

DOCKERFILE = installation.DATA / "Dockerfile"


@dataclass(frozen=True)
class Image:
    """An image by its `tag`, the `docker build` that makes it, and the tar it reads on stdin (empty: none)."""

    tag: str
    argv: tuple[str, ...]
    context: bytes = field(repr=False)


def base(*, base_image: str | None, ca: bytes, pull: bool = False, no_cache: bool = False) -> Image:
    """Describe the agent's image, built on `base_image` (None: the pin in the Dockerfile) and trusting the PEM `ca`.

    Raises ManifestError if `ca` is neither empty nor certificates alone.
    """
    if ca and (b"-----BEGIN CERTIFICATE-----" not in ca or b"PRIVATE KEY-----" in ca):
        raise ManifestError("CLAUDE_BOTTLE_BUILD_CA: not a PEM file of certificates alone")
    context = _tar(("Dockerfile", DOCKERFILE.read_bytes()), ("ca.crt", ca))
    args = _base_arg(base_image)
    tag = _tag(*args, hashlib.sha256(context).hexdigest())
    return Image(tag, (*_build(tag, no_cache), *_pull(pull), *args, "-"), context)


def for_bottle(dockerfile: Path, base: Image, *, no_cache: bool = False) -> Image:
    """Describe a bottle's own image: `dockerfile`, its folder as the context, and `base` as the build arg BASE_IMAGE.

    Docker reads the folder by itself, as it would for the user: a .dockerignore holds, and it is not in memory here.
    There is no pull: `base` is on the engine alone, and a registry would be asked for it. Raises ManifestError if the
    folder cannot be read.
    """
    args = _base_arg(base.tag)
    try:
        tag = _tag(*args, dockerfile.name, _digest(dockerfile.parent))
    except OSError as error:
        raise ManifestError(f"{harmless(str(error.filename))}: {error.strerror}") from error
    source = ("--file", str(dockerfile), str(dockerfile.parent))
    return Image(tag, (*_build(tag, no_cache), *args, *source), b"")


def _build(tag: str, no_cache: bool) -> tuple[str, ...]:
    # Without --force-rm the classic builder leaves the container of a RUN that failed.
    argv = ("docker", "build", "--force-rm", "--label", "claude-bottle.role=image", "--tag", tag)
    return (*argv, "--no-cache") if no_cache else argv


def _pull(pull: bool) -> tuple[str, ...]:
    return ("--pull",) if pull else ()


def _base_arg(image: str | None) -> tuple[str, ...]:
    return ("--build-arg", f"BASE_IMAGE={image}") if image else ()


def _tag(*inputs: str) -> str:
    return f"claude-bottle:{hashlib.sha256(repr(inputs).encode()).hexdigest()[:12]}"


def _tar(*files: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in sorted(files):
            entry = tarfile.TarInfo(name)  # uid 0, mode 0644 and the same time (0) whenever it is made
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def _digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(_walk(folder), key=os.fsencode):
        mode = path.lstat().st_mode
        total.update(repr((os.fsencode(path.relative_to(folder)), mode, _content(path, mode))).encode())
    return total.hexdigest()


def _walk(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise error

    for parent, folders, files in os.walk(folder, onerror=fail):  # does not follow links, but lists them
        yield from (Path(parent, name) for name in (*folders, *files))


def _content(path: Path, mode: int) -> bytes:
    if stat.S_ISLNK(mode):
        return os.fsencode(path.readlink())
    if not stat.S_ISREG(mode):  # opening a FIFO would wait for ever
        return b""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
