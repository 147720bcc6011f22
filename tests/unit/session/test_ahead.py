"""Builds ahead of the answer, with a fake docker: the tags that they give their images, and the ends of that."""

import contextlib
import re
from collections.abc import Iterator

import pytest

from claude_bottle.cleanup import builds
from claude_bottle.cleanup.stack import Teardown
from claude_bottle.cleanup.watchdog import Watchdog
from claude_bottle.errors import RefusedError
from claude_bottle.session.ahead import building
from claude_bottle.session.building import Shown
from claude_bottle.session.runner import StepError
from claude_bottle.session.steps import Kind, Step
from tests.support.owners import OBSERVER
from tests.support.scene import Argv, Scene

BASE, PRESET = "claude-bottle:aaaaaaaaaaaa", "claude-bottle:bbbbbbbbbbbb"
OWN = r"-ahead-[0-9a-f]{12}"
GONE = {"code": 1, "stderr": "Error: No such image: x\n"}
STEPS = [
    (Step("image", ("docker", "build", "--tag", BASE, "-"), Kind.PROGRESS), BASE),
    (
        Step(
            "node-image", ("docker", "build", "--tag", PRESET, "--build-arg", f"BASE_IMAGE={BASE}", "-"), Kind.PROGRESS
        ),
        PRESET,
    ),
]


@contextlib.contextmanager
def ahead(scene: Scene) -> Iterator[None]:
    undo, watchdog = Teardown(), Watchdog.start(scene.environ, OBSERVER)
    try:
        with undo, building(STEPS, scene.environ, undo, watchdog, Shown.LINE):
            yield
    finally:
        watchdog.close(clean=undo.clean)
    assert undo.clean


def asked(scene: Scene, *kinds: str) -> list[str]:
    """Return the commands of these kinds, each own tag's end as -ahead."""
    said = (" ".join(argv) for argv in commands(scene))
    return [re.sub(OWN, "-ahead", each) for each in said if each.startswith(tuple(f"docker {kind}" for kind in kinds))]


def commands(scene: Scene) -> list[Argv]:
    return [event.argv for event in scene.calls if event.kind == "start"]


BUILDS = [
    f"docker build --tag {BASE}-ahead -",
    f"docker build --tag {PRESET}-ahead --build-arg BASE_IMAGE={BASE}-ahead -",
]


def test_images_get_their_tags_after_the_yes(scene: Scene) -> None:
    scene.rule("image inspect", **GONE)
    with ahead(scene):
        pass
    assert asked(scene, "build", "tag", "image rm") == [
        *BUILDS,
        *(f"docker tag {BASE}-ahead {BASE}", f"docker image rm --no-prune {BASE}-ahead"),
        *(f"docker tag {PRESET}-ahead {PRESET}", f"docker image rm --no-prune {PRESET}-ahead"),
    ]


def test_a_tag_that_another_build_has_made_meanwhile_is_not_moved(scene: Scene) -> None:
    with ahead(scene):
        pass
    assert asked(scene, "tag") == []
    assert len(asked(scene, "image rm")) == 2


def test_a_no_removes_the_own_tags_alone(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "_PAUSE", 0.0)
    scene.rule(f"image inspect {PRESET}-ahead", times=1)
    scene.rule("image inspect", **GONE)
    scene.rule(f"build --tag {PRESET}", fifo="built")
    with contextlib.suppress(RefusedError), ahead(scene):
        with scene.held("built"):
            pass
        raise RefusedError("no")
    assert asked(scene, "build", "tag", "image rm") == [*BUILDS, f"docker image rm --no-prune {PRESET}-ahead"]


def test_without_a_list_of_images_nothing_is_built_ahead(scene: Scene) -> None:
    scene.rule("image ls", code=1, stderr="Error response from daemon: the store is locked\n")
    with ahead(scene):
        pass
    assert asked(scene, "build", "tag", "image rm") == []


def test_what_was_built_before_a_failure_is_kept_after_a_yes(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "_PAUSE", 0.0)
    scene.rule(f"build --tag {PRESET}", code=3)
    scene.rule("image inspect", **GONE)
    with pytest.raises(StepError), ahead(scene):
        pass
    assert asked(scene, "tag")[0] == f"docker tag {BASE}-ahead {BASE}"
