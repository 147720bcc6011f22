"""Surveying the user's repository: the commits and changes included, the notes printed, and nothing modified."""

import errno
from pathlib import Path

import pytest

from claude_bottle.errors import RepositoryError, UsageError
from claude_bottle.manifest.git_identity import Identity
from claude_bottle.repository import source
from claude_bottle.repository.clone import Wanted, Work
from tests.support.repos import BRANCH, Ground, Repo


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


def test_the_whole_history_is_cloned_and_the_origin_kept_without_secrets(ground: Ground) -> None:
    first = ground.user.commit("first", a="1")
    ground.user.git("remote", "add", "origin", "https://me:secret@example.com/x.git?token=1")
    second = ground.user.commit("second", b="2")
    ground.uncork()
    assert ground.genie.git("log", "--format=%H") == f"{second}\n{first}"
    assert ground.genie.git("symbolic-ref", "HEAD") == f"refs/heads/{BRANCH}"
    assert ground.genie.git("status", "--porcelain") == ""
    assert ground.genie.git("config", "remote.origin.url") == "https://example.com/x.git"
    assert ground.survey().author == Identity("A User", "user@example.com")
    assert ground.genie.git("fsck") == ""


def test_another_revision_can_be_chosen(ground: Ground) -> None:
    first = ground.user.commit("first")
    ground.user.git("tag", "--annotate", "--message", "one", "v1")
    ground.user.commit("second")
    for ref in ("v1", first[:12], "HEAD~1"):
        assert ground.survey(ref=ref).work == Work(ground.user.path, first, first)
    assert ground.survey(ref="v1").ref == f"v1 {first[:10]}"
    assert ground.survey().ref.startswith("main ")


@pytest.mark.parametrize("kind", ["folder", "worktree", "bare", "shallow", "sha256"])
def test_every_kind_of_repository_works(ground: Ground, kind: str) -> None:
    tip = [ground.user.commit(str(number), file=str(number)) for number in range(4)][-1]
    path = ground.folder / kind
    if kind == "folder":
        path = ground.user.path / "deep" / "er"
        path.mkdir(parents=True)
    elif kind == "worktree":
        ground.user.git("worktree", "add", "--quiet", "--detach", str(path))
    elif kind == "sha256":
        Repo(ground.folder, ground.env).git("init", "--quiet", "--object-format=sha256", str(path))
        tip = Repo(path, ground.env).commit(file="3")
    else:
        how = {"bare": ("--bare",), "shallow": ("--depth", "2")}[kind]
        ground.user.git("clone", "--quiet", *how, f"file://{ground.user.path}", str(path))
    bottle = ground.uncork(ground.survey(path))
    assert ground.genie.git("rev-parse", "HEAD") == tip
    assert (ground.genie.path / "file").read_text() == "3"
    if kind == "shallow":
        assert ground.genie.git("rev-list", "--count", "HEAD") == "2"
    ground.genie.commit("by the genie", file="5")
    assert f"branch  {BRANCH}" in ground.fetch(bottle)
    back = Repo(path, ground.env)
    assert back.git("log", "--format=%s", f"{tip}..{BRANCH}") == "by the genie"
    assert back.git("fsck") == ""


def test_uncommitted_changes_are_included_only_on_request(ground: Ground) -> None:
    tip = ground.user.commit(kept="1", changed="1", gone="1", ignored="1")
    (ground.user.path / ".gitignore").write_text("*.o\n")
    for name in ("changed", "new", "a.o", "staged"):
        (ground.user.path / name).write_text("2")
    (ground.user.path / "gone").unlink()
    ground.user.git("add", "staged")
    hook = ground.user.path / ".git" / "hooks"
    for name in ("pre-commit", "post-commit", "commit-msg", "reference-transaction", "post-index-change"):
        (hook / name).write_text(f"#!/bin/sh\ntouch {ground.folder}/{name}\n")
        (hook / name).chmod(0o755)
    ground.user.git("config", "commit.gpgSign", "true")
    before, outside = ground.user.snapshot(), set(ground.folder.iterdir())
    found = ground.survey()
    assert found.notes == ("5 uncommitted changes not included; --with-changes includes them",)
    assert found.work.start == tip
    assert ground.user.snapshot() == before
    found = ground.survey(with_changes=True)
    assert found.notes == ("5 uncommitted changes included as a commit on top",)
    after = ground.user.snapshot()
    assert {name: after[name] for name in before} == before
    assert all(name.startswith(".git/objects/") for name in after.keys() - before.keys())
    assert set(ground.folder.iterdir()) == outside
    ground.uncork(found)
    assert ground.genie.git("rev-parse", "HEAD~1") == tip
    assert ground.genie.git("diff", "--name-status", "HEAD~1", "HEAD").splitlines() == [
        "A\t.gitignore", "M\tchanged", "D\tgone", "A\tnew", "A\tstaged",
    ]  # fmt: skip


