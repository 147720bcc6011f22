"""What an image is built from decides its tag, and nothing else does."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from claude_bottle.bottle import image
from claude_bottle.errors import ManifestError

CA = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
BASE = image.base(base_image=None, ca=b"")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A build context with one of everything."""
    folder = tmp_path / "context"
    (folder / "sub").mkdir(parents=True)
    (folder / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM $BASE_IMAGE\n")
    (folder / "Dockerfile.other").write_text("ARG BASE_IMAGE\nFROM $BASE_IMAGE\n")
    (folder / "sub/file").write_text("one")
    (folder / "sub/file").chmod(0o644)
    (folder / "link").symlink_to("sub/file")
    (folder / "sub/up").symlink_to("..", target_is_directory=True)  # followed, it would never end
    os.mkfifo(folder / "fifo")  # opened, it would never end either
    return folder


def test_base_is_built_from_a_tar_on_stdin() -> None:
    built = image.base(base_image="debian:mine", ca=CA, pull=True, no_cache=True)
    assert built.argv == (
        *("docker", "build", "--force-rm", "--label", "claude-bottle.role=image", "--tag", built.tag),
        *("--no-cache", "--pull", "--build-arg", "BASE_IMAGE=debian:mine", "-"),
    )
    with tarfile.open(fileobj=io.BytesIO(built.context)) as tar:
        found = {entry.name: (entry.mtime, entry.uid, tar.extractfile(entry)) for entry in tar}
        contents = {name: file.read() for name, (_, _, file) in found.items() if file}
    assert contents == {"Dockerfile": image.DOCKERFILE.read_bytes(), "ca.crt": CA}
    assert {(mtime, uid) for mtime, uid, _ in found.values()} == {(0, 0)}


def test_base_without_options_leaves_the_pin_to_the_dockerfile() -> None:
    assert BASE.argv[-2:] == (BASE.tag, "-")
    assert b"ARG BASE_IMAGE=debian:bookworm-slim@sha256:" in image.DOCKERFILE.read_bytes()


def test_base_tag_follows_its_inputs_alone() -> None:
    assert image.base(base_image=None, ca=b"", pull=True, no_cache=True).tag == BASE.tag
    others = {image.base(base_image=base, ca=ca).tag for base in (None, "a", "b") for ca in (b"", CA)}
    assert len(others) == 6


@pytest.mark.parametrize("ca", [b"\x30\x82\x01", CA + b"-----BEGIN EC PRIVATE KEY-----\n"], ids=["der", "key"])
def test_base_takes_no_ca_file_that_has_no_place_in_an_image(ca: bytes) -> None:
    with pytest.raises(ManifestError, match="not a PEM file of certificates alone"):
        image.base(base_image=None, ca=ca)


def test_bottle_is_built_from_its_folder_on_the_base(folder: Path) -> None:
    built = image.for_bottle(folder / "Dockerfile", BASE, no_cache=True)
    assert built.argv == (
        *("docker", "build", "--force-rm", "--label", "claude-bottle.role=image", "--tag", built.tag, "--no-cache"),
        *("--build-arg", f"BASE_IMAGE={BASE.tag}", "--file", str(folder / "Dockerfile"), str(folder)),
    )
    assert built.context == b""


def relink(folder: Path) -> None:
    (folder / "link").unlink()
    (folder / "link").symlink_to("elsewhere")


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda folder: (folder / "sub/file").write_text("two"),
    "mode": lambda folder: (folder / "sub/file").chmod(0o755),
    "name": lambda folder: (folder / "sub/file").rename(folder / "sub/renamed"),
    "link": relink,
    "empty folder": lambda folder: (folder / "sub/empty").mkdir(),
    "kind": lambda folder: (folder / "fifo").unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_bottle_tag_follows_every_change_in_the_folder(folder: Path, change: Callable[[Path], object]) -> None:
    before = image.for_bottle(folder / "Dockerfile", BASE).tag
    change(folder)
    assert image.for_bottle(folder / "Dockerfile", BASE).tag != before


def test_bottle_tag_is_the_same_wherever_and_whenever(folder: Path) -> None:
    before = image.for_bottle(folder / "Dockerfile", BASE).tag
    os.utime(folder / "sub/file", (1, 1))
    moved = folder.rename(folder.parent / "moved")
    assert image.for_bottle(moved / "Dockerfile", BASE, no_cache=True).tag == before


def test_bottle_tag_follows_the_base_and_the_choice_of_dockerfile(folder: Path) -> None:
    other = image.base(base_image="other", ca=b"")
    files = (folder / "Dockerfile", folder / "Dockerfile.other")
    assert len({image.for_bottle(file, base).tag for file in files for base in (BASE, other)}) == 4


def test_unreadable_folder_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=f"^{tmp_path}/none: No such file or directory$"):
        image.for_bottle(tmp_path / "none/Dockerfile", BASE)
