"""Read what the exporter printed in a bottle. Anything may have printed it: what makes no sense is refused."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from claude_bottle.documents.escaping import harmless
from claude_bottle.errors import RepositoryError
from claude_bottle.repository.clone import is_oid

_LINES = 50_000  # at most
_LONGEST = 16_384  # bytes of a line: six for each of a thousand characters, and more
_TEXT = 1000  # characters of a field, as the exporter cuts it
_SHOWN = 200  # characters of a field that are shown
_FIELDS = {
    "commit": ("oid", "below", "what"),
    "head": ("tip", "before"),
    "failed": ("why",),
    "unread": ("why",),
    "nested": ("path",),
    "large": ("path",),
    "special": ("path",),
    "tag": ("oid", "name"),
}
_NAMES = {"oid": False, "below": True, "tip": True, "before": True}  # of objects, and whether there may be none


@dataclass(frozen=True)
class Commit:
    """A commit beside the HEAD, the agent's own commit that it was made on top of, if any, and what it is."""

    oid: str
    below: str
    what: str


@dataclass(frozen=True)
class Answers:
    """All that a bottle said of its work; what is text can be printed as it is."""

    tip: str | None  # None if it did not come to that, "" if there is no commit
    before: str  # the agent's own last commit, "" if there is none
    commits: tuple[Commit, ...]
    failed: tuple[str, ...]
    nested: tuple[str, ...]
    large: tuple[str, ...]
    unread: tuple[str, ...] = ()  # of branches and the like
    special: tuple[str, ...] = ()  # sockets, FIFOs and devices
    tags: tuple[tuple[str, str], ...] = ()  # their commits and names


def read(printed: bytes, *, whole: bool) -> Answers:
    """Read what the exporter printed; if it is not `whole`, the end may be missing.

    RepositoryError if it is not what the exporter would print.
    """
    *lines, rest = printed.split(b"\n", _LINES)
    if whole and rest:
        raise _senseless("it does not end" if len(lines) < _LINES else f"more than {_LINES} lines")
    records = [_record(line) for line in lines]

    def of(kind: str) -> list[dict[str, str]]:
        return [record for record in records if record["kind"] == kind]

    heads = of("head")
    if len(heads) > 1 or (whole and not heads):
        raise _senseless(f"{len(heads)} heads")
    head = heads[0] if heads else {}
    return Answers(
        *(head.get("tip"), head.get("before", "")),
        tuple(Commit(each["oid"], each["below"], each["what"]) for each in of("commit")),
        *(tuple(each["why"] for each in of("failed")), tuple(each["path"] for each in of("nested"))),
        *(tuple(each["path"] for each in of("large")), tuple(each["why"] for each in of("unread"))),
        tuple(each["path"] for each in of("special")),
        tuple((each["oid"], each["name"]) for each in of("tag")),
    )


def _record(line: bytes) -> dict[str, str]:
    """Read one line: a kind and its fields, all of them text, made harmless."""
    if len(line) > _LONGEST:
        raise _senseless(f"a line of {len(line)} bytes")
    try:
        record = json.loads(line.decode("ascii"), object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise _senseless(str(error)) from None
    if not isinstance(record, dict) or not all(isinstance(value, str) for value in record.values()):
        raise _senseless("no object of strings")
    kind = record.get("kind", "")
    if kind not in _FIELDS or record.keys() != {"kind", *_FIELDS[kind]}:
        raise _senseless(f"fields {' '.join(record)[:_SHOWN]}")
    for name, value in record.items():
        if len(value) > _TEXT:
            raise _senseless(f"{len(value)} characters of {name}")
        if name in _NAMES and not is_oid(value) and (value or not _NAMES[name]):
            raise _senseless(f"{value[:_SHOWN]!r} is no commit")
    return {name: harmless(value)[:_SHOWN] for name, value in record.items()}


def _object(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    found = list(pairs)
    if len(dict(found)) != len(found):
        raise ValueError("a field twice")
    return dict(found)


def _senseless(why: str) -> RepositoryError:
    return RepositoryError(f"the bottle's answer makes no sense: {harmless(why)}")
