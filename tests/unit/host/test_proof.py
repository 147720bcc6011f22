"""The key of a user's proofs, and what is proven with it."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from claude_bottle.host import proof


def test_the_key_is_made_once_and_for_its_user_alone(tmp_path: Path) -> None:
    path = proof.key_file(str(tmp_path / "state"), Path("/nobody"))
    assert path == tmp_path / "state/claude-bottle/key"
    assert proof.read_key(path) == b""
    with ThreadPoolExecutor(8) as pool:
        [key] = set(pool.map(proof.make_key, [path] * 8))
    assert (len(key), proof.read_key(path), list(path.parent.iterdir())) == (32, key, [path])
    assert [stat.S_IMODE(one.stat().st_mode) for one in (path, path.parent)] == [0o600, 0o700]


@pytest.mark.parametrize("setting", [None, "", "relative"])
def test_without_a_setting_it_is_in_the_users_home(setting: str | None) -> None:
    assert proof.key_file(setting, Path("/home/me")) == Path("/home/me/.local/state/claude-bottle/key")


@pytest.mark.parametrize("fault", ["short", "readable", "link", "folder"])
def test_a_key_that_others_may_know_is_none(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "key"
    if fault == "folder":
        path.mkdir()
    else:
        kept = tmp_path / "kept" if fault == "link" else path
        kept.write_bytes(b"k" * (31 if fault == "short" else 32))
        kept.chmod(0o644 if fault == "readable" else 0o600)
    if fault == "link":
        path.symlink_to(tmp_path / "kept")
    assert proof.read_key(path) == b""
    with pytest.raises(PermissionError):
        proof.make_key(path)


def test_a_proof_holds_for_its_key_and_fields_alone() -> None:
    made = proof.proof(b"k" * 32, "a", "b")
    assert proof.is_proof(made, b"k" * 32, "a", "b")
    for key, fields in (
        (b"l" * 32, ("a", "b")),
        (b"k" * 32, ("ab", "")),
        (b"k" * 32, ("a", "b", "")),
        (b"", ("a", "b")),
    ):
        assert not proof.is_proof(made, key, *fields)
    assert proof.proof(b"", "a") == ""
    assert not proof.is_proof("", b"", "a")
    assert not proof.is_proof("\ud800\xe9", b"k" * 32, "a")
