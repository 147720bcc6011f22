"""Parse the exporter's output, strictly: anything in the bottle may have printed it."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.errors import RepositoryError
from claude_bottle.repository.clone import is_oid

_LINES = 50_000  # of output, at most
_LONGEST = 16_384  # bytes of a line; JSON needs up to six for each of _TEXT characters
_TEXT = 1000  # characters of a field; the exporter truncates to as many
_SHOWN = 200  # characters of a field to print
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
_NAMES = {
    "oid": False,
    "below": True,
    "tip": True,
    "before": True,
}  # fields with an object id, and whether they may be empty


@dataclass(frozen=True)
class Commit:
    """A commit that HEAD does not contain.

    `below` is the agent's own commit if `oid` is ours on top of it, else ""; `what` describes it, as in "branch x".
    """

    oid: str
    below: str
    what: str


@dataclass(frozen=True)
class Answers:
    """The exporter's report on the work in a bottle; its text is escaped, so safe to print."""

    tip: str | None  # None if the output ends before it, "" without a commit
    before: str  # the agent's own last commit, "" without one
    commits: tuple[Commit, ...]
    failed: tuple[str, ...]
    nested: tuple[str, ...]
    large: tuple[str, ...]
    unread: tuple[str, ...] = ()  # of branches and the like
    special: tuple[str, ...] = ()  # sockets, FIFOs and devices
    tags: tuple[tuple[str, str], ...] = ()  # their commits and names


def read(printed: bytes, *, whole: bool) -> Answers:
    """Parse the exporter's output; if not `whole`, it may be cut off at any point.

    Raises RepositoryError if the output is malformed.
    """
    *lines, rest = printed.split(b"\n", _LINES)
    if whole and rest:
        raise _malformed("the last line is cut off" if len(lines) < _LINES else f"more than {_LINES} lines")
    records = [_record(line) for line in lines]

    def of(kind: str) -> list[dict[str, str]]:
        return [record for record in records if record["kind"] == kind]

    heads = of("head")
    if len(heads) > 1 or (whole and not heads):
        raise _malformed(f"{len(heads)} heads")
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
    """Parse one line: a kind and its fields, all of them strings, escaped and truncated."""
    if len(line) > _LONGEST:
        raise _malformed(f"a line of {len(line)} bytes")
    try:
        record = json.loads(line.decode("ascii"), object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise _malformed(str(error)) from None
    if not isinstance(record, dict) or not all(isinstance(value, str) for value in record.values()):
        raise _malformed("not an object of strings")
    kind = record.get("kind", "")
    if kind not in _FIELDS or record.keys() != {"kind", *_FIELDS[kind]}:
        raise _malformed(f"fields {' '.join(record)[:_SHOWN]}")
    for name, value in record.items():
        if len(value) > _TEXT:
            raise _malformed(f"{len(value)} characters of {name}")
        if name in _NAMES and not is_oid(value) and (value or not _NAMES[name]):
            raise _malformed(f"{value[:_SHOWN]!r} is not a commit id")
    return {name: escape_control_chars(value)[:_SHOWN] for name, value in record.items()}


def _object(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    found = list(pairs)
    if len(dict(found)) != len(found):
        raise ValueError("duplicate field")
    return dict(found)


def _malformed(why: str) -> RepositoryError:
    return RepositoryError(f"the bottle's answer is malformed: {escape_control_chars(why)}")
