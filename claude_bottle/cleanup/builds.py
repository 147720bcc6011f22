"""Remove what builds have made that nobody agreed to: images and, of the classic builder, their layers.

An image that was there before, that has another tag, or that anything else needs, stays.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from claude_bottle.process import wording
from claude_bottle.process.engine import Engine

_TIMEOUT = 20.0  # seconds for one command
_PATIENCE = 60.0  # seconds for the engine to end a build whose client has gone
_PAUSE = 0.5  # seconds between two listings
_SHORT = 12  # digits of an id, as builds print it


@dataclass
class Made:
    """What builds have made so far. All ids are those of the engine, whole or as its builder prints them."""

    before: frozenset[str] = frozenset()  # the images that were there
    images: list[str] = field(default_factory=list)
    containers: list[str] = field(default_factory=list)  # of the steps of the build that goes on
    tags: list[str] = field(default_factory=list)  # of the builds that have ended well
    begun: bool = False

    def note(self, kind: str, value: object = None) -> None:
        """Note one thing: the images `before` any build, an `image`, a `container`, the `tag` of an ended build.

        "kept" forgets everything.
        """
        if kind == "kept":
            self.__init__()  # type: ignore[misc]  # in place: another holds it, too
        elif kind == "before" and isinstance(value, list):
            self.before, self.begun = frozenset(value), True
        elif kind == "tag":
            self.tags.append(str(value))
            self.containers.clear()
        else:
            (self.images if kind == "image" else self.containers).append(str(value))


@dataclass(frozen=True)
class _Image:
    id: str
    container: str
    tags: tuple[str, ...]
    parent: str


def remove(env: Mapping[str, str], made: Made) -> str | None:
    """Remove it, until two listings in a row show nothing more: the engine may still be ending the build.

    Returns why something is left. Raises EngineError without docker.
    """
    if not made.begun:
        return None
    engine, spared = Engine(env), set[str]()
    end, empty, reason = time.monotonic() + _PATIENCE, 0, None
    while empty < 2:
        busy = made.containers and engine.ask("container", "inspect", made.containers[-1], timeout=_TIMEOUT).ok
        found = [] if busy else [one for one in _left(env, made) if one not in spared]
        reasons = [(one, _removed(engine, one)) for one in found]
        spared.update(one for one, why in reasons if why == "")
        reason = next((why for _, why in reasons if why), None)
        empty = 0 if busy or found else empty + 1
        if time.monotonic() > end:
            return reason or f"the engine has not ended a build within {_PATIENCE:.0f} s"
        if empty < 2:
            time.sleep(_PAUSE)
    return reason


def listed(env: Mapping[str, str]) -> list[str]:
    """Return the ids of all images, layers of the classic builder included; raises EngineError."""
    return Engine(env).ask("image", "ls", "--all", "--quiet", "--no-trunc", timeout=_TIMEOUT).stdout.decode().split()


def _left(env: Mapping[str, str], made: Made) -> list[str]:
    """Return what builds have left, by id or tag, in the order of removal: an image before the one it is built on."""
    images = {one.id: one for one in _new(env, made)}
    known, last = set(map(_short, made.images)), _short(made.images[-1]) if made.images else ""
    # What was in the making as the client ended is in none of its output.
    steps = set(map(_short, made.containers))
    ours = [
        one
        for one in images.values()
        if _short(one.id) in known or _short(one.container) in steps or (steps and _short(one.parent) == last)
    ]
    free = [one.id for one in ours if not one.tags]
    tags = [tag for tag in reversed(made.tags) if any(tag in one.tags for one in images.values())]
    return [*tags, *sorted(free, key=lambda one: -_depth(one, images))]


def _new(env: Mapping[str, str], made: Made) -> Iterator[_Image]:
    ids = [one for one in listed(env) if one not in made.before]
    shown = Engine(env).ask("image", "inspect", "--format", "{{json .}}", *ids, timeout=_TIMEOUT) if ids else None
    for line in shown.stdout.splitlines() if shown else ():  # one that vanishes meanwhile leaves the others' lines
        told = json.loads(line)
        yield _Image(told["Id"], told.get("Container", ""), tuple(told.get("RepoTags") or ()), told.get("Parent", ""))


def _short(one: str) -> str:
    return one.removeprefix("sha256:")[:_SHORT]


def _depth(one: str, images: Mapping[str, _Image]) -> int:
    count = 0
    while one in images:
        one, count = images[one].parent, count + 1
    return count


def _removed(engine: Engine, one: str) -> str | None:
    """Remove an image by id or tag; return why it cannot be removed, "" if something else needs it."""
    result = engine.ask("image", "rm", "--no-prune", one, timeout=_TIMEOUT)
    if result.ok or result.absent:
        return None
    return "" if wording.says(wording.IMAGE_IN_USE, result.stderr) else result.reason
