"""Write the files of all trusted certificates, for the tools that ask for one file of their own.

A program of its own: it runs in the bottle, as the agent, before anything of the agent's does, from the folder that it
writes to. Standard library alone.
"""

import base64
import contextlib
import hashlib
import re
import struct
from collections.abc import Iterator
from pathlib import Path

SYSTEM = Path("/etc/ssl/certs/ca-certificates.crt")  # the image's own list
MORE = "more-ca.pem"  # trusted besides
PEM, JAVA = "ca.pem", "ca.jks"
_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
_MAGIC, _VERSION, _TRUSTED = 0xFEEDFEED, 2, 2
_SALT = "changeit".encode("utf-16-be") + b"Mighty Aphrodite"  # the password that every such store has; no secret


def write(system: Path, folder: Path) -> None:
    """Write PEM and JAVA into `folder`: the certificates of `system`, if there is one, and of MORE.

    Raises OSError if a file cannot be read or written.
    """
    pem = b"\n".join(path.read_bytes() for path in (system, folder / MORE) if path.exists())
    (folder / PEM).write_bytes(pem)
    (folder / JAVA).write_bytes(key_store(tuple(_certificates(pem))))


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


def _text(text: str) -> bytes:
    return struct.pack(">H", len(text)) + text.encode()


if __name__ == "__main__":
    here = Path(__file__).parent
    write(SYSTEM, here)
    wgetrc = here.parent / ".wgetrc"  # wget asks no variable for a file
    text = wgetrc.read_text() if wgetrc.exists() else ""
    wgetrc.unlink(missing_ok=True)  # an image's may be root's
    wgetrc.write_text(f"{text}\nca_certificate = {here / PEM}\n")
