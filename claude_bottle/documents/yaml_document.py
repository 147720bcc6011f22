"""YAML text to plain data with the position of each part; the only user of ruamel.yaml, imported when used."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from claude_bottle.documents import files

if TYPE_CHECKING:
    from ruamel.yaml.error import YAMLError
    from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

Data: TypeAlias = "str | int | float | bool | list[Data] | dict[str, Data] | None"
Place: TypeAlias = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_KEPT_AS_TEXT = frozenset({f"{_TAG}str", f"{_TAG}timestamp"})  # a date is text here: nothing wants a date
_CONVERTED = frozenset({f"{_TAG}int", f"{_TAG}float", f"{_TAG}bool", f"{_TAG}null"})
_SPECIAL = ("*", "&", "@", "`", "%", "!")  # no plain text begins with one
_WORD = re.compile(r"[^\s,\]}\"]{1,80}")
_MARKS = ("\n", "\r", ",", ": ", "[", "{")  # each value has one of them beside it, or nearly
_MOST_MARKS = 20_000  # half a million values in 1 MiB would take ruamel.yaml half a minute


class YamlError(ValueError):
    """What is wrong with a YAML file, and where: line and column count from 1."""

    def __init__(self, line: int, column: int, message: str) -> None:
        """Keep the place beside the message, which is one line without it."""
        super().__init__(message)
        self.line, self.column, self.message = line, column, message


@dataclass(frozen=True)
class Document:
    """A loaded file: plain data, its keys always text; and each key that repeats another (the first counts)."""

    data: Data
    duplicates: tuple[YamlError, ...]
    _root: "Node | None" = field(repr=False)
    _children: "dict[int, dict[str, tuple[Node, Node]]]" = field(default_factory=dict, repr=False, compare=False)

    def where(self, path: Place, *, key: bool = False) -> tuple[int, int]:
        """Return line and column, from 1, of the value at `path`, or of its key; of the last part that exists."""
        node, mark = self._root, (1, 1) if self._root is None else _mark(self._root)
        for depth, step in enumerate(path, 1):
            found = None if node is None else self._child(node, step)
            if found is None:
                return mark
            label, node = found
            mark = _mark(label if key and depth == len(path) else node)
        return mark

    def span(self, path: Place, *, key: bool = False) -> "Span | None":
        """Return the place in the text of the value at `path`, or of its key; None if there is none."""
        label = node = self._root
        for step in path:
            label, node = (node and self._child(node, step)) or (None, None)
        found = label if key else node
        if found is None:
            return None
        start, flow = found.start_mark, bool(getattr(found, "flow_style", False))
        return Span(start.index, found.end_mark.index, start.column, flow)

    def _child(self, node: "Node", step: str | int) -> "tuple[Node, Node] | None":
        """Return key and value (an item of a list is its own key) of one step down from `node`."""
        from ruamel.yaml.nodes import MappingNode, SequenceNode

        if isinstance(node, MappingNode) and isinstance(step, str):
            if id(node) not in self._children:  # else a manifest of 100,000 wrong keys takes hours
                pairs = {key.value: (key, value) for key, value in reversed(node.value) if isinstance(key.value, str)}
                self._children[id(node)] = pairs
            return self._children[id(node)].get(step)
        if isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.value):
            return node.value[step], node.value[step]
        return None


@dataclass(frozen=True)
class Span:
    """Where a value stands in a text, in characters from 0; `flow`: it is a list or mapping in brackets."""

    start: int
    end: int
    column: int
    flow: bool


def load(path: Path) -> Document:
    """Read the one YAML document in the file `path`; raises `YamlError` if that fails."""
    return parse(read(path))


def parse(text: str) -> Document:
    """Read one YAML document; raises `YamlError` if that fails."""
    if sum(map(text.count, _MARKS)) > _MOST_MARKS:
        raise YamlError(1, 1, f"has more than {_MOST_MARKS:,} lines and values")
    root = _compose(text)
    builder = _Builder()
    try:
        data = None if root is None else builder.build(root)
    except RecursionError:
        raise YamlError(1, 1, "nested too deeply") from None
    return Document(data, tuple(builder.duplicates), root)


def read(path: Path) -> str:
    """Return the text of the file `path`, its line ends unchanged; raises `YamlError` if that fails."""
    try:
        raw = files.read(path)
    except OSError as error:
        raise YamlError(1, 1, f"cannot be read: {error.strerror}") from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8", "replace")
        raise YamlError(*_place(before), "is not UTF-8 text") from None


def _place(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - before.rfind("\n")


def _compose(text: str) -> "Node | None":
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        root: Node | None = YAML(typ="safe", pure=True).compose(text)
    except YAMLError as error:
        raise _explain(error, text) from None
    except RecursionError:
        raise YamlError(1, 1, "nested too deeply") from None
    except (ValueError, OverflowError):  # ruamel lets chr() fail on an escape such as "\\U00110000"
        raise YamlError(1, 1, "contains an escape for a character that does not exist") from None
    return root


def _explain(error: "YAMLError", text: str) -> YamlError:
    from ruamel.yaml.error import MarkedYAMLError
    from ruamel.yaml.reader import ReaderError

    if isinstance(error, MarkedYAMLError):
        what = ", ".join(filter(None, (error.context, error.problem)))
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        start = error.context_mark or mark
        if start and text[start.index : start.index + 1] in _SPECIAL:
            word = _WORD.match(text, start.index)
            quoted = word[0] if word else text[start.index]
            hint = f'{quoted[0]} has a meaning in YAML: quote it, as in "{quoted}"'
            return YamlError(start.line + 1, start.column + 1, hint)
        return YamlError(line, column, " ".join(f"not YAML: {what}".split()))
    if isinstance(error, ReaderError):
        return YamlError(*_place(text[: error.position]), "contains a character that YAML does not allow")
    return YamlError(1, 1, " ".join(f"not YAML: {error}".split()))


def _mark(node: "Node") -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


class _Builder:
    """Turns nodes into data. A node that aliases repeat is built once, so that a few lines cannot grow to gigabytes."""

    def __init__(self) -> None:
        from ruamel.yaml import YAML

        self.duplicates: list[YamlError] = []
        self._constructor = YAML(typ="safe", pure=True).constructor
        self._done: dict[int, Data] = {}
        self._open: set[int] = set()

    def build(self, node: "Node") -> Data:
        if id(node) in self._open:
            raise YamlError(*_mark(node), "an alias that contains itself")
        if id(node) not in self._done:
            self._open.add(id(node))
            self._done[id(node)] = self._convert(node)
            self._open.discard(id(node))
        return self._done[id(node)]

    def _convert(self, node: "Node") -> Data:
        from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

        if isinstance(node, MappingNode) and node.tag == f"{_TAG}map":
            return self._mapping(node)
        if isinstance(node, SequenceNode) and node.tag == f"{_TAG}seq":
            return [self.build(item) for item in node.value]
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        raise YamlError(*_mark(node), f'the tag "{node.tag}" is not supported')

    def _mapping(self, node: "MappingNode") -> dict[str, Data]:
        result: dict[str, Data] = {}
        for key, value in node.value:
            name = _key(key)
            if name in result:
                self.duplicates.append(YamlError(*_mark(key), f'duplicate key "{name}"'))
                continue
            result[name] = self.build(value)
        return result

    def _scalar(self, node: "ScalarNode") -> Data:
        if node.tag in _KEPT_AS_TEXT:
            return _text(node)
        if node.tag not in _CONVERTED:
            raise YamlError(*_mark(node), f'the tag "{node.tag}" is not supported')
        try:
            value: Data = self._constructor.construct_object(node)
        except (ValueError, LookupError):
            raise YamlError(*_mark(node), "is not a valid value") from None
        return value


def _key(key: "Node") -> str:
    from ruamel.yaml.nodes import ScalarNode

    if not isinstance(key, ScalarNode) or key.tag == f"{_TAG}merge":
        raise YamlError(*_mark(key), "a key must be plain text")
    return _text(key)


def _text(node: "ScalarNode") -> str:
    text = str(node.value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise YamlError(*_mark(node), "contains half a character (a lone surrogate)") from None
    return text
