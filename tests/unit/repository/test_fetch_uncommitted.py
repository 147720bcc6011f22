"""What was left uncommitted comes back, whatever became of its git."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.fetching import break_settings_of_the_repository, fill_objects, partly, require_filter
from tests.support.repos import BRANCH, Ground, Repo


def test_what_was_left_becomes_a_last_commit(ground: Ground) -> None:
    bottle = ground.uncork()
    ground.genie.commit("by the genie", new="1")
    (ground.genie.path / "left").write_text("1")
    (ground.genie.path / "changed").write_text("2")
    ground.genie.git("config", "commit.gpgSign", "true")
    told = ground.fetch(bottle)
    assert "Keep what was left uncommitted" in told
    assert ground.genie.git("status", "--porcelain") == ""
    assert ground.user.git("log", "--format=%an %s", f"HEAD..{BRANCH}").splitlines() == [
        "claude-bottle Keep what was left uncommitted",
        "A User by the genie",
    ]
    assert ground.user.git("diff", "--name-only", f"{BRANCH}~1", BRANCH).split() == ["changed", "left"]


def test_what_git_leaves_out_is_a_failure_and_the_rest_comes(ground: Ground) -> None:
    bottle = ground.uncork()
    for name in ("left", "git~1", ".GIT"):
        (ground.genie.path / name).write_text("1")
    os.mkfifo(ground.genie.path / "fifo")
    (ground.genie.path / ".git" / "refs" / "heads" / "zeros").write_bytes(bytes(41))
    told, error = partly(bottle)
    assert ground.user.git("diff", "--name-only", "HEAD", BRANCH) == "left"
    assert error == "not all that was left uncommitted came back; not all commits came back"
    broken = "warning: ignoring broken ref refs/heads/zeros"
    rest = told.partition("\nbeware  not all that was left ")[2]
    assert [name in rest.splitlines()[0] for name in ("'git~1'", "'.GIT'")] == [True, True]
    assert rest.splitlines()[1:] == [
        f"beware  not all commits could be read, the rest stays in the bottle: {broken}",
        "beware  not a regular file, stays in the bottle: fifo",
    ]


def ruin_index(work: Path) -> None:
    (work / ".git" / "index").write_bytes(b"junk")


def lock_index(work: Path) -> None:
    (work / ".git" / "index.lock").touch()


def remove_git(work: Path) -> None:
    for name in ("HEAD", "config", "index"):
        (work / ".git" / name).unlink()


def link_git(work: Path) -> None:
    (work / ".git").rename(work.parent / "elsewhere")
    (work / ".git").symlink_to(work.parent / "elsewhere")


def lead_astray(work: Path) -> None:
    with (work / ".git" / "config").open("a") as file:
        file.write("[core]\nworktree = /\nbare = false\n")


def nest(work: Path) -> None:
    Repo(work, {**os.environ, "HOME": "/"}).git("init", "--quiet", "nested")
    (work / "nested" / "inside").write_text("1")


@pytest.mark.parametrize("ruin", [ruin_index, lock_index, remove_git, link_git, lead_astray, nest])
def test_work_comes_back_whatever_became_of_its_git(ground: Ground, ruin: Callable[[Path], None]) -> None:
    bottle = ground.uncork()
    (ground.genie.path / "left").write_text("the work")
    ruin(ground.genie.path)
    told = ground.fetch(bottle)
    assert ground.user.git("show", f"{BRANCH}:left") == "the work"
    assert ground.user.git("show", f"{BRANCH}:kept") == "1"
    if ruin is nest:
        assert ground.user.git("show", f"{BRANCH}:nested/inside") == "1"
        assert "the history of nested repositories, unlike their files, stays in the bottle: nested\n" in told


def test_an_operation_under_way_is_left_as_it_is(ground: Ground) -> None:
    bottle, genie = ground.uncork(), ground.genie
    genie.git("checkout", "--quiet", "-b", "aside")
    genie.commit("theirs", changed="theirs")
    genie.git("checkout", "--quiet", BRANCH)
    genie.commit("ours", changed="ours")
    with pytest.raises(AssertionError):
        genie.git("merge", "aside")
    before = genie.snapshot()
    told = ground.fetch(bottle)
    assert "<<<<<<<" in ground.user.git("show", f"{BRANCH}:changed")
    after = genie.snapshot()
    same = [name for name in before if name.startswith(".git/") and "objects" not in name]
    assert [name for name in same if after[name] != before[name]] == []
    assert ground.fetch(bottle) == told


@pytest.mark.parametrize("date", ["@1 +0000", "@1700000000 +0100"])
def test_a_locked_index_leaves_the_agents_head_where_it_is(ground: Ground, date: str) -> None:
    bottle, genie = ground.uncork(), ground.genie
    tip = Repo(genie.path, {**genie.env, "GIT_COMMITTER_DATE": date}).commit("by the genie")
    (genie.path / "left").write_text("1")
    (genie.path / ".git" / "index.lock").touch()
    told = ground.fetch(bottle)
    assert ground.fetch(bottle) == told
    assert (ground.user.git("show", f"{BRANCH}:left"), genie.git("rev-parse", "HEAD")) == ("1", tip)


def break_own_settings(ground: Ground) -> None:
    ground.genie.git("config", "--global", "core.autocrlf", "maybe")


def assume_unchanged(ground: Ground) -> None:
    (ground.genie.path / "left").write_text("before")
    ground.genie.git("add", "left")
    ground.genie.git("update-index", "--assume-unchanged", "left")
    (ground.genie.path / "left").write_text("the work")


def skip_work_tree(ground: Ground) -> None:
    ground.genie.git("add", "left")
    ground.genie.git("rm", "--cached", "--quiet", "left")
    (ground.genie.path / "left").write_text("before")
    ground.genie.git("add", "left")
    ground.genie.git("update-index", "--skip-worktree", "left")
    (ground.genie.path / "left").write_text("the work")


HINDRANCES = (
    fill_objects,
    require_filter,
    break_own_settings,
    break_settings_of_the_repository,
    assume_unchanged,
    skip_work_tree,
)


@pytest.mark.parametrize("hinder", HINDRANCES)
def test_what_the_agents_git_does_not_take_comes_back(ground: Ground, hinder: Callable[[Ground], None]) -> None:
    bottle = ground.uncork()
    ground.genie.git("checkout", "--quiet", "-b", "aside")
    aside = ground.genie.commit("aside")
    ground.genie.git("checkout", "--quiet", BRANCH)
    tip = ground.genie.commit("by the genie")
    (ground.genie.path / "left").write_text("the work")
    hinder(ground)
    ground.fetch(bottle)
    assert ground.user.git("rev-parse", f"{BRANCH}-2") == aside
    assert ground.user.git("show", f"{BRANCH}:left") == "the work"
    assert ground.user.git("rev-parse", f"{BRANCH}~1") == tip


def lose_index(ground: Ground) -> None:
    (ground.genie.path / ".git" / "index").unlink()


def keep_to_unix_lines(ground: Ground) -> None:
    ground.genie.git("config", "--global", "core.safecrlf", "true")
    ground.genie.git("config", "--global", "core.autocrlf", "input")
    (ground.genie.path / "dos").write_bytes(b"x\r\ny\r\n")


def write_what_is_no_utf_16(ground: Ground) -> None:
    (ground.genie.path / ".gitattributes").write_text("odd working-tree-encoding=UTF-16\n")
    (ground.genie.path / "odd").write_text("xyz")


@pytest.mark.parametrize(
    "hinder", [lose_index, keep_to_unix_lines, write_what_is_no_utf_16, break_settings_of_the_repository, fill_objects]
)
@pytest.mark.parametrize("form", ["sha1", "sha256"])
def test_what_is_tracked_and_ignored_comes_back(tmp_path: Path, form: str, hinder: Callable[[Ground], None]) -> None:
    ground = Ground(tmp_path)
    shutil.rmtree(ground.user.path / ".git")
    ground.user.git("init", "--quiet", f"--object-format={form}")
    (ground.user.path / "kept.log").write_text("1")
    ground.user.commit()
    ground.user.commit(**{".gitignore": "*.log\n"})
    bottle = ground.uncork()
    (ground.genie.path / "kept.log").write_text("the work")
    (ground.genie.path / "left").write_text("the work")
    hinder(ground)
    ground.fetch(bottle)
    assert [ground.user.git("show", f"{BRANCH}:{name}") for name in ("kept.log", "left")] == ["the work"] * 2


def test_what_git_converts_is_converted_whatever_else_it_does_not_take(ground: Ground) -> None:
    ground.user.commit(**{".gitattributes": "dos eol=crlf\nwide text working-tree-encoding=UTF-16LE\nleft filter=x\n"})
    bottle = ground.uncork()
    ground.genie.git("config", "filter.x.clean", "false")
    ground.genie.git("config", "filter.x.required", "true")
    ground.genie.git("config", "core.safecrlf", "false")
    files = {"dos": b"a\r\nb\r\n", "wide": "a\nb\n".encode("utf-16-le"), "left": b"1"}
    for name, data in files.items():
        (ground.genie.path / name).write_bytes(data)
    ground.fetch(bottle)
    assert [ground.user.git("show", f"{BRANCH}:{name}") for name in files] == ["a\nb", "a\nb", "1"]


def test_what_cannot_be_committed_is_a_failure(ground: Ground) -> None:
    bottle = ground.uncork()
    tip = ground.genie.commit("by the genie")
    (ground.genie.path / "left").write_text("the work")
    fill_objects(ground)
    (ground.folder / "genie" / ".claude-bottle.git").touch()
    told, error = partly(bottle)
    assert "beware  not all that was left uncommitted could be committed, the rest stays in the bottle: " in told
    assert "left" in told.partition("the rest stays in the bottle: ")[2]  # git's own words
    assert error == "not all that was left uncommitted came back"
    assert ground.user.git("rev-parse", BRANCH) == tip
