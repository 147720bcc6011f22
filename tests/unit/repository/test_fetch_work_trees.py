"""More than one work tree: those beside the agent's own, and repositories and submodules inside."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from claude_bottle.repository import export
from claude_bottle.repository.fetch import Bottle
from tests.support.fetching import break_settings_of_the_repository, fill_objects, names, nested, require_filter
from tests.support.repos import BRANCH, Ground, Repo


def test_a_work_tree_of_the_same_repository_brings_its_branch(ground: Ground) -> None:
    bottle = ground.uncork()
    ground.genie.git("worktree", "add", "--quiet", "-b", "aside", ".claude/worktrees/aside")
    tip = Repo(ground.genie.path / ".claude/worktrees/aside", ground.genie.env).commit("aside", new="1")
    told = ground.fetch(bottle)
    assert told == f"branch  none: no commit on HEAD is new\nalso    {BRANCH}: the agent's branch aside\n"
    assert ground.user.git("rev-parse", BRANCH) == tip


def test_what_was_left_in_another_work_tree_comes_back(ground: Ground) -> None:
    bottle = ground.uncork()
    for name, options in (("aside", ("-b", "aside")), ("bare head", ("--detach",)), ("clean", ("--detach",))):
        ground.genie.git("worktree", "add", "--quiet", *options, str(ground.folder / name))
        (ground.folder / name / "left").write_text(name)
    (ground.folder / "clean" / "left").unlink()
    told = ground.fetch(bottle)
    where = ground.folder / "bare head"
    assert told == (
        f"branch  none: no commit on HEAD is new\nalso    {BRANCH}: the agent's work tree {where}\n"
        f"also    {BRANCH}-2: the agent's branch aside\n"
    )
    assert [ground.user.git("show", f"{name}:left") for name in (BRANCH, f"{BRANCH}-2")] == ["bare head", "aside"]
    assert Repo(where, ground.genie.env).git("status", "--porcelain") == ""
    assert sorted(ground.fetch(bottle).splitlines()) == sorted(told.splitlines())


@pytest.mark.parametrize("hinder", [fill_objects, require_filter, break_settings_of_the_repository])
def test_what_the_agents_git_does_not_take_comes_back_from_another_work_tree(
    ground: Ground, hinder: Callable[[Ground], None]
) -> None:
    bottle = ground.uncork()
    aside = ground.folder / "aside"
    ground.genie.git("worktree", "add", "--quiet", "--detach", str(aside))
    for path in (ground.genie.path, aside):
        (path / "left").write_text(path.name)
        (path / ".gitattributes").write_text("left filter=x\n")
    (ground.genie.path / ".git" / "worktrees" / "aside" / "index.lock").touch()
    hinder(ground)
    told = ground.fetch(bottle)
    assert f"\nalso    {BRANCH}-2: the agent's work tree {aside}\n" in told
    assert "beware  not all" not in told
    for branch, name in ((BRANCH, ground.genie.path.name), (f"{BRANCH}-2", "aside")):
        assert ground.user.git("show", f"{branch}:left") == name
        assert ground.user.git("rev-parse", f"{branch}~1") == bottle.work.start


def test_a_detached_work_tree_that_is_gone_brings_its_commits(ground: Ground) -> None:
    bottle, aside = ground.uncork(), ground.folder / "aside"
    ground.genie.git("worktree", "add", "--quiet", "--detach", str(aside))
    tip = Repo(aside, ground.genie.env).commit("aside")
    shutil.rmtree(aside)
    assert f"also    {BRANCH}: the agent's work tree {aside}\n" in ground.fetch(bottle)
    assert ground.user.git("rev-parse", BRANCH) == tip


def test_files_of_repositories_inside_come_back_and_ignored_ones_do_not(ground: Ground) -> None:
    ground.user.commit("ignoring", **{".gitignore": "deps/\n"})
    ground.user.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},module")
    ground.user.git("commit", "--quiet", "--message", "a submodule")
    bottle, work = ground.uncork(), ground.genie.path
    (work / "module" / "in it").write_text("1")
    for name in ("new\tone", "deps/one", "old"):
        (work / name).mkdir(parents=True)
        one = Repo(work / name, ground.genie.env)
        one.git("init", "--quiet")
        (one.path / "file").write_text("1")
        if name == "old":
            one.git("config", "user.email", "a@b")
            one.git("config", "user.name", "A")
            one.commit()
            ground.genie.git("-c", "advice.addEmbeddedRepo=false", "add", "old")
            ground.genie.git("commit", "--quiet", "--message", "as a submodule")
    (work / "old" / ".gitignore").write_text("*.log\n")
    (work / "old" / "a.log").touch()
    (work / "none" / ".git").mkdir(parents=True)  # to git no repository at all
    (work / "none" / "file").write_text("1")
    ground.fetch(bottle)
    listed = ground.user.git("ls-tree", "-r", "-z", "--name-only", BRANCH).split("\0")
    assert set(listed) == {
        *(
            ".gitignore",
            "changed",
            "kept",
            "module/in it",
            "new\tone/file",
            "none/file",
            "old/.gitignore",
            "old/file",
            "",
        )
    }


@pytest.mark.parametrize("made", [("a", "a/b"), ("a/b", "a"), ("a", "a/0", "a/0/c"), ("a/0/c", "a/0", "a")])
def test_repositories_inside_one_another_come_back(ground: Ground, made: tuple[str, ...]) -> None:
    bottle = ground.uncork()
    nested(ground, *made)
    ground.fetch(bottle)
    assert {f"{name}/file" for name in made} <= names(ground)


def test_a_repository_inside_another_work_tree_comes_on_that_ones_branch(ground: Ground) -> None:
    bottle = ground.uncork()
    ground.genie.git("worktree", "add", "--quiet", "-b", "aside", "inner/aside")
    nested(ground, "inner/aside/vendor")
    (ground.genie.path / "left").write_text("1")
    ground.fetch(bottle)
    assert "inner/aside/vendor/file" not in names(ground)
    assert {"left"} <= names(ground)
    assert {"vendor/file"} <= names(ground, f"{BRANCH}-2")


def test_what_is_tracked_and_ignored_comes_back_from_a_repository_inside(ground: Ground) -> None:
    (ground.user.path / "lib").mkdir()
    ground.user.commit(**{"lib/kept.log": "1"})
    ground.user.commit(**{".gitignore": "*.log\n"})
    bottle = ground.uncork()
    nested(ground, "lib")
    ground.fetch(bottle)
    assert {"lib/kept.log", "lib/file"} <= names(ground)


def submodules(ground: Ground) -> Bottle:
    """Uncork a repository with a submodule that has one, too, and have the agent fetch both."""
    deep, upper = (Repo(ground.folder / name, ground.env) for name in ("deep", "upper"))
    for repo in (deep, upper):
        ground.user.git("init", "--quiet", str(repo.path))
    deep.commit()
    upper.git("submodule", "--quiet", "add", str(deep.path), "deep")
    upper.commit(**{".gitignore": "build\n"})
    ground.user.git("submodule", "--quiet", "add", str(upper.path), "upper")
    ground.user.commit()
    bottle = ground.uncork()
    ground.genie.git("config", "--global", "protocol.file.allow", "always")
    ground.genie.git("submodule", "--quiet", "update", "--init", "--recursive")
    return bottle


def test_what_is_inside_a_submodule_holds_nothing_back(ground: Ground) -> None:
    bottle = submodules(ground)
    assert ground.fetch(bottle) == "branch  none: nothing was changed in the bottle\n"
    nested(ground, "upper/build")
    with (ground.genie.path / "upper" / "build" / "large").open("wb") as file:
        file.truncate(export.FILE + 1)
    (ground.genie.path / "left").write_text("1")
    ground.fetch(bottle)
    assert ground.user.git("diff", "--name-only", "HEAD", BRANCH) == "left"


def move_work_tree(ground: Ground, work: Path) -> None:
    ground.genie.git("worktree", "add", "--quiet", "-b", "aside", "aside")
    (work / "aside").rename(work / "inside")


def copy_work_tree(ground: Ground, work: Path) -> None:
    ground.genie.git("worktree", "add", "--quiet", "-b", "aside", "aside")
    shutil.copytree(work / "aside", work / "inside")


def lead_to_the_outer(_: Ground, work: Path) -> None:
    (work / "inside").mkdir()
    (work / "inside" / ".git").write_text(f"gitdir: {work / '.git'}\n")


def link_to_the_outer(_: Ground, work: Path) -> None:
    (work / "inside").mkdir()
    (work / "inside" / ".git").symlink_to("../.git")


@pytest.mark.parametrize("make", [move_work_tree, copy_work_tree, lead_to_the_outer, link_to_the_outer])
def test_what_only_looks_like_a_work_tree_comes_back(ground: Ground, make: Callable[[Ground, Path], None]) -> None:
    bottle = ground.uncork()
    make(ground, ground.genie.path)
    (ground.genie.path / "inside" / "left").write_text("1")
    ground.fetch(bottle)
    assert "inside/left" in names(ground)
