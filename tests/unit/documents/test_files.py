"""Files that are read only as far as was agreed."""

import errno
import os
from pathlib import Path

import pytest

from claude_bottle.documents import files
from tests.support import systems


def test_a_file_of_the_largest_size_is_read_and_a_larger_one_is_not(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 10)
    assert files.read(file, 10) == b"x" * 10
    with pytest.raises(OSError, match="larger than") as caught:
        files.read(file, 9)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(file))


@systems.needs_linux("/proc")
def test_a_file_that_states_no_size_is_not_read_without_end() -> None:
    with pytest.raises(OSError, match="larger than") as caught:
        files.read(Path("/proc/self/smaps"), 100)
    assert caught.value.errno == errno.EFBIG


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = Path("/dev/zero") if kind == "device" else tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(OSError, match="not a file") as caught:
        files.read(path)
    assert (caught.value.strerror, caught.value.filename) == ("not a file", str(path))


def test_a_link_is_followed_only_if_wanted(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    assert files.read(tmp_path / "link") == b"x"
    with pytest.raises(OSError, match="symbolic links"):
        files.opened(tmp_path / "link", follow=False)
