"""The sizes in a pack: as git says they are, and before anything is unpacked."""

import os
from collections import Counter
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from claude_bottle.errors import RepositoryError
from claude_bottle.repository import packfile
from tests.support.packs import Blob, Tree, by_name, by_offset, packed, raw
from tests.support.repos import Ground


def sizes(pack: bytes, start: int = 0) -> list[int]:
    with TemporaryFile() as file:
        file.write(b"x" * start + pack)
        file.flush()
        position = os.lseek(file.fileno(), 0, os.SEEK_CUR)
        found = list(packfile.sizes(file.fileno(), start, 20))
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == position
        return found


@pytest.mark.parametrize("start", [0, 100])
def test_sizes_of_whole_objects(start: int) -> None:
    lengths = [0, 1, 15, 16, 500, 513, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, 3_000_000]
    noise = [os.urandom(length) for length in lengths]
    assert sizes(packed(*((Blob, data) for data in noise), (Tree, b"")), start) == [*lengths, 0]
    assert sizes(packed(*((Blob, bytes(length)) for length in lengths)), start) == lengths


def test_a_delta_has_two_sizes() -> None:
    source = b"x" * 1000
    base = raw(Blob, source)
    delta = b"\xe8\x07\xd0\x0f" + b"\xb0\xe8\x03" * 2  # of 1000 bytes, to 2000
    whole = packfile_of(base, by_offset(delta, len(base)), by_name(delta, "1" * 40))
    assert sizes(whole) == [1000, len(delta), 2000, len(delta), 2000]


def packfile_of(*objects: bytes) -> bytes:
    return b"PACK" + (2).to_bytes(4) + len(objects).to_bytes(4) + b"".join(objects) + bytes(20)


def test_git_agrees(ground: Ground) -> None:
    """On a pack of its own, with chains of deltas."""
    text = [os.urandom(40).hex() for _ in range(200)]
    for number in range(30):
        text[number * 5] = f"changed {number}"
        ground.user.commit(f"{number}", large="\n".join(text))
    ground.user.git("repack", "-a", "-d", "-f", "--quiet")
    (pack,) = (ground.user.path / ".git" / "objects" / "pack").glob("*.pack")
    with pack.open("rb") as file:
        found = Counter(packfile.sizes(file.fileno(), 0, 20))
        many = packfile.count(file.fileno(), 0)
    said = ground.user.git("cat-file", "--batch-all-objects", "--batch-check=%(objectsize) %(deltabase)").splitlines()
    deltas = sum(not line.endswith("0" * 40) for line in said)
    assert deltas > 20
    assert not Counter(int(line.split()[0]) for line in said) - found
    assert (found.total(), many) == (len(said) + deltas, len(said))


def test_a_size_is_known_before_anything_is_unpacked(tmp_path: Path) -> None:
    """Of an object, and of a delta's result: what follows need not even be there."""
    path = tmp_path / "pack"
    path.write_bytes(packfile_of(raw(Blob, b"", size=1 << 50)[:9]))
    with path.open("rb") as file:
        assert next(packfile.sizes(file.fileno(), 0, 20)) == 1 << 50


MALFORMED = {
    "no pack": b"PUCK" + bytes(100),
    "empty": b"",
    "truncated": packed((Blob, os.urandom(1000)))[:500],
    "fewer objects than it says": b"PACK" + (2).to_bytes(4) + (3).to_bytes(4) + raw(Blob, b"x"),
    "larger than it says": packfile_of(raw(Blob, b"x" * 100, size=99)),
    "smaller than it says": packfile_of(raw(Blob, b"x" * 100, size=101)),
    "much larger than it says": packfile_of(raw(Blob, bytes(10 << 20), size=1)),
    "no such kind": packfile_of(raw(5, b"x")),
    "kind 0": packfile_of(raw(0, b"x")),
    "endless size": packfile_of(b"\xbf" + b"\xff" * 30),
    "endless offset": packfile_of(raw(6, b"", data=b"\xff" * 30)),
    "not compressed": packfile_of(raw(Blob, b"", data=b"x" * 30)),
    "delta without sizes": packfile_of(by_name(b"", "1" * 40)),
    "delta without the size of a result": packfile_of(by_name(b"\xe8\x07", "1" * 40)),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_what_is_no_pack_is_refused(case: str) -> None:
    with pytest.raises(RepositoryError, match=r"^the bundle"):
        sizes(MALFORMED[case])


def test_checksums_are_gits_own_business() -> None:
    assert sizes(packed((Blob, b"x"))[:-20] + bytes(20)) == [1]
