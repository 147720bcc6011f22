"""Look hosts up in a known_hosts file as ssh itself does (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT), hashed ones too."""

import base64
import binascii
import fnmatch
import hashlib
import hmac
from collections.abc import Iterator

from claude_bottle.manifest import private_key

_MARKERS = ("@cert-authority", "@revoked")


def name(host: str, port: int) -> str:
    """Return the name under which a host's keys are kept."""
    return host if port == 22 else f"[{host}]:{port}"


def find(text: str, wanted: str) -> tuple[str, ...]:
    """Return what a file says of a host, by its name there: each key as `type base64`, a marker in front."""
    return tuple(dict.fromkeys(key for names, key in _lines(text) if _matches(names, wanted)))


def _lines(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        words = line.split(None, 3 if line.lstrip().startswith("@") else 2)
        marker = words.pop(0) if words and words[0] in _MARKERS else ""
        key = private_key.public(" ".join(words[1:3])) if len(words) > 1 and not words[0].startswith("#") else None
        if key:
            yield words[0], f"{marker} {key}".lstrip()


def _matches(names: str, wanted: str) -> bool:
    if names.startswith("|"):
        return _hashed(names, wanted)
    patterns = names.lower().split(",")
    if any(_fits(each[1:], wanted) for each in patterns if each.startswith("!")):
        return False
    return any(_fits(each, wanted) for each in patterns)


def _fits(pattern: str, wanted: str) -> bool:
    # As ssh does, `*` and `?` alone are special. Unlike a pattern made of `.*`, this one takes no time to fail.
    return fnmatch.fnmatchcase(wanted, pattern.replace("[", "[[]"))


def _hashed(names: str, wanted: str) -> bool:
    """Compare with `|1|salt|HMAC-SHA1 of the name`, both in base64."""
    try:
        _, version, salt, digest = names.split("|")
        made = hmac.digest(base64.b64decode(salt, validate=True), wanted.encode(), hashlib.sha1)
        return version == "1" and made == base64.b64decode(digest, validate=True)
    except (ValueError, binascii.Error):
        return False
