"""Private keys in OpenSSH's format, made of nothing: ssh-add takes them, no server ever would."""

import base64
import hashlib
import struct

# As `ssh-keygen -H` of OpenSSH 9.2 wrote them: of git.example.com, of its port 2222, and of no other.
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAd6XFaoug5J6QN4nj+zyCWXlfz6SXnkKe9PFmVg+4D4"
HASHED = f"""\
|1|gJMB2B+wIpEdKZuupF8fkWZ2Mjc=|KNqb6EptEUcsHckSaZfPKTp8k/0= {KEY}
|1|H5X01iOGtuqvZXq0ZJ3qn2jsqVg=|g4LqDmRy96Ds5oBrvoVytMTGr5w= {KEY} comment
"""
ELSEWHERE = "a key that lives only in an ssh-agent or on a hardware token cannot be used"
SUPPORTED = "a bottle takes the file of a private key, as ssh-keygen writes it"


def public(name: str = "key", kind: str = "ssh-ed25519") -> str:
    """Return the public half of `private`, as `type base64`."""
    return f"{kind} {base64.b64encode(_blob(name, kind)).decode()}"


def private(name: str = "key", kind: str = "ssh-ed25519", *, encrypted: bool = False) -> str:
    """Return a private key that `name` alone decides; an encrypted one cannot be decrypted."""
    half = hashlib.sha256(name.encode()).digest()
    secret = _strings(kind.encode(), half, half[::-1] + half, b"comment")
    body = struct.pack(">II", 7, 7) + secret
    body += bytes(range(1, 1 + -len(body) % 8))
    cipher = (b"aes256-ctr", b"bcrypt", _strings(b"0" * 16) + struct.pack(">I", 16))
    head = _strings(*(cipher if encrypted else (b"none", b"none", b"")))
    data = b"openssh-key-v1\0" + head + struct.pack(">I", 1) + _strings(_blob(name, kind), body)
    lines = base64.encodebytes(data).decode()
    return f"-----BEGIN OPENSSH {'PRIVATE'} KEY-----\n{lines}-----END OPENSSH {'PRIVATE'} KEY-----\n"


def _blob(name: str, kind: str) -> bytes:
    return _strings(kind.encode(), hashlib.sha256(name.encode()).digest())


def _strings(*parts: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)
