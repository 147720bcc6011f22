"""Images built on demand; docker is a fake one."""

import pytest

from claude_bottle.egress import allowlist
from tests.support.scene import Scene

TO = ("build", "--to", "build-1")


def test_build_builds_each_image_once_whether_it_is_there_or_not(scene: Scene) -> None:
    (scene.agents / "writer.yaml").write_text("description: Writes\n")
    scene.rule("build", stdout="Step 1/9\n", times=1)
    assert scene.run("build", "--pull", "--no-cache") == (0, "", "Step 1/9\n")
    [argv] = [event.argv for event in scene.log if event.starts("docker build")]
    assert {"--pull", "--no-cache"} < set(argv)
    scene.rule("build", code=1, stderr="no luck\n")
    code, _, err = scene.run("build")
    tag = argv[argv.index("--tag") + 1]
    assert (code, err) == (70, f"no luck\nclaude-bottle: {tag}: docker build failed, see above\n")


def test_the_users_version_of_claude_overrides_that_of_a_manifest(scene: Scene) -> None:
    (scene.agents / "bottles/newer.yaml").write_text("image: {claude: 2.1.332}\n")
    (scene.agents / "newer.yaml").write_text("bottle: newer\n")

    def built(version: str) -> list[str]:
        before = len(scene.log)
        assert scene.run("build", CLAUDE_BOTTLE_CLAUDE_VERSION=version)[0] == 0
        argvs = [event.argv for event in scene.log[before:] if event.starts("docker build")]
        return sorted(word for argv in argvs for word in argv if word.startswith("CLAUDE_CODE_VERSION="))

    assert built("") == ["CLAUDE_CODE_VERSION=2.1.332"]  # of two images, the other being as the Dockerfile has it
    assert built("2.1.400") == ["CLAUDE_CODE_VERSION=2.1.400"]


def test_a_version_of_claude_that_is_none_is_one_line(scene: Scene) -> None:
    for command in (("build",), ("start", "demo", "--dry-run"), ("start", "demo", "--yes")):
        code, out, err = scene.run(*command, CLAUDE_BOTTLE_CLAUDE_VERSION="latest")
        assert (code, out, err) == (64, "", "CLAUDE_BOTTLE_CLAUDE_VERSION: must be a version such as 2.1.331\n")
    assert [event.argv for event in scene.log if event.starts("docker build")] == []


def test_images_that_another_engine_lacks_are_sent_to_it(scene: Scene) -> None:
    scene.rule("image inspect", context="build-1", code=1, stderr="Error: No such image: x\n")
    scene.rule("save", stdout="layers")
    code, out, err = scene.run(*TO, CLAUDE_BOTTLE_ENGINES="build-1", CLAUDE_BOTTLE_PIPELOCK_IMAGE="pipelock:x")
    assert code == 0, err
    [save] = [event for event in scene.log if event.starts("docker save")]
    [load] = [event for event in scene.log if event.ends("docker load")]
    [started] = [event for event in scene.log if event.starts("docker load")]
    base, sidecar = save.argv[2:]
    assert (base.startswith("claude-bottle:"), sidecar) == (True, "pipelock:x")
    assert out == f"sent {base} to build-1\nsent pipelock:x to build-1\n"
    assert load.more["stdin"] == "layers"
    assert (save.more["env"].get("DOCKER_CONTEXT"), started.more["env"]["DOCKER_CONTEXT"]) == (None, "build-1")


def test_an_image_that_is_named_by_its_digest_is_not_said_to_be_sent(scene: Scene) -> None:
    """What `docker load` makes of it there has no name."""
    scene.rule("image inspect", context="build-1", code=1, stderr="Error: No such image: x\n")
    scene.rule("save", stdout="layers")
    code, out, err = scene.run(*TO, CLAUDE_BOTTLE_ENGINES="build-1")
    assert code == 0, err
    [save] = [event for event in scene.log if event.starts("docker save")]
    assert [tag for tag in save.argv[2:] if "@" in tag] == []
    sent, pinned = out.splitlines()
    why = "is named by its digest, and not sent: build-1 pulls it at the first start"
    assert (pinned, sent) == (f"{allowlist.image()} {why}", f"sent {save.argv[2]} to build-1")


def test_what_is_there_is_not_sent(scene: Scene) -> None:
    assert scene.run(*TO, CLAUDE_BOTTLE_ENGINES="build-1")[:2] == (0, "build-1 has all images\n")
    assert not [event for event in scene.log if event.starts("docker save")]


@pytest.mark.parametrize("broken", ["save", "load"])
def test_images_that_cannot_be_sent_are_one_line(scene: Scene, broken: str) -> None:
    scene.rule("image inspect", context="build-1", code=1, stderr="Error: No such image: x\n")
    scene.rule(broken, code=1, stderr="no space left on device\n")
    code, out, err = scene.run(*TO, CLAUDE_BOTTLE_ENGINES="build-1")
    assert (code, out) == (70, "")
    assert err.endswith("claude-bottle: the images cannot be sent to build-1: no space left on device\n")


def test_images_are_sent_to_one_engine(scene: Scene) -> None:
    code, _, err = scene.run("build", "--to", "any", CLAUDE_BOTTLE_ENGINES="build-1")
    assert (code, err, scene.log) == (2, "claude-bottle: --to takes the name of one engine\n", [])
