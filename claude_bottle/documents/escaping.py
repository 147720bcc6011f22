"""Make text that others wrote safe to print on a terminal."""

import re
import shlex
from collections.abc import Sequence

# Printable for Python, yet nothing to see: fillers, joiners and the variation selectors (not the two of emoji).
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")
_SELECTORS = (*range(0xFE00, 0xFE0E), *range(0xE0100, 0xE01F0))
_HIDDEN = _INVISIBLE | frozenset(map(chr, _SELECTORS))
_IN_QUOTES = {"\\": r"\\", "'": r"\'", "\n": r"\n", "\r": r"\r", "\t": r"\t"}  # in $'...'
_NOT_UTF8 = re.compile("[%\udc80-\udcff]")
_HEXADECIMAL = re.compile("%([0-9A-F]{2})")
_IDEOGRAPHIC_SPACE = "\u3000"


def escape_control_chars(text: str) -> str:
    r"""Return `text` with control, bidi and invisible characters as escapes like `\x1b`; so it is one line."""
    return "".join(character if _shows(character) else _escape(character) for character in text)


def quoted(*words: str) -> str:
    r"""Quote words for bash or zsh; one with bytes that a terminal would not show as $'...', each byte as `\x1b`."""
    return " ".join(
        shlex.quote(word) if escape_control_chars(word) == word else f"$'{_escaped(word)}'" for word in words
    )


def is_utf8(text: str) -> bool:
    """Return whether a text from this system, such as a variable's value, is UTF-8: docker's API carries no other."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def to_utf8(text: str) -> str:
    """Return a text from this system as UTF-8, each byte that is not, and each %, as `%FF`; see `from_utf8`."""
    return _NOT_UTF8.sub(lambda found: f"%{ord(found[0]) & 0xFF:02X}", text)


def from_utf8(text: str) -> str:
    """Return the text of which `to_utf8` made this."""
    return _HEXADECIMAL.sub(lambda found: bytes.fromhex(found[1]).decode(errors="surrogateescape"), text)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a table; the last column is as wide as it is."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "\n".join("  ".join([*map(str.ljust, row, widths), row[-1]]) for row in rows)


def _escaped(word: str) -> str:
    return "".join(_IN_QUOTES.get(character) or _bytes(character) for character in word)


def _bytes(character: str) -> str:
    if _shows(character):
        return character
    # A byte of a path that is not UTF-8 is a lone surrogate here. `\u` would depend on the shell's version and locale.
    lone = 0xDC80 <= ord(character) <= 0xDCFF
    return "".join(f"\\x{byte:02x}" for byte in character.encode(errors="surrogateescape" if lone else "surrogatepass"))


def _shows(character: str) -> bool:
    if character == _IDEOGRAPHIC_SPACE:
        return True
    return character.isprintable() and character not in _HIDDEN


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
