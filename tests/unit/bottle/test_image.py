"""What an image is built from decides its tag, and nothing else does."""

import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from claude_bottle.bottle import image
from claude_bottle.errors import ManifestError
from claude_bottle.manifest.bottle import PRESETS
from tests.support.scene import Scene

CA = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
LOOK = """#!/bin/sh
printf '%s\\n' "$@"
eval "cd \\"\\${$#}\\""
find . '(' -type f -o -type d ')' -printf '%m %p\\n' | sort -k 2 | paste -sd ,
exit 3
"""
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
    for path in (folder, folder / "sub"):
        path.chmod(0o755)
    for path in (folder / "Dockerfile", folder / "Dockerfile.other"):
        path.chmod(0o644)
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
    versions = (None, "2.1.331", "2.1.332")
    others = {
        image.base(base_image=base, ca=ca, claude=claude).tag
        for base in (None, "a", "b")
        for ca in (b"", CA)
        for claude in versions
    }
    assert len(others) == 18


def test_the_version_of_claude_is_of_a_bottles_own_image_too(folder: Path) -> None:
    newer = image.base(base_image=None, ca=b"", claude="2.1.332")
    assert newer.argv[-3:] == ("--build-arg", "CLAUDE_CODE_VERSION=2.1.332", "-")
    own = image.for_bottle(folder / "Dockerfile", newer)
    assert (own.claude, own.tag == image.for_bottle(folder / "Dockerfile", BASE).tag) == ("2.1.332", False)


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


def as_checked_out(folder: Path, umask: int) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            executable = path.is_dir() or path.name == "tool"
            path.chmod((0o777 if executable else 0o666) & ~umask)


def test_preset_builds_on_the_base_without_a_pull() -> None:
    assert sorted(image.PRESETS.iterdir()) == [image.PRESETS / f"{name}.Dockerfile" for name in PRESETS]
    built = image.for_preset("node", BASE, no_cache=True)
    assert built.argv == (
        *("docker", "build", "--force-rm", "--label", "claude-bottle.role=image", "--tag", built.tag, "--no-cache"),
        *("--build-arg", f"BASE_IMAGE={BASE.tag}", "-"),
    )
    other = image.base(base_image="other", ca=b"")
    tags = {image.for_preset(name, base).tag for name in PRESETS for base in (BASE, other)}
    assert len(tags) == 2 * len(PRESETS)
    assert built.tag in tags


@pytest.mark.parametrize("umask", [0o002, 0o007, 0o027, 0o077])
def test_bottle_image_does_not_depend_on_the_users_umask(folder: Path, scene: Scene, umask: int) -> None:
    (folder / "tool").write_text("#!/bin/sh\n")
    as_checked_out(folder, 0o022)
    usual = image.for_bottle(folder / "Dockerfile", BASE)
    as_checked_out(folder, umask)
    built = image.for_bottle(folder / "Dockerfile", BASE)
    assert built.tag == usual.tag
    scene.docker.write_text(LOOK)
    environ = {**os.environ, "PATH": f"{scene.docker.parent}:{os.environ['PATH']}", "TMPDIR": str(scene.tmp)}
    done = subprocess.run(built.argv, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 3, "docker's own exit code"
    *options, place, modes = done.stdout.splitlines()
    assert options == [*usual.argv[1:-2], place + "/Dockerfile"]
    assert modes == "755 .,644 ./Dockerfile,644 ./Dockerfile.other,755 ./sub,644 ./sub/file,755 ./tool"
    assert list(scene.tmp.iterdir()) == []


def test_a_signal_ends_docker_and_removes_the_copy(folder: Path, scene: Scene) -> None:
    folder.chmod(0o700)
    built = image.for_bottle(folder / "Dockerfile", BASE)
    scene.docker.write_text("#!/bin/sh\necho up\nexec sleep 600\n")
    environ = {**os.environ, "PATH": f"{scene.docker.parent}:{os.environ['PATH']}", "TMPDIR": str(scene.tmp)}
    with subprocess.Popen(built.argv, env=environ, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        assert len(list(scene.tmp.iterdir())) == 1
        child.terminate()
        assert child.stdout.read() == "", "the pipe's end is docker's"
    assert child.returncode == 143
    assert list(scene.tmp.iterdir()) == []


def test_a_copy_is_its_users_alone(folder: Path, scene: Scene) -> None:
    folder.chmod(0o700)
    scene.docker.write_text("#!/bin/sh\nls -ld $TMPDIR/* | cut -c 1-10\n")
    environ = {**os.environ, "PATH": f"{scene.docker.parent}:{os.environ['PATH']}", "TMPDIR": str(scene.tmp)}
    argv = image.for_bottle(folder / "Dockerfile", BASE).argv
    assert subprocess.run(argv, env=environ, capture_output=True, text=True, check=True).stdout == "drwx------\n"


def test_a_context_too_large_or_too_deep_is_a_fault_and_no_traceback(folder: Path) -> None:
    os.truncate(folder / "sub/file", (1 << 30) + 1)
    with pytest.raises(ManifestError, match=f"^{folder}: more than 100,000 files or 1 GiB; give the Dockerfile"):
        image.for_bottle(folder / "Dockerfile", BASE)
    (folder / "sub/file").unlink()
    before = image.for_bottle(folder / "Dockerfile", BASE).tag
    for depth in range(1, 1201):
        os.mkdir(f"{folder}{'/d' * depth}")  # noqa: PTH102  (a Path of so many parts is slow)
    assert image.for_bottle(folder / "Dockerfile", BASE).tag != before
    subprocess.run(("rm", "-rf", folder / "d"), check=True)  # pytest could not: it descends by recursion


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