def test_nested_repositories_are_not_included(ground: Ground) -> None:
    ground.user.commit()
    for name in ("born", "unborn"):
        inner = Repo(ground.user.path / name, ground.env)
        ground.user.git("init", "--quiet", str(inner.path))
        (inner.path / "file").write_text("1")
    inner = Repo(ground.user.path / "born", ground.env)
    inner.commit()
    note = "nested repositories not included (2): born/, unborn/"
    assert ground.survey(with_changes=True).notes == (note,)
    (ground.user.path / "new").write_text("1")
    found = ground.survey(with_changes=True)
    assert found.notes == ("1 uncommitted change included as a commit on top", note)
    ground.uncork(found)
    assert ground.genie.git("ls-tree", "--name-only", "HEAD") == "new"


@pytest.mark.parametrize("settings", ["bare = true", "bare = false\nworktree = ."])
def test_committed_files_that_look_like_a_repository_are_refused(ground: Ground, settings: str) -> None:
    """Their settings could run programs. Until they are committed, they are a repository like any other."""
    mark, looks = ground.folder / "mark", ground.user.path / "looks"
    ground.user.commit()
    ground.user.git("init", "--quiet", "--bare", str(looks))
    Repo(looks, ground.env).git("fetch", "--quiet", "..", "HEAD:refs/heads/main")
    assert ground.survey(looks).work.repository == looks
    (looks / "config").write_text(f'[core]\n{settings}\n[filter "x"]\nclean = touch {mark}; cat\n')
    (looks / ".gitattributes").write_text("file filter=x\n")
    (looks / "file").write_text("1")
    ground.user.commit()
    with pytest.raises(
        RepositoryError, match=f"^{looks}: looks like a repository, but is part of another one; pass that"
    ):
        ground.survey(looks)
    assert not mark.exists()


@pytest.mark.parametrize("name", [":x", "a/looks"])
def test_they_are_refused_under_any_name(ground: Ground, name: str) -> None:
    for folder in [ground.user.path / name, *(ground.user.path / name).parents][: 1 + name.count("/")]:
        ground.user.git("init", "--quiet", "--bare", str(folder))
        (folder / "refs" / "kept").touch()
        (folder / "objects" / "kept").touch()
    ground.user.commit()
    with pytest.raises(RepositoryError, match="looks like a repository"):
        ground.survey(ground.user.path / name)


def test_a_work_tree_may_be_elsewhere(ground: Ground) -> None:
    (ground.user.path / "src").mkdir()
    ground.user.git("config", "core.worktree", "../src")
    ground.user.git("commit", "--quiet", "--allow-empty", "--message", "x")
    assert ground.survey(ground.user.path / "src").work.repository == ground.user.path / "src"


