"""Remove what builds have made that nobody agreed to: images and, of the classic builder, their layers.

A tag is a hash of what its image is built from, and others make and use the same: until somebody agrees, an image has a
tag that is its build's alone. An image that was there before, has another tag, or is needed by anything else, stays.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from claude_bottle.errors import DockerError
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
    layer: str = ""  # the last image that this build has made
    tags: list[str] = field(default_factory=list)  # of the builds that have begun, each its own
    begun: bool = False

    def note(self, kind: str, value: object = None) -> None:
        """Note one thing: the images `before` any build, a build's own `tag`, before it begins.

        Then an `image` or a `container` of it, and its `end` if that is a good one. "kept" forgets all but the tags,
        "tagged" everything: nothing is to be removed.
        """
        if kind == "kept":
            self.images.clear()
            self._at_rest()
        elif kind == "tagged":
            self.__init__()  # type: ignore[misc]  # in place: another holds it, too
        elif kind == "before" and isinstance(value, list):
            self.before, self.begun = frozenset(value), True
        elif kind == "tag":
            self.tags.append(str(value))
            self._at_rest()
        elif kind == "end":
            self._at_rest()
        elif kind == "image":
            self.layer = str(value)
            self.images.append(self.layer)
        else:
            self.containers.append(str(value))

    def _at_rest(self) -> None:
        """Forget the step at which the build is."""
        self.containers.clear()
        self.layer = ""


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
        try:
            busy = made.containers and exists(engine, "container", made.containers[-1])
            found = [] if busy else [one for one in _left(env, made) if one not in spared]
        except DockerError as unknown:
            busy, found, reason = True, [], str(unknown)
        else:
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
    """Return the ids of all images, layers of the classic builder included.

    Raises EngineError, or DockerError if the engine does not list them.
    """
    result = Engine(env).ask("image", "ls", "--all", "--quiet", "--no-trunc", timeout=_TIMEOUT)
    if not result.ok:
        raise DockerError(f"cannot list the images: {result.reason}")
    return result.stdout.decode().split()


def exists(engine: Engine, kind: str, one: str) -> bool:
    """Return whether there is such a container or image; raises EngineError, or DockerError if that is unknown."""
    result = engine.ask(kind, "inspect", one, timeout=_TIMEOUT)
    if not (result.ok or result.absent):
        raise DockerError(f"cannot inspect the {kind} {one}: {result.reason}")
    return result.ok


def _left(env: Mapping[str, str], made: Made) -> list[str]:
    """Return what builds have left, by id or tag, in the order of removal: an image before the one it is built on."""
    engine = Engine(env)
    tags = [tag for tag in reversed(made.tags) if exists(engine, "image", tag)]
    images = {one.id: one for one in _new(env, made)} if made.images or made.containers else {}
    free = [one.id for one in images.values() if not one.tags and _is_ours(one, made)]
    return [*tags, *sorted(free, key=lambda one: -_depth(one, images))]


def _is_ours(one: _Image, made: Made) -> bool:
    """Return whether an image without a tag is a layer that one of our builds made."""
    if _short(one.id) in map(_short, made.images):
        return True
    # What was in the making as the client ended is in none of its output. Only a step without a container, such as a
    # COPY, is to be known by the layer below, and only if that is of the same build: anyone builds on what is in FROM.
    if one.container:
        return _short(one.container) in map(_short, made.containers)
    return bool(made.layer) and _short(one.parent) == _short(made.layer)


def _new(env: Mapping[str, str], made: Made) -> Iterator[_Image]:
    ids = [one for one in listed(env) if one not in made.before]
    if not ids:
        return
    shown = Engine(env).ask("image", "inspect", "--format", "{{json .}}", *ids, timeout=_TIMEOUT)
    if not (shown.ok or shown.absent):  # one that vanishes meanwhile leaves the others' lines
        raise DockerError(f"cannot inspect the images: {shown.reason}")
    for line in shown.stdout.splitlines():
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
