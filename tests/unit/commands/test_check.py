"""Manifests checked without anything else."""

from tests.support.scene import Scene


def test_check_tells_every_fault_by_its_place(scene: Scene) -> None:
    (scene.agents / "bottles" / "wide.yaml").write_text("egress:\n  alow: [github.com]\n")
    (scene.agents / "writer.yaml").write_text("bottle: wide\nskils: []\n")
    code, out, err = scene.run("check")
    assert (code, out) == (64, "")
    bottle, agent = scene.agents / "bottles" / "wide.yaml", scene.agents / "writer.yaml"
    assert [line[: line.index(": ")] for line in err.splitlines()] == [f"{agent}:2:1", f"{bottle}:2:3"]
    assert scene.run("check", "demo") == (0, "1 agent checked, no errors found\n", "")
    assert scene.run("check", "writer") == (64, "", err)
