"""Which images are removed after a no; docker is a fake one."""

import json

import pytest

from claude_bottle.cleanup import builds
from claude_bottle.cleanup.builds import Made
from claude_bottle.errors import DockerError
from tests.support.scene import Argv, Scene

BASE, LAYER, NEW = "b" * 64, "1" * 64, "2" * 64
OWN = "claude-bottle:0a1b-ahead-0"
NO_IMAGE = "Error: No such image: x\n"
REFUSED = "Error response from daemon: the store is locked\n"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "_PAUSE", 0.0)


def begun(*notes: tuple[str, object]) -> Made:
    """Return what is known of a build on BASE."""
    made = Made()
    for kind, value in (("before", [f"sha256:{BASE}"]), ("tag", OWN), *notes):
        made.note(kind, value)
    return made


def image(one: str, *tags: str, parent: str = "", container: str = "") -> str:
    told = {"Id": f"sha256:{one}", "RepoTags": tags, "Parent": f"sha256:{parent}", "Container": container}
    return f"{json.dumps(told)}\n"


def has(scene: Scene, *images: str, own: bool = False, listings: int = 1) -> None:
    """Have the engine list images beside BASE so many times, and say whether it has the build's own tag."""
    gone = {"code": 1, "stderr": NO_IMAGE}
    if own:
        scene.rule(f"image inspect {OWN}", times=1)
    scene.rule(f"image inspect {OWN}", **gone)
    scene.rule("container inspect", code=1, stderr="Error: No such container: x\n")
    ids = [json.loads(each)["Id"] for each in images]
    scene.rule("image ls", times=listings, stdout="\n".join((f"sha256:{BASE}", *ids)))
    scene.rule("image inspect --format", stdout="".join(images))
    scene.rule("image ls", stdout=f"sha256:{BASE}\n")


def removed(scene: Scene, made: Made) -> list[str]:
    """Remove what builds have made; return what was removed."""
    assert builds.remove(scene.environ, made) is None
    return [argv[-1] for argv in removals(scene)]


def removals(scene: Scene) -> list[Argv]:
    return [event.argv for event in scene.calls if event.starts("image rm")]


IN_THE_MAKING = [("image", LAYER[:12]), ("container", "c" * 12)]


@pytest.mark.parametrize(
    ("notes", "found", "ours"),
    [
        pytest.param(IN_THE_MAKING, image(LAYER, parent=BASE), True, id="a layer that it printed"),
        pytest.param(IN_THE_MAKING, image(NEW, parent=LAYER, container="c" * 64), True, id="of its container"),
        pytest.param(IN_THE_MAKING, image(NEW, parent=LAYER), True, id="on its last layer"),
        pytest.param(IN_THE_MAKING, image(NEW, parent=LAYER, container="d" * 64), False, id="another's container"),
        pytest.param(IN_THE_MAKING, image(NEW, parent=BASE), False, id="on the same FROM"),
        pytest.param(IN_THE_MAKING[1:], image(NEW, parent=BASE), False, id="on FROM at its first step"),
        pytest.param(
            [*IN_THE_MAKING, ("end", None)], image(NEW, parent=LAYER), False, id="on the last layer of one that ended"
        ),
        pytest.param(
            [*IN_THE_MAKING, ("tag", "another"), ("container", "c" * 12)],
            image(NEW, parent=LAYER),
            False,
            id="on the image of the build before",
        ),
        pytest.param(IN_THE_MAKING, image(LAYER, "claude-bottle:0a1b"), False, id="with another tag"),
        pytest.param([*IN_THE_MAKING, ("kept", None)], image(LAYER), False, id="after a yes"),
    ],
)
def test_which_layers_are_a_builds_own(scene: Scene, notes: list[tuple[str, object]], found: str, ours: bool) -> None:
    tags = ["another"] if ("tag", "another") in notes else []
    scene.rule("image inspect another", code=1, stderr=NO_IMAGE)
    has(scene, found)
    made = begun(*notes)
    assert made.tags == [OWN, *tags]
    assert removed(scene, made) == ([json.loads(found)["Id"]] if ours else [])


@pytest.mark.parametrize("notes", [[], [("end", None)], [("kept", None)]], ids=["unended", "ended", "after a yes"])
def test_its_own_tag_is_removed_and_no_other(scene: Scene, notes: list[tuple[str, object]]) -> None:
    has(scene, image(NEW, OWN, "claude-bottle:0a1b"), own=True)
    assert removed(scene, begun(*notes)) == [OWN]
    assert removals(scene) == [("docker", "image", "rm", "--no-prune", OWN)]


@pytest.mark.parametrize("made", [Made(), begun(("image", LAYER), ("kept", None), ("tagged", None))])
def test_nothing_is_asked_without_a_build(scene: Scene, made: Made) -> None:
    assert removed(scene, made) == []
    assert scene.calls == []


def test_images_that_cannot_be_listed_are_not_none(scene: Scene) -> None:
    scene.rule("image ls", code=1, stderr=REFUSED)
    with pytest.raises(DockerError, match="cannot list the images: the store is locked"):
        builds.listed(scene.environ)


@pytest.mark.parametrize("command", ["image ls", "image inspect --format", f"image inspect {OWN}", "container inspect"])
def test_an_answer_that_fails_does_not_count_as_nothing_left(scene: Scene, command: str) -> None:
    scene.rule(command, times=2, code=1, stderr=REFUSED)
    has(scene, image(LAYER, parent=BASE), listings=3 if command == "image inspect --format" else 1)
    assert removed(scene, begun(*IN_THE_MAKING)) == [f"sha256:{LAYER}"]
    calls = [event for event in scene.calls if event.kind == "start"]
    first = next(place for place, event in enumerate(calls) if event.starts("image rm"))
    assert sum(event.starts(command) for event in calls[:first]) == 3


def test_an_answer_that_goes_on_failing_is_a_reason(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "_PATIENCE", 0.0)
    scene.rule(f"image inspect {OWN}", code=1, stderr=REFUSED)
    assert builds.remove(scene.environ, begun()) == f"cannot inspect the image {OWN}: the store is locked"
