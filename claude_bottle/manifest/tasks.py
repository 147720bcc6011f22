"""A list of tasks for `run`: each an agent's question, with a repository to work on, read with every fault at once."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from claude_bottle.documents import yaml_document
from claude_bottle.manifest.agent import PROMPT_BYTES
from claude_bottle.manifest.validation import SHAPE, Fault, Value, file_path, is_name

MOST = 1000  # tasks of a file
_DEFAULTS = ("agent", "prompt", "repo", "ref", "time")  # of all tasks; a task may say each again


@dataclass(frozen=True)
class Task:
    """One task; `said` has the place of each of its parts in the file, its own or a default."""

    name: str
    agent: str
    prompt: str = field(repr=False)
    repo: Path | None = None
    ref: str | None = None
    time: int | None = None  # its limit, in seconds
    said: Mapping[str, Value] = field(default_factory=dict, repr=False, compare=False)

    @property
    def hash(self) -> str:
        """Return a code over all that the file says of the task, by which a changed one is known."""
        said = (self.agent, self.prompt, str(self.repo or ""), self.ref, self.time)
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def fail(self, part: str, message: str) -> None:
        """Add a fault at a part of the task, at its name if the file does not have that part."""
        self.said.get(part, self.said["name"]).fail(message)


def read(path: Path, home: Path, faults: list[Fault]) -> tuple[Task, ...]:
    """Return the tasks of a file that are whole; what is wrong with the file is added to `faults`."""
    try:
        document = yaml_document.load(path)
    except yaml_document.YamlError as error:
        faults.append(Fault(path, error.line, error.column, error.message))
        return ()
    faults.extend(Fault(path, twice.line, twice.column, twice.message) for twice in document.duplicates)
    top = Value(path, document, faults, {} if document.data is None else document.data)
    top.keys((*_DEFAULTS, "tasks"))
    defaults = _parts(top, _DEFAULTS)
    for part, value in defaults.items():
        _checked(part, value, home)
    known: dict[str, Value] = {}
    found = [_task(item, defaults, known, home) for item in _items(top)]
    faults[:] = dict.fromkeys(faults)  # what is wrong with a default is wrong with each task
    return tuple(task for task in found if task)


def _parts(of: Value, keys: tuple[str, ...]) -> dict[str, Value]:
    return {key: value for key in keys if (value := of.get(key))}


def _items(top: Value) -> tuple[Value, ...]:
    listed = top.get("tasks")
    if not listed:
        if isinstance(top.data, dict):
            top.fail('missing required key "tasks"')
        return ()
    items = listed.items()
    if isinstance(listed.data, list) and not 0 < len(items) <= MOST:
        listed.fail(f"must be from 1 to {MOST}")
        return ()
    return items


def _task(item: Value, defaults: Mapping[str, Value], known: dict[str, Value], home: Path) -> Task | None:
    item.keys(("name", *_DEFAULTS))
    if not isinstance(item.data, dict):
        return None
    said = {**defaults, **_parts(item, ("name", *_DEFAULTS))}
    for key in ("name", "agent", "prompt"):
        if key not in said:
            item.fail(f'missing required key "{key}"')
    parts = {part: _checked(part, value, home) for part, value in said.items()}
    whole = all(map(parts.get, ("name", "agent", "prompt")))
    if first := known.get(name := str(parts.get("name"))):
        said["name"].fail(f"another task has this name, in line {first.document.where(first.at)[0]}")
    elif parts.get("name"):
        known[name] = said["name"]
    return Task(**parts, said=said) if whole else None


def _checked(part: str, value: Value, home: Path) -> Any:
    """Return a part of a task; None, and a fault, if it is wrong."""
    if part == "repo":
        return file_path(value, home)
    if part == "time":
        return value.seconds()
    text = value.text()
    if text is None:
        return None
    size = len(text.encode())
    if part == "name" and not is_name(text):
        value.fail(f"must be of {SHAPE}")
    elif not text.strip():
        value.fail("must not be empty")
    elif part == "prompt" and size > PROMPT_BYTES:
        value.fail(f"is {size} bytes long; {PROMPT_BYTES} is the most that claude takes")
    else:
        return text
    return None
