"""Methods and paths of HTTP requests in a manifest: the credential proxy compares them with a raw request line."""

import re
from collections.abc import Callable

from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.manifest.validation import Value

_METHOD = re.compile(r"[A-Z][A-Z0-9_-]{0,31}")
_REFUSED = ("CONNECT", "TRACE")  # the proxy refuses them for every host
_ENCODED = re.compile(r"%(2e|2f|5c|25|3b|7f|[01][0-9a-f]|c[01])", re.IGNORECASE)
_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_LONGEST = 1000  # characters


def read_methods(value: Value) -> tuple[str, ...]:
    """Check a list of methods; an empty tuple, and a fault, if it has none."""
    return _read(value, method_problem, "method")


def read_paths(value: Value) -> tuple[str, ...]:
    """Check a list of paths; an empty tuple, and a fault, if it has none."""
    return _read(value, path_problem, "path")


def method_problem(text: str) -> str | None:
    """Return why no request can have the method `text`, None if one can."""
    if not _METHOD.fullmatch(text):
        return "must be a method in capitals, such as GET"
    return f"the credential proxy refuses {text}" if text in _REFUSED else None


def path_problem(text: str) -> str | None:
    """Return why `text` is no exact path, nor a prefix that ends in "/"; None if it is one.

    Refused is also what the proxy refuses in a request, where a server might read it as another path.
    """
    encoded = _ENCODED.search(text)
    problems = {
        'must begin with "/"': not text.startswith("/"),
        f"must be at most {_LONGEST} characters long": len(text) > _LONGEST,
        "must not contain spaces, control or invisible characters": " " in text or escape_control_chars(text) != text,
        "must be ASCII: write other characters percent-encoded, as a request does": not text.isascii(),
        'must not contain "?" or "#": only the path is compared': "?" in text or "#" in text,
        'has no patterns: a path that ends in "/" includes everything under it': "*" in text,
        'must not contain "\\" or ";"': "\\" in text or ";" in text,
        'must not contain "//"': "//" in text,
        'must not contain a part "." or ".."': not {".", ".."}.isdisjoint(text.split("/")),
        f'must not contain "{encoded[0] if encoded else ""}"': bool(encoded),
        'must have two hexadecimal digits after "%"': bool(_PERCENT.search(text)),
    }
    return next((problem for problem, found in problems.items() if found), None)


def _read(value: Value, problem: Callable[[str], str | None], what: str) -> tuple[str, ...]:
    items = value.items()
    if value.data == []:
        value.fail(f"is empty; without it, every {what} is allowed")
    texts = [(item, item.text()) for item in items]
    for item, text in texts:
        if text is not None and (wrong := problem(text)):
            item.fail(wrong)
    return tuple(dict.fromkeys(text for _, text in texts if text is not None))
