"""Images built on demand; docker is a fake one."""

from tests.support.scene import Scene


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
