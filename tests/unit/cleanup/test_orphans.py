"""What is found by its labels, whose owner is judged dead, and how it is removed."""

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from claude_bottle.cleanup import orphans
from claude_bottle.cleanup.orphans import Leftover
from claude_bottle.errors import DockerError, EngineError
from claude_bottle.host import stage_dir
from claude_bottle.host.owner import Owner
from claude_bottle.host.stage_dir import StageDir
from tests.support.clients import NO_ENGINE
from tests.support.labels import listed
from tests.support.owners import ELSEWHERE, OBSERVER
from tests.support.scene import Scene

OTHER = Owner("host", "boot", 1, "2")


def line(name: str, role: str, owner: str = "host:boot:1:2") -> str:
    return listed(name, "demo-1", owner, role)


def test_everything_is_found_in_the_order_of_removal(scene: Scene) -> None:
    roles = ("sidecar", "lock", "key-holder", "agent")
    scene.rule("ps --all", stdout="".join(line(role[0], role) for role in roles))
    scene.rule("network ls", stdout=line("n", "network"))
    scene.rule("volume ls", stdout=line("v", "config"))
    found = orphans.listed(scene.environ)
    containers = [f"container {name}" for name in "laks"]
    assert [str(item) for item in found] == [*containers, "network n", "volume v"]
    assert {(item.session, item.owner) for item in found} == {("demo-1", OTHER)}


def test_a_session_is_asked_for_by_its_label(scene: Scene) -> None:
    orphans.listed(scene.environ, "demo-1")
    asked = [event.argv[event.argv.index("--filter") + 1] for event in scene.log if event.kind == "start"]
    assert asked == ["label=claude-bottle.session=demo-1"] * 3


@pytest.mark.parametrize(
    "garbage",
    [
        "\n",
        "x\n",
        "x\ty\n",
        "x\ty\tz\n",
        "\x00\xff\t\t:::\t\t\t\n",
        line("x", "", "1:2"),
        line("x", "", "m:b:x:1"),
        '"x"\t"demo-1"\t""\t"agent"\n',
        '"x"\t"demo-1"\t"host:boot:1:2"\t"agent"\t"one more"\n',
    ],
)
def test_what_has_no_owner_is_not_ours(scene: Scene, garbage: str) -> None:
    scene.rule("ps --all", stdout=garbage)
    assert orphans.dead({}, orphans.listed(scene.environ), OBSERVER) == ()


def test_a_listing_that_fails_is_an_error_in_dockers_words(scene: Scene) -> None:
    scene.rule("volume ls", code=1, stderr="Error response from daemon: no luck\n")
    with pytest.raises(DockerError, match=r"^docker volume failed: no luck$"):
        orphans.listed(scene.environ)


@pytest.mark.parametrize("said", NO_ENGINE.values(), ids=NO_ENGINE)
def test_a_listing_without_an_engine_is_not_empty(scene: Scene, said: str) -> None:
    scene.without_engine(said)
    with pytest.raises(EngineError, match=r"^docker cannot be used: "):
        orphans.listed(scene.environ)


def test_whose_owner_is_not_known_is_judged_by_nobody() -> None:
    owners = (replace(OBSERVER, started="1"), OBSERVER, ELSEWHERE, None)
    items = [Leftover("container", "x", "demo-1", owner) for owner in owners]
    assert orphans.dead({}, items, OBSERVER) == tuple(items[:1])


@pytest.fixture
def tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_stage_dirs_are_found_also_without_an_owner(tmp: Path) -> None:
    """The launcher may have been killed between the two; whatever merely has such a name is not one."""
    for name in ("claude-bottle-a-b-1-xyz", "claude-bottle-a-b-2-xyz", "another"):
        (tmp / name).mkdir()
    (tmp / "claude-bottle-a-b-1-xyz/owner").write_text("host:boot:1:2")
    (tmp / "claude-bottle-a-b-3-xyz").write_text("")
    (tmp / "claude-bottle-a-b-4-xyz").symlink_to(tmp / "another")
    found = {item.session: item.owner for item in orphans.stage_dirs({})}
    assert found == {"a-b-1": OTHER, "a-b-2": None}
    assert orphans.dead({}, orphans.stage_dirs({}), OBSERVER) == ()


def test_a_failure_is_told_and_the_rest_removed(scene: Scene, tmp: Path) -> None:
    stage = tmp / "claude-bottle-demo-1-xyz"
    (stage / "inner").mkdir(parents=True)
    kinds = {"container": "c", "network": "n", "volume": "v", "stage dir": str(stage)}
    scene.rule("network rm", code=1, stderr="Error response from daemon: has active endpoints\n")
    told: list[str] = []
    items = [Leftover(kind, name, "demo-1", None) for kind, name in kinds.items()]
    assert not orphans.remove(scene.environ, items, told.append)
    assert told == ["network n cannot be removed: has active endpoints"]
    assert [argv[1:] for argv in scene.undone] == [
        ("rm", "--force", "--volumes", "c"),
        ("network", "rm", "n"),
        ("volume", "rm", "v"),
    ]
    assert not stage.exists()


def test_nothing_is_read_of_another_users_folder(tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a link to gigabytes; its name is all that there is to know."""
    stage = tmp / "claude-bottle-demo-1-xyz"
    stage.mkdir()
    (stage / "owner").write_text(str(OTHER))
    monkeypatch.setattr("os.getuid", lambda: tmp.stat().st_uid + 1)
    monkeypatch.setattr("os.open", lambda *_: pytest.fail("it was opened"))
    monkeypatch.setattr("io.open", lambda *_: pytest.fail("it was opened"))
    assert list(orphans.stage_dirs({})) == []


def test_a_stage_dir_beside_a_repository_is_found_by_its_link_and_removed_with_it(
    tmp: Path, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process is killed, so nothing of the block's end is done."""
    monkeypatch.chdir(tmp)
    (tmp / "beside").mkdir()
    with monkeypatch.context() as killed:
        killed.setattr(StageDir, "remove", lambda _: None)
        killed.setattr(Path, "unlink", lambda *_, **__: None)
        with StageDir.held("a-b-1", OTHER, Path("beside"), stage_dir.links(scene.environ)) as stage:
            pass
    [found] = orphans.stage_dirs(scene.environ)
    assert found == Leftover("stage dir", str(tmp / stage.path), "a-b-1", OTHER)
    assert orphans.remove(scene.environ, [found], pytest.fail)
    assert (list((tmp / "beside").iterdir()), list(stage_dir.links(scene.environ).iterdir())) == ([], [])


@pytest.mark.parametrize("kind", ["fifo", "large", "link"])
def test_an_owner_that_is_no_small_file_is_none(tmp: Path, kind: str) -> None:
    owner = tmp / "claude-bottle-demo-1-xyz" / "owner"
    owner.parent.mkdir()
    if kind == "fifo":
        os.mkfifo(owner)
    elif kind == "large":
        owner.write_text(str(OTHER) + " " * 2000)
    else:
        (tmp / "another").write_text(str(OTHER))
        owner.symlink_to(tmp / "another")
    assert [item.owner for item in orphans.stage_dirs({})] == [None]
