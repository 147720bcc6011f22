"""Write the files of all trusted certificates, for the tools that ask for one file of their own.

A program of its own: it runs in the bottle, as the agent, before anything of the agent's does, from the folder that it
writes to. Standard library alone. stdin: the session's authority, PEM in base64, as a line, which comes late.
"""

import base64
import contextlib
import hashlib
import re
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

SYSTEM = Path("/etc/ssl/certs/ca-certificates.crt")  # the image's own list
MORE = "more-ca.pem"  # trusted besides
PEM, JAVA = "ca.pem", "ca.jks"
_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
_MAGIC, _VERSION, _TRUSTED = 0xFEEDFEED, 2, 2
_SALT = "changeit".encode("utf-16-be") + b"Mighty Aphrodite"  # the password that every such store has; no secret


def write(system: Path, folder: Path, authority: Callable[[], bytes]) -> None:
    """Write PEM and JAVA into `folder`: the certificates of `system`, if there is one, of MORE, and of `authority`.

    `authority` is called when all else is read; what it returns, in PEM, is added to MORE, too. Raises OSError if a
    file cannot be read or written.
    """
    pem = b"\n".join(path.read_bytes() for path in (system, folder / MORE) if path.exists())
    known = tuple(_certificates(pem))
    added = authority()
    with (folder / MORE).open("ab") as more:
        more.write(added)
    (folder / PEM).write_bytes(pem + added)
    (folder / JAVA).write_bytes(key_store((*known, *_certificates(added))))


def key_store(certificates: tuple[bytes, ...]) -> bytes:
    """Return a Java key store (format JKS, which every Java reads) that trusts certificates, given in DER."""
    parts = [struct.pack(">III", _MAGIC, _VERSION, len(certificates))]
    for number, certificate in enumerate(certificates):
        parts += [struct.pack(">I", _TRUSTED), _text(str(number)), struct.pack(">Q", 0)]  # alias, time
        parts += [_text("X.509"), struct.pack(">I", len(certificate)), certificate]
    store = b"".join(parts)
    return store + hashlib.sha1(_SALT + store).digest()  # noqa: S324  (the format's own)


def _certificates(pem: bytes) -> Iterator[bytes]:
    for match in _BLOCK.finditer(pem):
        with contextlib.suppress(ValueError):  # one that is none
            yield base64.b64decode(match[1])


def _given() -> bytes:
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        sys.exit("no session's authority came")
    return base64.b64decode(line.rstrip(), validate=True)


def _text(text: str) -> bytes:
    return struct.pack(">H", len(text)) + text.encode()


if __name__ == "__main__":
    here = Path(__file__).parent
    wgetrc = here.parent / ".wgetrc"  # wget asks no variable for a file
    text = wgetrc.read_text() if wgetrc.exists() else ""
    wgetrc.unlink(missing_ok=True)  # an image's may be root's
    wgetrc.write_text(f"{text}\nca_certificate = {here / PEM}\n")
    write(SYSTEM, here, _given)
