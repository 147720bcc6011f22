"""The files of all trusted certificates, as the program that runs in the bottle writes them."""

import base64
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from claude_bottle.bottle import trust

FIRST, SECOND = (
    f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n".encode() for body in ("AAAA", "BBBB")
)
DER = (b"\0\0\0", b"\x04\x10\x41")
STORE_HEAD = bytes.fromhex("feedfeed 00000002 00000002 00000002 0001 30 0000000000000000 0005 582e353039 00000003")


@pytest.mark.parametrize(
    ("system", "more", "pem", "der"),
    [
        (FIRST, SECOND, FIRST + b"\n" + SECOND, DER),
        (FIRST, b"", FIRST + b"\n", DER[:1]),
        (FIRST.rstrip(), SECOND, FIRST + SECOND, DER),
        (None, SECOND, SECOND, DER[1:]),
        (None, b"", b"", ()),
        (FIRST, SECOND.replace(b"BBBB", b"BBB"), FIRST + b"\n" + SECOND.replace(b"BBBB", b"BBB"), DER[:1]),
    ],
    ids=["both", "none-added", "no-newline-at-the-end", "no-system-store", "nothing", "not-base64"],
)
def test_what_is_trusted_is_the_images_own_and_what_was_added(
    tmp_path: Path, system: bytes | None, more: bytes, pem: bytes, der: tuple[bytes, ...]
) -> None:
    store = tmp_path / "system"
    if system is not None:
        store.write_bytes(system)
    (tmp_path / trust.MORE).write_bytes(more)
    trust.write(store, tmp_path, lambda: b"")
    assert (tmp_path / trust.PEM).read_bytes() == pem
    assert (tmp_path / trust.JAVA).read_bytes() == trust.key_store(der)


def test_the_sessions_authority_is_added_to_all(tmp_path: Path) -> None:
    store = tmp_path / "system"
    store.write_bytes(FIRST)
    (tmp_path / trust.MORE).write_bytes(b"")
    trust.write(store, tmp_path, lambda: SECOND)
    assert (tmp_path / trust.MORE).read_bytes() == SECOND
    assert (tmp_path / trust.PEM).read_bytes() == FIRST + b"\n" + SECOND
    assert (tmp_path / trust.JAVA).read_bytes() == trust.key_store(DER)


def test_javas_store_has_the_form_of_its_format() -> None:
    store = trust.key_store(DER)
    assert store.startswith(STORE_HEAD + DER[0])
    assert store[-20 - len(DER[1]) : -20] == DER[1]


@pytest.mark.parametrize(
    ("line", "code"),
    [(base64.b64encode(FIRST) + b"\n", 0), (b"\n", 0), (b"", 1), (base64.b64encode(FIRST), 1), (b"no base64\n", 1)],
    ids=["whole", "empty", "none", "cut", "no-base64"],
)
def test_nothing_is_written_without_the_line_of_the_authority(tmp_path: Path, line: bytes, code: int) -> None:
    program = shutil.copy(trust.__file__, tmp_path)
    ran = subprocess.run((sys.executable, "-I", "-S", program), input=line, capture_output=True, check=False)
    assert ran.returncode == code
    assert (tmp_path / trust.PEM).exists() == (tmp_path / trust.JAVA).exists() == (not code)
    assert (tmp_path / trust.MORE).exists() == (not code)


@pytest.mark.parametrize("own", [None, "passive_ftp = on"])
def test_wget_keeps_what_an_image_has_set(tmp_path: Path, own: str | None) -> None:
    """As the program it is: without the packages of this one, and with the file in the image root's."""
    folder = tmp_path / ".claude-bottle"
    folder.mkdir()
    program = shutil.copy(trust.__file__, folder)
    wgetrc = tmp_path / ".wgetrc"
    if own:
        wgetrc.write_text(own)
        wgetrc.chmod(0o444)
    subprocess.run((sys.executable, "-I", "-S", program), input=b"\n", check=True)
    lines = [line for line in wgetrc.read_text().splitlines() if line]
    assert lines == [*([own] if own else []), f"ca_certificate = {folder / trust.PEM}"]
