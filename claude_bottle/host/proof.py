"""The proof that a session is this user's own: a code over its labels, by a key of the user's state folder."""

import contextlib
import hashlib
import hmac
import json
import os
import tempfile
from pathlib import Path

from claude_bottle.host import own_file

_LENGTH = 32  # bytes of a key


def key_file(setting: str | None, home: Path) -> Path:
    """Return the path of the key; `setting` is XDG_STATE_HOME, which counts if it is an absolute path."""
    absolute = setting and Path(setting).is_absolute()
    return (Path(setting or "") if absolute else home / ".local" / "state") / "claude-bottle" / "key"


def read_key(path: Path) -> bytes:
    """Return the key; nothing if there is none, or none that is known to this user alone."""
    try:
        key = own_file.read(path, private=True)
    except OSError:
        return b""
    return key if len(key) == _LENGTH else b""


def make_key(path: Path) -> bytes:
    """Return the key, made if it is not there; raises OSError if it can be neither read nor made."""
    if key := read_key(path):
        return key
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Written aside, with O_EXCL and mode 600, and linked: of two first starts at once both use the same whole key.
    descriptor, name = tempfile.mkstemp(prefix=".key.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(_LENGTH))
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()
    if key := read_key(path):
        return key
    raise PermissionError(0, f"not a file of {_LENGTH} bytes that this user alone can read", str(path))


def proof(key: bytes, *fields: str) -> str:
    """Return the code over `fields` in hexadecimal digits; nothing without a key."""
    return hmac.new(key, json.dumps(fields).encode(), hashlib.sha256).hexdigest() if key else ""


def is_proof(text: str, key: bytes, *fields: str) -> bool:
    """Return whether `text` is the code over `fields`; never without a key."""
    return bool(key) and hmac.compare_digest(text.encode(errors="replace"), proof(key, *fields).encode())
