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