def test_a_full_disk_is_reported(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    ground.user.commit()
    (ground.user.path / "new").write_text("1")
    monkeypatch.setattr("tempfile.mkdtemp", full)
    with pytest.raises(RepositoryError, match=r"^cannot include uncommitted changes: /.*: No space left on device$"):
        ground.survey(with_changes=True)


def test_a_dry_run_writes_nothing(ground: Ground) -> None:
    tip = ground.user.commit()
    (ground.user.path / "new").write_text("1")
    before = ground.user.snapshot()
    found = source.survey(Wanted(ground.user.path, with_changes=True), ground.env, None)
    assert (found.work.start, ground.user.snapshot()) == (tip, before)


def test_submodules_and_lfs_files_are_noted(ground: Ground) -> None:
    module = ground.user.path / "lib"
    Repo(ground.folder, ground.env).git("init", "--quiet", str(module))
    Repo(module, ground.env).commit()
    ground.user.git("submodule", "--quiet", "add", f"file://{module}", "lib")
    (ground.user.path / "deep").mkdir()
    (ground.user.path / "deep" / ".gitattributes").write_text("*.bin filter=lfs\n")
    ground.user.commit()
    assert ground.survey().notes == (
        "1 submodule not included, its folder is empty: lib",
        "files in Git LFS not included, only their pointers",
    )


def test_each_fault_is_one_line(ground: Ground) -> None:
    def fault(path: Path, ref: str = "HEAD") -> str:
        with pytest.raises(RepositoryError) as caught:
            ground.survey(path, ref)
        return str(caught.value).removeprefix(f"{path}: ")

    user = ground.user.path
    assert fault(user) == "no commits yet; `git commit --allow-empty` makes one"
    ground.user.commit()
    assert fault(user, "no\x1b") == r"unknown revision 'no\x1b'"
    assert fault(user, "^HEAD") == "unknown revision '^HEAD'"
    assert fault(ground.folder / ("x" * 300)) == "File name too long"
    assert fault(user, "--all") == "unknown revision '--all'"
    assert fault(ground.folder).startswith("not a git repository")
    assert fault(ground.folder / "none") == "not a folder"
    with pytest.raises(RepositoryError, match=r"relative to HEAD; omit --ref$"):
        ground.survey(ref=ground.user.git("commit-tree", "-m", "x", "HEAD^{tree}"), with_changes=True)
    ground.user.git("branch", "bottle")
    assert fault(user).startswith('rename the branch "bottle": ')
    with pytest.raises(UsageError, match=r"pass --repo$"):
        source.wanted(None, None, "main", with_changes=False)


def test_git_variables_in_the_users_environment_are_ignored(ground: Ground) -> None:
    tip = ground.user.commit()
    other = Repo(ground.folder / "other", ground.env)
    Repo(ground.folder, ground.env).git("init", "--quiet", str(other.path))
    ground.env |= {"GIT_DIR": str(other.path / ".git"), "GIT_INDEX_FILE": "/nonexistent", "GIT_EXTERNAL_DIFF": "false"}
    assert ground.survey().work.commit == tip


def test_odd_revisions_origins_and_sparse_checkouts_work(ground: Ground) -> None:
    first = ground.user.commit("needle", kept="1")
    (ground.user.path / "away").mkdir()
    (ground.user.path / "away" / "file").write_text("1")
    second = ground.user.commit("second")
    assert ground.survey(ref=":/needle").work.commit == first
    ground.user.git("remote", "add", "origin", "x")
    ground.user.git("config", "remote.origin.url", "--mirror=push")
    ground.user.git("sparse-checkout", "set", "--cone", "near")
    (ground.user.path / "away").mkdir()
    (ground.user.path / "away" / "new").write_text("1")
    ground.uncork(ground.survey(with_changes=True))
    assert ground.genie.git("diff", "--name-status", second, "HEAD") == "A\taway/new"
    assert ground.genie.git("config", "remote.origin.url") == "--mirror=push"
    with pytest.raises(RepositoryError, match="no work tree, so no uncommitted changes"):
        ground.survey(ground.user.path / ".git", with_changes=True)


def test_a_line_break_in_a_path_is_refused(ground: Ground) -> None:
    path = ground.folder / "a\nb"
    Repo(ground.folder, ground.env).git("init", "--quiet", str(path))
    Repo(path, ground.env).commit()
    with pytest.raises(RepositoryError, match=r"a\\nb: paths with a line break are not supported"):
        ground.survey(path)


@pytest.mark.parametrize("name", ["plain", "two words"])
def test_a_repository_of_another_user_is_named_with_what_to_do(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = ground.folder / name
    ground.user.git("clone", "--quiet", "--bare", ".", str(path))
    monkeypatch.setattr("claude_bottle.repository.git._KEPT", ("GIT_TEST_ASSUME_DIFFERENT_OWNER",))
    ground.env["GIT_TEST_ASSUME_DIFFERENT_OWNER"] = "1"
    with pytest.raises(RepositoryError) as caught:
        ground.survey(path)
    quoted = f"'{path}'" if " " in name else path
    assert str(caught.value) == (
        f"{path}: it belongs to another user, so git does not read it; if you trust it:"
        f" `git config --global --add safe.directory {quoted}`"
    )
