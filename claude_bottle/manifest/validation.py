"""Check a manifest part by part and collect its faults, each with line and column."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from claude_bottle.documents import files, yaml_document
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.manifest import duration

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
SHAPE = "a-z, 0-9 and -, at most 40, and - neither first nor last"  # of a name, for people


@dataclass(frozen=True)
class ManifestContext:
    """What manifests are read with: the agents' folder, and the host's environment and home that they may refer to."""

    folder: Path
    environ: Mapping[str, str] = field(repr=False)
    home: Path


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a file; line and column count from 1."""

    path: Path
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        """Return the one line that is shown."""
        return escape_control_chars(f"{self.path}:{self.line}:{self.column}: {self.message}")


@dataclass(frozen=True)
class Value:
    """A part of a manifest. What does not fit is added to `faults`, and the check goes on."""

    path: Path
    document: yaml_document.Document
    faults: list[Fault]
    data: yaml_document.Data
    at: yaml_document.Place = ()

    def fail(self, message: str, *, key: bool = False) -> None:
        """Add a fault at this value, or at its key."""
        name = _short(self.name())
        line, column = self.document.where(self.at, key=key)
        self.faults.append(Fault(self.path, line, column, f"{name}: {message}" if name else message))

    def expected(self, wanted: str, hint: str = "") -> None:
        """Add the fault that the value is not `wanted`. The value itself is not shown: it may be a secret."""
        self.fail(f"expected {wanted}, got {_kind(self.data)}{hint}")

    def entries(self) -> tuple["tuple[str, Value]", ...]:
        """Return the keys of a mapping with their values."""
        if isinstance(self.data, dict):
            return tuple((key, self._part(key, data)) for key, data in self.data.items())
        self.expected("a mapping (key: value)")
        return ()

    def keys(self, known: Iterable[str]) -> None:
        """Add a fault for each key that is not `known`."""
        known = tuple(known)
        for key, value in self.entries():
            if key not in known:
                line, column = self.document.where(value.at, key=True)
                hint = nearest(key, known) or f"; known keys: {', '.join(known)}"
                self.faults.append(Fault(self.path, line, column, f'unknown key "{_short(value.name())}"{hint}'))

    def name(self) -> str:
        """Return the keys that lead here, joined by dots."""
        return ".".join(part for part in self.at if isinstance(part, str))

    def get(self, key: str) -> "Value | None":
        """Return the value of `key` in a mapping, if it is one and has it."""
        if isinstance(self.data, dict) and key in self.data:
            return self._part(key, self.data[key])
        return None

    def items(self) -> tuple["Value", ...]:
        """Return the items of a list."""
        if isinstance(self.data, list):
            return tuple(self._part(index, data) for index, data in enumerate(self.data))
        self.expected("a list")
        return ()

    def text(self) -> str | None:
        """Return a text; None, and a fault, for anything else and for what no file or argument can hold."""
        if not isinstance(self.data, str):
            self.expected("a string", "" if isinstance(self.data, list | dict | None) else " (add quotes)")
            return None
        if "\0" in self.data:
            self.fail("contains a NUL character, which cannot be passed on")
            return None
        return self.data

    def number(self) -> int | float | None:
        """Return a number; None, and a fault, for anything else."""
        if isinstance(self.data, bool) or not isinstance(self.data, int | float):
            self.expected("a number")
            return None
        return self.data

    def seconds(self) -> int | None:
        """Return a span of time such as 1h30m, in seconds; None, and a fault, for anything else."""
        if not isinstance(self.data, str):
            self.expected(duration.EXPECTED)
            return None
        try:
            return duration.parse(self.data)
        except ValueError as error:
            self.fail(str(error))
            return None

    def flag(self) -> bool | None:
        """Return true or false; None, and a fault, for anything else."""
        if not isinstance(self.data, bool):
            self.expected("true or false")
            return None
        return self.data

    def _part(self, step: str | int, data: yaml_document.Data) -> "Value":
        return Value(self.path, self.document, self.faults, data, (*self.at, step))


def read(path: Path, folder: Path, faults: list[Fault]) -> Value | None:
    """Read the manifest `path`, which must lie in `folder`; return None and add a fault if that fails."""
    leads_out = None if inside(path, folder) else f"is a link that leads out of {folder}"
    if problem := name_problem(path.name) or leads_out or file_problem(path):
        faults.append(Fault(path, 1, 1, problem))
        return None
    try:
        document = yaml_document.load(path)
    except yaml_document.YamlError as error:
        faults.append(Fault(path, error.line, error.column, error.message))
        return None
    faults.extend(Fault(path, twice.line, twice.column, twice.message) for twice in document.duplicates)
    return Value(path, document, faults, {} if document.data is None else document.data)


def file_problem(path: Path) -> str | None:
    """Return why `path` cannot be read: it may be a pipe, a device, or larger than 1 MiB. None if it can."""
    try:
        files.opened(path).close()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None


def file_path(value: Value, home: Path) -> Path | None:
    """Return the path that `value` names, starting at its manifest; `~` is the user's home."""
    text = value.text()
    if not text:
        if text is not None:
            value.fail("is empty; give a path")
        return None
    if text == "~" or text.startswith("~/"):
        return home / text[2:]
    return value.path.parent / text


def inside(path: Path, folder: Path) -> bool:
    """Return whether `path` lies in `folder` after every link is followed."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a loop of links
        return False


def name_problem(name: str) -> str | None:
    """Return what keeps `name` from naming an agent, a bottle or a skill: it must be a plain file name."""
    if not name or name.startswith(".") or "/" in name:
        return f'"{_short(name)}" is not a plain name: it must not be empty, hold "/" or begin with "."'
    if escape_control_chars(name) != name:
        return f'"{_short(name)}" has control or invisible characters in its name'
    return None


def is_name(text: str) -> bool:
    """Return whether a session or a task can be named so."""
    return _NAME.fullmatch(text) is not None


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a "did you mean" for the one of `known` that is most like `name`, or nothing."""
    folded = {candidate.casefold(): candidate for candidate in known}
    match = difflib.get_close_matches(name.casefold(), folded, n=1)
    return f'; did you mean "{folded[match[0]]}"?' if match else ""


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def _kind(data: yaml_document.Data) -> str:
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "a mapping",
    }
    return names.get(type(data), "nothing")
