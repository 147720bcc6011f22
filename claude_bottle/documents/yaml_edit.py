"""Add items to a list of a YAML text and change nothing else of it: no comment, no order, no blank."""

import json
from collections.abc import Sequence
from typing import cast

from claude_bottle.documents import yaml_document
from claude_bottle.documents.yaml_document import Data, Document, Span

_CANNOT = "cannot edit this file safely"


def with_items(text: str, place: tuple[str, ...], items: Sequence[str]) -> str:
    """Return `text` with `items` at the end of the list at `place`, a path of keys, which is created if missing.

    Raises ValueError (YamlError if `text` is not YAML), with a one-line message, if the result would mean anything
    else.
    """
    document = yaml_document.parse(text)
    wanted = _extended(document.data, place, list(items))
    changed = _inserted(text, document, place, [scalar(item) for item in items])
    try:
        outcome = yaml_document.parse(changed)
    except yaml_document.YamlError:
        raise ValueError(_CANNOT) from None
    if outcome.data != wanted or len(outcome.duplicates) > len(document.duplicates):
        raise ValueError(_CANNOT)
    return changed


def scalar(item: str) -> str:
    """Return an item as YAML; plain if it can only be read as text."""
    return item if item[:1].isalpha() else json.dumps(item)


def _extended(data: Data, place: tuple[str, ...], items: list[str]) -> Data:
    if not place:
        if not isinstance(data, list | None):
            raise ValueError("the value there is not a list")
        return [*(data or ()), *items]
    if not isinstance(data, dict | None):
        raise ValueError(f'what should hold "{place[0]}" is not a mapping')  # noqa: TRY004  (of the file, not of a call)
    inner = data or {}
    return inner | {place[0]: _extended(inner.get(place[0]), place[1:], items)}


def _inserted(text: str, document: Document, place: tuple[str, ...], items: list[str]) -> str:
    depth = next((depth for depth in range(len(place), 0, -1) if document.span(place[:depth])), 0)
    span, missing = document.span(place[:depth]), place[depth:]
    if span is None or (depth == 0 and not span.flow):
        return _appended(text, place, items)
    if span.start == span.end:  # a key without a value: just behind its colon
        key = cast("Span", document.span(place[:depth], key=True))
        return _put(text, text.index(":", key.end) + 1, f" {_nested(missing, items)}")
    if span.flow:
        inner = f"{missing[0]}: {_nested(missing[1:], items)}" if missing else ", ".join(items)
        return _in_flow(text, document, place[:depth], span, inner)
    return text if missing else _in_block(text, document, place, span, items)


def _nested(keys: tuple[str, ...], items: list[str]) -> str:
    """Return a list in brackets, below keys in braces."""
    return "".join(f"{{{key}: " for key in keys) + f"[{', '.join(items)}]" + "}" * len(keys)


def _in_flow(text: str, document: Document, place: tuple[str, ...], span: Span, added: str) -> str:
    """Put something into brackets, behind the last thing in them."""
    data = _at(document.data, place)
    if not data:
        return _put(text, span.start + 1, added)
    last = document.span((*place, len(data) - 1 if isinstance(data, list) else list(data)[-1]))
    return _put(text, cast("Span", last).end, f", {added}")


def _in_block(text: str, document: Document, place: tuple[str, ...], span: Span, items: list[str]) -> str:
    """Put lines behind the line on which the last item ends, its comment included."""
    count = len(cast("list[Data]", _at(document.data, place)))
    last = cast("Span", document.span((*place, count - 1)))
    end = text.find("\n", last.end)
    lines = "".join(f"{_newline(text)}{' ' * span.column}- {item}" for item in items)
    return text + lines + "\n" if end < 0 else _put(text, end - text[:end].endswith("\r"), lines)


def _appended(text: str, place: tuple[str, ...], items: list[str]) -> str:
    """Put nested keys at the end of the text."""
    newline = _newline(text)
    keys = newline.join(f"{'  ' * depth}{key}:" for depth, key in enumerate(place))
    start = text if not text or text.endswith("\n") else text + newline
    return f"{start}{keys} [{', '.join(items)}]{newline}"


def _at(data: Data, place: tuple[str, ...]) -> "list[Data] | dict[str, Data]":
    for key in place:
        data = cast("dict[str, Data]", data)[key]
    return cast("list[Data] | dict[str, Data]", data)


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _put(text: str, place: int, added: str) -> str:
    return text[:place] + added + text[place:]
