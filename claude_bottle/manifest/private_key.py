"""Private key files: check that a bottle can use one, without its passphrase and without keeping the secret."""

import base64
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from claude_bottle.documents import files
from claude_bottle.documents.escaping import quoted

SUPPORTED = "a bottle takes the file of a private key, as ssh-keygen writes it"
_ELSEWHERE = "a key that lives only in an ssh-agent or on a hardware token cannot be used"
_PEM = re.compile(rb"\s*-----BEGIN ((?:[A-Z]+ )*)PRIVATE KEY-----\s(.*)-----END \1PRIVATE KEY-----", re.DOTALL)
_MAGIC = b"openssh-key-v1\0"  # PROTOCOL.key of OpenSSH
_REFUSED = (b"ssh-dss",)  # OpenSSH takes none of a host since 7.0
_PUBLIC = re.compile(r"((?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]+) ([A-Za-z0-9+/]+=*)")


@dataclass(frozen=True)
class KeyFile:
    """A key by its file; `public` is its public half, as `type base64`."""

    path: Path
    public: str
    encrypted: bool


def read(path: Path) -> KeyFile:
    """Read a private key's file; raises ValueError, one line without the path, if a bottle cannot use it."""
    try:
        text = files.read(path)
    except OSError as error:
        there = ", and only its public half is there" if _public_half(path) else ""
        raise ValueError(f"cannot be read: {error.strerror}{there}: {_ELSEWHERE}, {SUPPORTED}") from None
    if match := _PEM.match(text):
        key = _own(path, match[2]) if match[1] == b"OPENSSH " else _foreign(path, match[1], match[2])
    else:
        raise ValueError(_what_else(text))
    if key.public.startswith("sk-"):
        raise ValueError(f"is a key of a hardware token ({key.public.partition(' ')[0]}): {_ELSEWHERE}")
    return key


def public(text: str) -> str | None:
    """Return the public key, `type base64`, that a text begins with; None if there is no valid one."""
    match = _PUBLIC.match(text)
    if not match:
        return None
    try:
        kind, *parts = _strings(base64.b64decode(match[2], validate=True))
    except (ValueError, struct.error):
        return None
    whole = len(parts[0]) == 32 if kind == b"ssh-ed25519" and len(parts) == 1 else len(parts) > 1
    return match[0] if kind == match[1].encode() and kind not in _REFUSED and whole else None


def _own(path: Path, body: bytes) -> KeyFile:
    """Read OpenSSH's own format, whose public half is in clear even if the rest is encrypted."""
    try:
        data = base64.b64decode(b"".join(body.split()), validate=True)
        cipher, rest = _string(data.removeprefix(_MAGIC))
        _kdf, rest = _string(rest)
        _options, rest = _string(rest)
        blob, _ = _string(rest[4:])
        kind, _ = _string(blob)
        if not data.startswith(_MAGIC):
            raise ValueError
        return KeyFile(path, f"{kind.decode('ascii')} {base64.b64encode(blob).decode()}", cipher != b"none")
    except (ValueError, struct.error):
        raise ValueError(f"is damaged; {SUPPORTED}") from None


def _foreign(path: Path, kind: bytes, body: bytes) -> KeyFile:
    """Read OpenSSL's formats (RFC 1421, RFC 5958), which tell nothing but whether they are encrypted."""
    half = _public_half(path)
    if not half:  # ssh could not tell it from the bottle's other keys
        raise ValueError(
            f"needs its public half beside it: `ssh-keygen -y -f {quoted(str(path))} > {quoted(f'{path}.pub')}`"
        )
    return KeyFile(path, half, kind == b"ENCRYPTED " or b"Proc-Type: 4,ENCRYPTED" in body)


def _public_half(path: Path) -> str | None:
    half = path.with_name(f"{path.name}.pub")
    try:
        return public(files.read(half).decode("ascii", "replace"))
    except OSError:
        return None


def _what_else(text: bytes) -> str:
    if public(text.decode("ascii", "replace")):
        return f"is a public key: {_ELSEWHERE}, {SUPPORTED}"
    if text.startswith(b"PuTTY-User-Key-File-"):
        return "is a key of PuTTY's: convert it with `puttygen -O private-openssh`"
    return f"is no private key; {SUPPORTED}"


def _strings(data: bytes) -> list[bytes]:
    """Split what must consist of strings (RFC 4251, section 5) and of nothing else."""
    found = []
    while data:
        one, data = _string(data)
        found.append(one)
    return found


def _string(data: bytes) -> tuple[bytes, bytes]:
    """Split off the first string (RFC 4251, section 5)."""
    (length,) = struct.unpack_from(">I", data)
    if length > len(data) - 4:
        raise struct.error
    return data[4 : 4 + length], data[4 + length :]
