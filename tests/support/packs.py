"""Bundles made by hand, as a hostile bottle would, and a bottle that gives them."""

import struct
import zlib
from hashlib import sha1

from claude_bottle.repository.clone import OUT
from tests.support.repos import Ground

Blob, Tree, Commit = 3, 2, 1


def packed(*objects: tuple[int, bytes]) -> bytes:
    """Return a pack of objects (gitformat-pack(5))."""
    return sealed(*(raw(kind, data) for kind, data in objects))


def sealed(*objects: bytes) -> bytes:
    """Return a pack of objects that are in its form already."""
    whole = b"PACK" + struct.pack(">II", 2, len(objects)) + b"".join(objects)
    return whole + sha1(whole).digest()


def raw(kind: int, content: bytes, *, size: int | None = None, data: bytes | None = None, before: bytes = b"") -> bytes:
    """Return an object as it is in a pack, or one that lies of its size or is followed by other data."""
    size = len(content) if size is None else size
    head, size, byte = bytearray(), size >> 4, kind << 4 | size & 15
    while size:
        head.append(byte | 128)
        size, byte = size >> 7, size & 127
    head.append(byte)
    return bytes(head) + before + (zlib.compress(content) if data is None else data)


def by_offset(delta: bytes, back: int) -> bytes:
    """Return a delta to the object that begins `back` bytes before it."""
    digits = [back & 127]
    while back := back >> 7:
        back -= 1
        digits.insert(0, back & 127 | 128)
    return raw(6, delta, before=bytes(digits))


def by_name(delta: bytes, oid: str) -> bytes:
    """Return a delta to the object of that name."""
    return raw(7, delta, before=bytes.fromhex(oid))


def number(value: int) -> bytes:
    """Return a size as a delta has it."""
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes(digits) + bytes([value])


def name_of(kind: str, data: bytes) -> str:
    return sha1(f"{kind} {len(data)}\0".encode() + data).hexdigest()


def tree(*entries: tuple[str, bytes, str]) -> bytes:
    return b"".join(mode.encode() + b" " + name + b"\0" + bytes.fromhex(oid) for mode, name, oid in entries)


def committed(tree_data: bytes, parent: str, message: bytes = b"x\n", who: bytes = b"A <a@b> 1 +0000") -> bytes:
    head = f"tree {name_of('tree', tree_data)}\nparent {parent}\n".encode()
    return head + b"author " + who + b"\ncommitter " + who + b"\n\n" + message


def bundle(tip: str, pack: bytes, *, ref: str = OUT, base: str = "", version: bytes = b"# v2 git bundle\n") -> bytes:
    needs = f"-{base} x\n".encode() if base else b""
    return version + needs + f"{tip} {ref}\n\n".encode() + pack


def give(ground: Ground, data: bytes) -> None:
    """Have the bottle give these bytes in place of its bundle."""
    (ground.folder / "given").write_bytes(data)
    docker = ground.folder / "bin" / "docker"
    instead = f'[[ "$*" = *" - bundle "* ]] && exec cat {ground.folder}/given\n'
    docker.write_text(docker.read_text().replace("shift 5", f"{instead}shift 5"))
