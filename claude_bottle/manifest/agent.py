"""Agents and their bottles, read from a folder of YAML files into frozen data, with every fault reported at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.documents.files import MIB
from claude_bottle.errors import ManifestError
from claude_bottle.manifest import skill as skills
from claude_bottle.manifest.bottle import Bottle, Limits, read_bottle
from claude_bottle.manifest.environment import EnvVar
from claude_bottle.manifest.skill import Skill
from claude_bottle.manifest.validation import (
    Fault,
    ManifestContext,
    Value,
    file_path,
    file_problem,
    inside,
    name_problem,
    nearest,
    read,
)

__all__ = ["Agent", "Bottle", "EnvVar", "Limits", "Skill", "load_agent", "load_agents", "names"]

PROMPT_BYTES = 120_000  # the kernel takes no single argument of 128 KiB or more
_KEYS = ("description", "bottle", "skills", "prompt", "repo")
_SUFFIX = ".yaml"


@dataclass(frozen=True)
class Agent:
    """A checked agent; the description is one line, maybe an empty one."""

    name: str
    path: Path
    description: str
    bottle: Bottle
    skills: tuple[Skill, ...] = ()
    prompt: str | None = None
    repo: Path | None = None


def load_agent(folder: Path, name: str, *, environ: Mapping[str, str], home: Path) -> Agent:
    """Return the agent `name` of `folder`; raise `ManifestError` with every fault of its file and of its bottle's."""
    require(folder, name)
    loader = _Loader(ManifestContext(folder, environ, home))
    agent = loader.agent(name)
    loader.finish()
    return cast("Agent", agent)  # without a fault there is an agent


def require(folder: Path, name: str) -> None:
    """Raise ManifestError if `folder` has no agent `name`."""
    known = names(folder)
    if name not in known:
        hint = nearest(name, known) or f"; there {'are' if len(known) > 1 else 'is'} {', '.join(known)}"
        if f"{name}.yml" in _listing(folder):
            hint = f"; {name}.yml must be named {name}{_SUFFIX}"
        raise ManifestError(escape_control_chars(f'{folder}: no agent "{name}"{hint}'))


def manifest(folder: Path, name: str) -> Path:
    """Return the path of the manifest of the agent `name`, there or not."""
    return folder / f"{name}{_SUFFIX}"


def load_agents(folder: Path, *, environ: Mapping[str, str], home: Path) -> tuple[Agent, ...]:
    """Return every agent of `folder`, by name; raise `ManifestError` with every fault of all agents and bottles."""
    loader = _Loader(ManifestContext(folder, environ, home))
    agents = [loader.agent(name) for name in names(folder)]
    for name in loader.bottle_names:
        loader.bottle(name)
    loader.finish()
    return tuple(agent for agent in agents if agent)


class _Loader:
    """Reads each file once and collects the faults of all."""

    def __init__(self, context: ManifestContext) -> None:
        self.context = context
        self.bottles = context.folder / "bottles"
        self.bottle_names = _stems(_listing(self.bottles))
        self.faults: list[Fault] = []
        self._read: dict[str, Bottle | None] = {}

    def agent(self, name: str) -> Agent | None:
        path = manifest(self.context.folder, name)
        top = read(path, self.context.folder, self.faults)
        if top is None:
            return None
        top.keys(_KEYS)
        description, prompt, wanted = (top.get(key) for key in ("description", "prompt", "skills"))
        bottle = self._bottle_of(top)
        line = " ".join((description.text() or "").split()) if description else ""
        chosen = _skills(wanted, self.context) if wanted else ()
        first = _prompt(prompt) if prompt else None
        repo = top.get("repo")
        taken = file_path(repo, self.context.home) if repo else None
        return Agent(name, path, line, bottle, chosen, first, taken) if bottle else None

    def _bottle_of(self, top: Value) -> Bottle | None:
        named = top.get("bottle")
        name = named.text() if named else "default"
        if name is None or name in self.bottle_names:
            return self.bottle(name) if name else None
        problem = name_problem(name) or f'no bottle "{name}" in {self.bottles}{nearest(name, self.bottle_names)}'
        (named or top).fail(problem)
        return None

    def bottle(self, name: str) -> Bottle | None:
        if name not in self._read:
            path = self.bottles / f"{name}{_SUFFIX}"
            top = read(path, self.context.folder, self.faults)
            self._read[name] = read_bottle(name, top, self.context) if top else None
        return self._read[name]

    def finish(self) -> None:
        """Raise every fault, file by file in the order of reading, each from top to bottom."""
        order = {path: number for number, path in enumerate(dict.fromkeys(fault.path for fault in self.faults))}
        faults = sorted(self.faults, key=lambda fault: (order[fault.path], fault.line, fault.column))
        if faults:
            raise ManifestError("\n".join(map(str, faults)))


