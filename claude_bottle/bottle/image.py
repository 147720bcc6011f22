"""What an image is built from, and its tag: a hash of that, so that an edit rebuilds and nothing else does."""

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.documents.files import opened
from claude_bottle.errors import ManifestError
from claude_bottle.host import installation

_MOST_FILES, _MOST_BYTES = 100_000, 1 << 30  # of a build context, which is read whole at each start
DOCKERFILE = installation.DATA / "Dockerfile"
PRESETS = installation.DATA / "presets"


@dataclass(frozen=True)
class Image:
    """An image by its `tag`, the `docker build` that makes it, and the tar it reads on stdin (empty: none)."""

    tag: str
    argv: tuple[str, ...]
    context: bytes = field(repr=False)
    claude: str | None = None  # the version of Claude Code, if it is not the Dockerfile's


def base(
    *, base_image: str | None, ca: bytes, claude: str | None = None, pull: bool = False, no_cache: bool = False
) -> Image:
    """Describe the agent's image, with this `base_image` and version of `claude`, and trusting the PEM `ca`.

    None: the pin in the Dockerfile.
    Raises ManifestError if `ca` is neither empty nor certificates alone.
    """
    if ca and (b"-----BEGIN CERTIFICATE-----" not in ca or b"PRIVATE KEY-----" in ca):
        raise ManifestError("CLAUDE_BOTTLE_BUILD_CA: not a PEM file of certificates alone")
    context = _tar(("Dockerfile", DOCKERFILE.read_bytes()), ("ca.crt", ca))
    args = (*_arg("BASE_IMAGE", base_image), *_arg("CLAUDE_CODE_VERSION", claude))
    tag = _tag(*args, hashlib.sha256(context).hexdigest())
    return Image(tag, (*_build(tag, no_cache), *_pull(pull), *args, "-"), context, claude)


def for_preset(name: str, base: Image, *, no_cache: bool = False) -> Image:
    """Describe the image with a language's tools, one of `manifest.bottle.PRESETS`, built on `base` without a pull."""
    context = _tar(("Dockerfile", (PRESETS / f"{name}.Dockerfile").read_bytes()))
    args = _arg("BASE_IMAGE", base.tag)
    tag = _tag(*args, hashlib.sha256(context).hexdigest())
    return Image(tag, (*_build(tag, no_cache), *args, "-"), context, base.claude)


def for_bottle(dockerfile: Path, base: Image, *, no_cache: bool = False) -> Image:
    """Describe a bottle's own image: `dockerfile`, its folder as the context, and `base` as the build arg BASE_IMAGE.

    Docker reads the folder by itself, as it would for the user: a .dockerignore holds, and it is not in memory here. If
    its modes are not those that the usual umask gives, a copy with these is read: the image is the same whoever checked
    the folder out. There is no pull: `base` is on the engine alone, and a registry would be asked for it.
    Raises ManifestError if the folder cannot be read or is too large.
    """
    folder, args = dockerfile.parent, _arg("BASE_IMAGE", base.tag)
    try:
        files = sorted(_walk(folder), key=lambda file: file.name)
        tag = _tag(*args, dockerfile.name, _digest(files))
    except OSError as error:
        raise ManifestError(f"{escape_control_chars(str(error.filename))}: {error.strerror}") from error
    build = (*_build(tag, no_cache), *args)
    if all(file.has_usual_mode for file in files):
        return Image(tag, (*build, "--file", str(dockerfile), str(folder)), b"", base.claude)
    script = installation.text(Path(__file__).with_name("build.sh"))
    return Image(tag, ("/bin/sh", "-c", script, "sh", str(folder), dockerfile.name, *build), b"", base.claude)


def _build(tag: str, no_cache: bool) -> tuple[str, ...]:
    # Without --force-rm the classic builder leaves the container of a RUN that failed.
    argv = ("docker", "build", "--force-rm", "--label", "claude-bottle.role=image", "--tag", tag)
    return (*argv, "--no-cache") if no_cache else argv


def _pull(pull: bool) -> tuple[str, ...]:
    return ("--pull",) if pull else ()


def _arg(name: str, value: str | None) -> tuple[str, ...]:
    return ("--build-arg", f"{name}={value}") if value else ()


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


@dataclass(frozen=True)
class _File:
    """Anything in a build context; `name` is its path there."""

    name: bytes
    path: Path
    mode: int
    size: int

    @property
    def usual_mode(self) -> int:
        """Return its mode as the usual umask, 022, makes it: it must not depend on the user's."""
        executable = stat.S_ISDIR(self.mode) or self.mode & 0o111
        return stat.S_IFMT(self.mode) | (0o755 if executable else 0o644)

    @property
    def has_usual_mode(self) -> bool:
        """Return whether its mode is that; of a link, or anything that docker does not copy, it does not matter."""
        return self.mode == self.usual_mode or not (stat.S_ISREG(self.mode) or stat.S_ISDIR(self.mode))


def _walk(folder: Path) -> Iterator[_File]:
    """Yield a build context, itself first; links are not followed.

    Raises OSError, or ManifestError if it is too large.
    """
    waiting, count, size = [_file(folder, b"")], 0, 0
    while waiting:
        file = waiting.pop()
        count, size = count + 1, size + (file.size if stat.S_ISREG(file.mode) else 0)
        if count > _MOST_FILES or size > _MOST_BYTES:
            most = f"{_MOST_FILES:,} files or {_MOST_BYTES >> 30} GiB"
            raise ManifestError(
                f"{escape_control_chars(str(folder))}: more than {most}; give the Dockerfile a folder of its own"
            )
        yield file
        if stat.S_ISDIR(file.mode):
            with os.scandir(file.path) as entries:
                rest = islice(entries, _MOST_FILES)
                waiting += [_file(Path(each.path), file.name + b"/" + os.fsencode(each.name)) for each in rest]


def _file(path: Path, name: bytes) -> _File:
    status = path.lstat()
    return _File(name, path, status.st_mode, status.st_size)


def _digest(files: Iterable[_File]) -> str:
    total = hashlib.sha256()
    for file in files:
        total.update(repr((file.name, file.usual_mode, _content(file))).encode())
    return total.hexdigest()


def _content(file: _File) -> bytes:
    if stat.S_ISLNK(file.mode):
        return os.fsencode(file.path.readlink())
    if not stat.S_ISREG(file.mode):
        return b""
    with opened(file.path, _MOST_BYTES, follow=False) as content:
        return hashlib.file_digest(content, "sha256").digest()
