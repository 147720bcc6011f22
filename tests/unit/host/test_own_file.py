"""What may be anybody's is looked at before it is read."""

import os
from pathlib import Path

import pytest

from claude_bottle.host import own_file


def test_a_small_file_of_ones_own_is_read(tmp_path: Path) -> None:
    (tmp_path / "own").write_bytes(b"x" * own_file.LONGEST)
    assert own_file.read(tmp_path / "own") == b"x" * own_file.LONGEST
    assert own_file.owns_folder(tmp_path)


@pytest.mark.parametrize("kind", ["large", "link", "fifo", "folder", "device", "none"])
def test_nothing_else_is(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "large":
        path.write_bytes(b"x" * (own_file.LONGEST + 1))
    elif kind == "link":
        (tmp_path / "own").write_bytes(b"x")
        path.symlink_to(tmp_path / "own")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path = Path("/dev/zero")
    with pytest.raises(OSError, match=r".*"):
        own_file.read(path)


def test_what_is_written_is_ones_own_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    for text in ("one", "two"):
        own_file.write(path, text)
        assert own_file.read(path, private=True) == f"{text}\n".encode()
    with pytest.raises(UnicodeEncodeError):
        own_file.write(path, "\xe9")
    assert own_file.read(path, private=True) == b"two\n"
    assert list(path.parent.iterdir()) == [path]


def test_another_users_is_not_read_and_their_folder_is_not_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs").write_bytes(b"x")
    monkeypatch.setattr("os.getuid", lambda: tmp_path.stat().st_uid + 1)
    monkeypatch.setattr("os.read", lambda *_: pytest.fail("it was read"))
    with pytest.raises(PermissionError):
        own_file.read(tmp_path / "theirs")
    assert not own_file.owns_folder(tmp_path)


def test_a_link_to_a_folder_of_ones_own_is_none(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "own")
    assert not own_file.owns_folder(tmp_path / "link")
    with pytest.raises(FileNotFoundError):
        own_file.owns_folder(tmp_path / "none")