def names(folder: Path) -> tuple[str, ...]:
    """Return the names of the agents of a folder, sorted; raises ManifestError if there are none."""
    try:
        found = _stems(tuple(entry.name for entry in folder.iterdir()))
    except OSError as error:
        hint = "; --agents DIR or CLAUDE_BOTTLE_AGENTS names the folder of agents"
        raise ManifestError(escape_control_chars(f"{folder}: {error.strerror}{hint}")) from None
    if not found:
        raise ManifestError(escape_control_chars(f"{folder}: contains no agent (a file <name>{_SUFFIX})"))
    return found


def _listing(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(entry.name for entry in folder.iterdir())
    except OSError:
        return ()


def _stems(files: tuple[str, ...]) -> tuple[str, ...]:
    """Return the sorted names that manifests go by; hidden files are an editor's, not the user's."""
    return tuple(sorted(file.removesuffix(_SUFFIX) for file in files if file.endswith(_SUFFIX) and file[0] != "."))


def _prompt(value: Value) -> str | None:
    text = value.text()
    if text is None:
        return None
    if not text.strip():
        value.fail("is empty; without it, claude waits for its first message")
    size = len(text.encode())
    if size > PROMPT_BYTES:
        value.fail(f"is {size} bytes long; {PROMPT_BYTES} is the most that fits into one argument")
    return text


def _skills(section: Value, context: ManifestContext) -> tuple[Skill, ...]:
    items = section.items()
    if len(items) > skills.MOST_SKILLS:
        section.fail(f"more than {skills.MOST_SKILLS} skills")
        return ()
    found = dict.fromkeys(each for each in (_skill(item, context) for item in items) if each)
    if sum(size for _, size in found) > skills.MOST_BYTES:
        section.fail(f"larger than {skills.MOST_BYTES // MIB} MiB together")
    return tuple(skill for skill, _ in found)


def _skill(item: Value, context: ManifestContext) -> tuple[Skill, int] | None:
    """Return a skill and its size in bytes."""
    name = item.text()
    if name is None:
        return None
    own, host = context.folder / "skills", context.home / ".claude" / "skills"
    travelling, at_home = _listing(own), _listing(host)
    folder = (own if name in travelling else host) / name
    problem = name_problem(name)
    if not problem and name not in (*travelling, *at_home):
        problem = f'no skill "{name}" in {own} or {host}{nearest(name, (*travelling, *at_home))}'
    problem = problem or _folder_problem(folder, context.folder if name in travelling else None)
    if not problem:
        try:
            return skills.survey(name, folder.resolve())
        except OSError as error:
            problem = f"{error.filename} cannot be read: {error.strerror}"
        except ValueError as error:
            problem = f"{folder} {error}"
    item.fail(problem)
    return None


def _folder_problem(folder: Path, home: Path | None) -> str | None:
    """Return what is wrong with a skill's folder; a skill that came with the agents must not bring in other files."""
    if home and not inside(folder, home):
        return f"{folder} is a link that leads out of {home}"
    if file_problem(folder / "SKILL.md") or not inside(folder / "SKILL.md", folder):
        return f"{folder} has no SKILL.md of its own"
    return None
