"""What is removed of the dead, and what is spared; docker is a fake one."""

import pytest

from tests.support.labels import listed, objects
from tests.support.owners import ELSEWHERE, REBOOTED, launcher
from tests.support.scene import Scene


def test_cleanup_removes_what_the_dead_left_and_the_network_that_nobody_uses(scene: Scene) -> None:
    listing = objects("dead-1", REBOOTED) + objects("far-1", ELSEWHERE)
    scene.rule("ps --all --filter label", stdout=listing)
    scene.rule("network ls --quiet", stdout="0a1b\n")
    scene.rule("ps --all --filter network=", stdout="claude-bottle-dead-1-sidecar\n")
    would = scene.run("cleanup", "--dry-run")
    assert scene.undone == []
    done = scene.run("cleanup")
    names = ["claude-bottle-dead-1", "claude-bottle-dead-1-sidecar", "claude-bottle-egress"]
    assert [argv[-1] for argv in scene.undone] == names
    assert done[:2] == (0, "".join(
        f"removed {kind} {name}\n" for kind, name in zip(("container", "container", "network"), names, strict=True)
    ) + "1 session on other hosts, not checked\n")  # fmt: skip
    assert would[1] == done[1].replace("removed", "would remove")


@pytest.mark.parametrize(
    ("users", "starting"),
    [("claude-bottle-demo-1-sidecar\n", False), ("", True)],
    ids=["in use", "about to be"],
)
def test_cleanup_keeps_the_network_of_the_living(scene: Scene, users: str, *, starting: bool) -> None:
    with launcher() as (_, owner):
        scene.rule("network ls --quiet", stdout="0a1b\n")
        network = listed("claude-bottle-demo-1", "demo-1", owner, "network")
        scene.rule("network ls --filter label", stdout=network if starting else "")
        scene.rule("ps --all --filter network=", stdout=users)
        assert scene.run("cleanup")[0] == 0
    assert scene.undone == []


def test_cleanup_that_cannot_remove_says_so_and_goes_on(scene: Scene) -> None:
    scene.rule("ps --all --filter label", stdout=objects("dead-1", REBOOTED))
    scene.rule("rm --force --volumes claude-bottle-dead-1", code=1, stderr="no luck\n", times=1)
    code, out, err = scene.run("cleanup")
    assert (code, out) == (75, "removed container claude-bottle-dead-1-sidecar\n")
    assert "container claude-bottle-dead-1 cannot be removed: no luck" in err


def test_cleanup_leaves_a_stage_dir_alone_that_may_be_about_to_get_its_owner(scene: Scene) -> None:
    stage = scene.tmp / "claude-bottle-demo-1-xyz"
    stage.mkdir()
    with scene.launch("cleanup") as child:
        out, err = child.communicate()
    assert (child.returncode, out, err) == (0, "nothing to remove\n", "")
    assert stage.exists()


def test_the_folder_of_a_link_is_no_session(scene: Scene) -> None:
    with launcher() as (_, owner):
        for name in ("demo-1-xyz", "link-0a1b2c3d"):
            folder = scene.tmp / f"claude-bottle-{name}"
            folder.mkdir()
            (folder / "owner").write_text(str(owner))
        with scene.launch("cleanup") as child:
            out, err = child.communicate()
    assert (child.returncode, out, err) == (0, "1 session still running\n", "")


def test_cleanup_goes_on_if_nobody_reads_what_it_does(scene: Scene) -> None:
    scene.rule("ps --all --filter label", stdout=objects("dead-1", REBOOTED))
    with scene.launch("cleanup") as child:
        assert child.stdout
        assert child.stderr
        child.stdout.close()
        err = child.stderr.read()
    assert (child.returncode, err) == (0, "")
    assert [argv[-1] for argv in scene.undone] == ["claude-bottle-dead-1", "claude-bottle-dead-1-sidecar"]
