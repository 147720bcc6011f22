"""The program that gets the work out of a bottle, function by function, on real repositories."""

import ast
import contextlib
import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from claude_bottle.repository import exporter
from claude_bottle.repository.exporter import Commits, Git, Kept, Task, WorkTree
from tests.support import systems
from tests.support.repos import CONFIG, Repo

SOURCE = Path(exporter.__file__)
OUT = "refs/x/out"
SIZE = 1000


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """A repository of one commit, as a bottle's agent has it: what runs git here sees only its home."""
    for name in ("home", "tmp", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "home" / ".gitconfig").write_text(CONFIG)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    made = Repo(tmp_path / "work", dict(os.environ))
    made.git("init", "--quiet")
    made.commit("one", kept="1", changed="1")
    return made


def git(repo: Repo) -> Git:
    return Git(str(repo.path), dict(repo.env))


def task(repo: Repo, size: int = SIZE) -> Task:
    return Task(repo.git("rev-list", "--max-parents=0", "--all").split()[0], size, str(repo.path.parent / "tmp"))


def opened(repo: Repo) -> WorkTree:
    tree = WorkTree.opened(str(repo.path), task(repo))
    assert tree
    return tree


def inner(repo: Repo, *names: str) -> Repo:
    """Make a repository inside, with a file."""
    made = Repo(repo.path.joinpath(*names), repo.env)
    made.path.mkdir(parents=True)
    made.git("init", "--quiet")
    (made.path / "file").write_text("1")
    return made


def staged(tree: WorkTree) -> set[str]:
    return set(tree.git.items("ls-files", "-z"))


def run(repo: Repo, *words: str, **env: str) -> "subprocess.CompletedProcess[bytes]":
    """Run the program as a bottle does; root has no more rights than the owner of its files."""
    plain = (shutil.which("setpriv"), "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
    argv = (*plain, sys.executable, "-IS", "-X", "utf8", "-", words[0], str(repo.path), *words[1:])
    return subprocess.run(argv, env={**repo.env, **env}, input=SOURCE.read_bytes(), capture_output=True, check=False)


def records(done: "subprocess.CompletedProcess[bytes]") -> list[dict[str, Any]]:
    assert (done.returncode, done.stderr) == (0, b"")
    return [json.loads(line) for line in done.stdout.splitlines()]


# --- the program as such --------------------------------------------------------------------------------------------


def test_it_is_for_old_pythons_and_stands_alone() -> None:
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"), feature_version=(3, 9))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names
    assert "claude_bottle" not in imported


def test_a_pipe_takes_it_at_once() -> None:
    assert len(SOURCE.read_bytes()) < 1 << 16


@systems.needs_linux("file names that are not UTF-8")
@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "xx_XX.ISO-8859-1"])
def test_names_are_the_same_in_every_locale(repo: Repo, locale: str) -> None:
    start = repo.git("rev-parse", "HEAD")
    for name in ("\u00fcml\u00e4ut", os.fsdecode(b"not utf8 \xff"), "new\nline"):
        inner(repo, name)
    done = run(repo, "keep", start, "1000", LC_ALL=locale, LANG=locale)
    found = [record["path"] for record in records(done) if record["kind"] == "nested"]
    assert sorted(found) == sorted(("\u00fcml\u00e4ut", "not utf8 \udcff", "new\nline"))
    assert list((repo.path.parent / "tmp").iterdir()) == []


def test_what_cannot_be_run_is_one_line(repo: Repo) -> None:
    done = run(repo, "keep", "1" * 40, "1000", PATH="/nonexistent")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, b"", 1)


@pytest.mark.parametrize(("code", "times"), [(errno.EAGAIN, 3), (errno.EAGAIN, 4), (errno.ENOMEM, 1)])
def test_a_bottle_without_room_for_a_process_is_tried_again(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, code: int, times: int
) -> None:
    monkeypatch.setattr(exporter, "_PAUSES", (0.0,) * 3)
    calls, real = list[int](), subprocess.Popen

    def start(*words: Any, **options: Any) -> "subprocess.Popen[bytes]":
        calls.append(1)
        if len(calls) <= times:
            raise OSError(code, "")
        return real(*words, **options)

    monkeypatch.setattr(subprocess, "Popen", start)
    if (code, times) == (errno.EAGAIN, 3):
        assert git(repo).text("rev-parse", "HEAD")
        return
    for call in (git(repo).text, lambda *words: list(git(repo).items(*words)), git(repo).shown):
        calls.clear()
        with pytest.raises(OSError, match=str(code)):
            call("rev-parse", "HEAD")


def test_git_fails_in_a_folder_that_is_gone(repo: Repo) -> None:
    gone = Git(str(repo.path / "gone \udcff"), dict(repo.env))
    assert (gone.run("status").returncode, list(gone.items("ls-files", "-z"))) == (127, [])
    assert b"gone" in gone.run("status").stderr


def test_long_names_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    exporter.tell("large", path="x" * 5000)
    assert json.loads(capsys.readouterr().out) == {"kind": "large", "path": "x" * 1000}


# --- files ----------------------------------------------------------------------------------------------------------


def test_a_walk_sees_everything_but_what_git_has(repo: Repo) -> None:
    (repo.path / "deep" / ".git").mkdir(parents=True)
    (repo.path / "deep" / ".git" / "inside").touch()
    (repo.path / "link").symlink_to("deep")
    found = {path for path, _ in exporter.walk(str(repo.path))}
    assert found == {".git", "changed", "deep", "deep/.git", "kept", "link"}
    assert list(exporter.walk("/nonexistent")) == []


def test_a_walk_goes_deeper_than_python_calls(tmp_path: Path) -> None:
    depth = sys.getrecursionlimit() + 100
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        here, last = os.open("d", os.O_RDONLY, dir_fd=here), here
        os.close(last)
    os.close(here)
    seen = sum(1 for _ in exporter.walk(str(tmp_path)))
    subprocess.run(("rm", "-rf", str(tmp_path / "d")), check=True)  # pytest cannot
    assert seen == depth


def test_large_files_and_repositories_inside_are_found(tmp_path: Path) -> None:
    for path, size in (("a/just", SIZE), ("a/over", SIZE + 1), ("b/.git", SIZE + 1), (".git", 0), ("c/d/.git/x", 0)):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(bytes(size))
    (tmp_path / "link").symlink_to("a/over")
    assert list(exporter.large(str(tmp_path), SIZE)) == ["a/over"]
    assert sorted(exporter.nested(str(tmp_path))) == ["b", "c/d"]


def test_a_copy_takes_links_as_links_and_waits_for_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_text("1")
    (folder / "link").symlink_to("/etc/passwd")
    os.mkfifo(folder / "fifo")
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "new").mkdir()
    for name in ("folder", "link", "none", "folder/fifo", "folder/file"):
        exporter._copy(str(tmp_path / name), str(tmp_path / "new" / name.replace("/", "-")))
    new = tmp_path / "new"
    assert {path.name for path in new.iterdir()} == {"folder", "link", "folder-file"}
    assert {path.name for path in (new / "folder").iterdir()} == {"file", "link"}
    assert (str((new / "folder" / "link").readlink()), str((new / "link").readlink())) == ("/etc/passwd", "folder")
    for name in ("folder", "link", "folder-file", "none"):
        exporter._remove(str(new / name))
    assert list(new.iterdir()) == []
    assert (folder / "file").exists()


def test_small_files_are_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    exporter._write(str(path), "not utf8 \udcff")
    assert path.read_bytes() == b"not utf8 \xff\n"
    assert exporter._read(str(path)) == "not utf8 \udcff"
    path.write_bytes(b"ref:\0 x\0\n\n")
    assert exporter._read(str(path)) == "ref: x"
    assert (exporter._read(str(tmp_path)), exporter._read("/none"), exporter._read("\0")) == ("", "", "")
    exporter._write("/nonexistent/file", "x")


def test_paths_are_the_same_if_they_lead_to_the_same(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    assert exporter._same(str(tmp_path / "link"), str(tmp_path))
    for one, other in ((str(tmp_path), "/"), ("", ""), ("/none", "/none"), ("\0", "\0")):
        assert not exporter._same(one, other)


@pytest.mark.parametrize(("head", "at"), [("ref: refs/heads/x", "refs/heads/x"), ("1" * 40, "1" * 40), ("", "")])
def test_a_head_leads_somewhere(head: str, at: str) -> None:
    assert exporter._unref(head) == at


# --- git ------------------------------------------------------------------------------------------------------------


def test_git_answers_or_says_nothing(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    oid = repo.git("rev-parse", "HEAD")
    assert git(repo).name("HEAD^{commit}") == oid
    assert (git(repo).name("none"), git(repo).text("none")) == ("", "")
    assert (git(repo).ok("cat-file", "-e", oid), git(repo).ok("cat-file", "-e", "1" * 40)) == (True, False)
    assert git(repo).toplevel() == str(repo.path.resolve())
    monkeypatch.setattr(exporter, "_BLOCK", 3)
    assert list(git(repo).items("ls-files", "-z")) == ["changed", "kept"]
    assert list(git(repo).items("none")) == []


def test_git_says_what_it_ignores_whatever_the_name(repo: Repo) -> None:
    (repo.path / ".gitignore").write_text("*.log\n")
    inner(repo, "module").commit()
    repo.commit("a submodule")
    paths = ("a.log", ":(top)a.log", "kept", ":(top)kept", "-kept", "module/file")
    assert [git(repo).ignores(path) for path in paths] == [True, True, False, False, False, True]


def test_git_in_another_folder_finds_that_ones_repository(repo: Repo) -> None:
    other = inner(repo, "other")
    here = git(repo)
    here.env.update(GIT_DIR=str(repo.path / ".git"), GIT_WORK_TREE=str(repo.path), GIT_INDEX_FILE="/none")
    assert here.alone(str(other.path)).toplevel() == str(other.path.resolve())


def test_git_shows_on_our_own_stdout(repo: Repo, capfd: pytest.CaptureFixture[str]) -> None:
    assert git(repo).shown("rev-parse", "HEAD") == 0
    assert capfd.readouterr().out == repo.git("rev-parse", "HEAD") + "\n"
    assert git(repo).shown("none") == 1


def test_no_hook_runs(repo: Repo) -> None:
    hook = repo.path / ".git" / "hooks" / "reference-transaction"
    hook.write_text(f"#!/bin/sh\ntouch {repo.path}/mark\n")
    hook.chmod(0o755)
    assert git(repo).ok("update-ref", "refs/heads/x", "HEAD")
    assert not (repo.path / "mark").exists()


def test_hidden_files_are_looked_at(repo: Repo) -> None:
    for name in ("skipped", "gone"):
        (repo.path / name).write_text("1")
    repo.commit()
    repo.git("update-index", "--assume-unchanged", "changed")
    repo.git("update-index", "--skip-worktree", "skipped", "gone")
    (repo.path / "gone").unlink()
    exporter.unhide(git(repo))
    assert repo.git("ls-files", "-v").splitlines() == ["H changed", "S gone", "H kept", "H skipped"]


def test_all_is_added_but_what_is_large_or_another_repositorys(repo: Repo) -> None:
    (repo.path / ".gitignore").write_text("ignored\nbig.log\n")
    (repo.path / "left").write_text("1")
    for name in ("big", "big.log", ":(top)big"):
        (repo.path / name).write_bytes(bytes(SIZE + 1))
    for name in ("in", "ignored", ":(top)in"):
        inner(repo, name)
    assert exporter.add(git(repo), SIZE).returncode == 0
    assert set(git(repo).items("ls-files", "-z")) == {".gitignore", "changed", "kept", "left"}


# --- a work tree ----------------------------------------------------------------------------------------------------


def test_a_work_tree_is_taken_as_it_is(repo: Repo) -> None:
    tree = opened(repo)
    assert (tree.theirs, tree.index) == (str(repo.path / ".git"), str(repo.path / ".git" / "index"))
    assert "GIT_DIR" not in tree.git.env


def test_settings_of_the_agent_that_git_does_not_take_do_not_count(repo: Repo) -> None:
    asked = task(repo)
    repo.git("config", "--global", "core.autocrlf", "maybe")
    tree = WorkTree.opened(str(repo.path), asked)
    assert tree
    assert ("GIT_DIR" in tree.git.env, tree.git.env["GIT_CONFIG_GLOBAL"]) == (False, "/dev/null")


def break_head(repo: Repo) -> None:
    (repo.path / ".git" / "HEAD").unlink()


def break_config(repo: Repo) -> None:
    repo.git("config", "core.autocrlf", "maybe")


def lead_astray(repo: Repo) -> None:
    repo.git("config", "core.worktree", "/")


def zero_head(repo: Repo) -> None:
    (repo.path / ".git" / "HEAD").write_bytes(bytes(21))


@pytest.mark.parametrize("ruin", [break_head, break_config, lead_astray, zero_head])
def test_a_repository_of_our_own_is_put_on_top_of_what_cannot_be_used(repo: Repo, ruin: Callable[[Repo], None]) -> None:
    asked, start = task(repo), repo.git("rev-parse", "HEAD")
    repo.git("branch", "aside")
    before = repo.snapshot()
    ruin(repo)
    ruined = repo.snapshot()
    tree = WorkTree.opened(str(repo.path), asked)
    assert tree
    assert tree.git.env["GIT_DIR"] == str(repo.path.parent / "tmp" / ".claude-bottle.git")
    assert tree.git.name("HEAD") == tree.git.name("aside") == start
    assert tree.git.text("ls-files") == "changed\nkept"
    assert repo.snapshot() == ruined != before


def test_where_no_repository_can_be_made_there_is_none(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    asked = task(repo)
    (repo.path.parent / "tmp" / ".claude-bottle.git").touch()
    break_head(repo)
    assert WorkTree.opened(str(repo.path), asked) is None
    assert "claude-bottle.git" in capsys.readouterr().err


def test_our_own_repository_begins_where_it_should(repo: Repo) -> None:
    one, two = repo.git("rev-parse", "HEAD"), repo.commit("two")
    tree = opened(repo)
    for at, head in (("", two), (one, one), ("none", one)):
        assert tree.own(at)
        assert tree.git.name("HEAD") == head
    (repo.path / ".git" / "refs" / "heads" / "bad").write_text("junk")
    (repo.path / ".git" / "packed-refs").write_text("junk")
    assert tree.own(two, "-ident")
    assert tree.git.text("for-each-ref") == ""
    attributes = repo.path.parent / "tmp" / ".claude-bottle.git" / "info" / "attributes"
    assert attributes.read_text() == "* -filter -ident\n"


def test_an_index_is_copied_or_made_anew(repo: Repo) -> None:
    (repo.path / "new").write_text("1")
    repo.git("add", "new")
    tree = opened(repo)
    tree.copied()
    assert staged(tree) == {"changed", "kept", "new"}
    tree.fresh()
    assert staged(tree) == {"changed", "kept"}
    assert tree.readable()
    Path(tree.git.env["GIT_INDEX_FILE"]).write_text("junk")
    assert not tree.readable()
    assert repo.git("ls-files").split() == ["changed", "kept", "new"]


@pytest.mark.parametrize("name", exporter._UNDER_WAY)
def test_an_operation_under_way_is_seen(repo: Repo, name: str) -> None:
    tree = opened(repo)
    assert not tree.busy()
    (repo.path / ".git" / name).touch()
    assert tree.busy()


def test_files_of_repositories_inside_are_put_into_the_index(repo: Repo) -> None:
    for names in (("a",), ("a", "b"), ("a-b",), ("-n",), (":(top)x",), ("new\nline",)):
        inner(repo, *names)
    (repo.path / "none" / ".git").mkdir(parents=True)
    tree = opened(repo)
    assert tree.whole()
    found = {"-n", ":(top)x", "a", "a-b", "a/b", "new\nline"}
    assert set(tree.nested) == found
    assert staged(tree) == {"changed", "kept"} | {f"{name}/file" for name in found}


def test_what_git_does_not_take_is_said(repo: Repo) -> None:
    (repo.path / ".gitattributes").write_text("left filter=x\n")
    (repo.path / "left").write_text("1")
    repo.git("config", "filter.x.clean", "false")
    repo.git("config", "filter.x.required", "true")
    tree = opened(repo)
    assert not tree.whole()
    assert "left" in tree.said
    assert tree.rescued(repo.git("rev-parse", "HEAD"))
    assert "left" in staged(tree)


def test_a_work_tree_or_untouched_submodule_inside_is_known(repo: Repo) -> None:
    module = inner(repo, "module")
    module.commit()
    repo.commit("with a submodule")
    start = repo.git("rev-parse", "HEAD")
    repo.git("worktree", "add", "--quiet", "-b", "aside", "aside")
    inner(repo, "other")
    tree = WorkTree.opened(str(repo.path), Task(start, SIZE, str(repo.path.parent / "tmp")))
    assert tree
    known = [tree.known(name) for name in ("module", "aside", "other", "none", ".")]
    assert known == [True, True, False, False, False]
    (module.path / "file").write_text("2")
    (repo.path / "aside").rename(repo.path / "moved")
    assert [tree.known(name) for name in ("module", "moved")] == [False, False]


def test_nothing_left_makes_no_commit(repo: Repo) -> None:
    head = repo.git("rev-parse", "HEAD")
    assert opened(repo).kept() == Kept("", head, ())
    assert repo.git("rev-parse", "HEAD") == head


def test_what_was_left_becomes_a_commit(repo: Repo) -> None:
    head = repo.git("rev-parse", "HEAD")
    (repo.path / "left").write_text("1")
    kept = opened(repo).kept()
    assert (kept.old, kept.why, repo.git("rev-parse", "HEAD", "HEAD~1").split()) == (head, (), [kept.new, head])
    who = "claude-bottle <claude-bottle@localhost>"
    assert repo.git("log", "-1", "--format=%an <%ae>%n%cn <%ce>%n%s").splitlines() == [
        *(who, who, "Keep what was left uncommitted"),
    ]
    assert repo.git("status", "--porcelain") == ""


def test_beside_the_agents_index_the_same_files_make_the_same_commit(repo: Repo) -> None:
    head = repo.git("rev-parse", "HEAD")
    (repo.path / "left").write_text("1")
    (repo.path / ".git" / "index.lock").touch()
    first, second = opened(repo).kept(), opened(repo).kept()
    assert (first.new, first.why) == (second.new, ()) != ("", ())
    assert repo.git("rev-parse", "HEAD", f"{first.new}~1").split() == [head, head]


def test_a_first_commit_has_nothing_below(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "--orphan", "other")
    kept = opened(repo).kept()
    assert (kept.old, kept.why) == ("", ())
    assert repo.git("rev-list", "HEAD") == kept.new


def test_beside_the_agents_index_one_commit_follows_the_other(repo: Repo) -> None:
    head = repo.git("rev-parse", "HEAD")
    (repo.path / ".git" / "index.lock").touch()
    made = list[str]()
    for text in ("1", "2", "2"):
        (repo.path / "left").write_text(text)
        made.append(opened(repo).kept().new)
    assert made[1] == made[2]
    assert repo.git("rev-parse", f"{made[1]}^@", f"{made[0]}^@").split() == [made[0], head]
    other = repo.git("commit-tree", "HEAD^{tree}", "-m", "the agent has begun anew")
    repo.git("update-ref", "HEAD", other)
    assert repo.git("rev-parse", f"{opened(repo).kept().new}^@") == other


def test_one_commit_follows_the_other_without_the_agents_repository_too(repo: Repo) -> None:
    start = repo.git("rev-parse", "HEAD")
    repo.git("config", "core.repositoryFormatVersion", "99")
    made = list[str]()
    for text in ("1", "2"):
        (repo.path / "left").write_text(text)
        tree = WorkTree.opened(str(repo.path), Task(start, SIZE, str(repo.path.parent / "tmp")))
        assert tree
        made.append(tree.kept().new)
    assert tree
    assert tree.git.text("rev-parse", f"{made[1]}^") == made[0]
    assert run(repo, "forget", made[1], start).returncode == 0
    assert tree.git.text("for-each-ref", "refs/claude-bottle") == ""


def test_why_nothing_is_kept_is_one_line(repo: Repo) -> None:
    (repo.path / "left").write_text("1")
    for number in range(256):
        path = repo.path / ".git" / "objects" / f"{number:02x}"
        if not path.exists():
            path.touch()
    (repo.path.parent / "tmp" / ".claude-bottle.git").touch()
    kept = opened(repo).kept()
    assert kept.new == ""
    assert kept.why
    assert {(len(why.splitlines()), "nested" in why) for why in kept.why} == {(1, False)}


def test_large_files_are_listed_unless_they_are_committed_or_ignored(repo: Repo) -> None:
    for name in ("committed", "modified", "odd*", "a.log"):
        (repo.path / name).write_bytes(bytes(SIZE + 1))
    (repo.path / ".gitignore").write_text("*.log\n")
    repo.git("add", "committed", "modified", ".gitignore")
    repo.git("commit", "--quiet", "--message", "large")
    (repo.path / "modified").write_bytes(bytes(SIZE + 2))
    assert sorted(opened(repo).large()) == ["modified", "odd*"]


# --- commits beside the HEAD ----------------------------------------------------------------------------------------


def test_commits_without_a_branch_are_found(repo: Repo) -> None:
    start = repo.git("rev-parse", "HEAD")
    repo.git("checkout", "--quiet", "--detach")
    left = repo.commit("detached")
    repo.git("checkout", "--quiet", "-b", "deleted")
    deleted = repo.commit("deleted")
    repo.git("checkout", "--quiet", "main")
    repo.git("branch", "--quiet", "-D", "deleted")
    (repo.path / "changed").write_text("stashed")
    repo.git("stash", "--quiet")
    commits = Commits(opened(repo))
    # Of the first nothing is left but what the second has: it was left for a branch.
    assert set(commits.unnamed()) == {
        (repo.git("rev-parse", "stash"), "stash stash@{0}"),
        *((oid, f"commit {oid[:12]}") for oid in (left, deleted)),
    }
    assert [commits.loose(oid) for oid in (left, start, "")] == [True, False, False]
    repo.git("branch", "again", deleted)
    assert not commits.loose(left)


def test_a_log_of_zeros_is_no_hindrance(repo: Repo) -> None:
    repo.git("checkout", "--quiet", "--detach")
    left = repo.commit("detached")
    repo.git("checkout", "--quiet", "main")
    log = repo.path / ".git" / "logs" / "HEAD"
    log.write_bytes(log.read_bytes().replace(b" to main", b"\0 to main\n" + bytes(500)))
    assert list(Commits(opened(repo)).unnamed()) == [(left, f"commit {left[:12]}")]


def test_branches_that_are_not_merged_are_found(repo: Repo) -> None:
    start = repo.git("rev-parse", "HEAD")
    tips = {}
    for name in ("aaa", "bottle/x"):
        repo.git("checkout", "--quiet", "-b", name, start)
        tips[name] = repo.commit(name)
    repo.git("checkout", "--quiet", "main")
    repo.git("branch", "merged")
    named = {name: (tip, f"branch {name}") for name, tip in tips.items()}
    assert list(Commits(opened(repo)).branches()) == [named["bottle/x"], named["aaa"], named["bottle/x"]]


def test_branches_are_found_though_a_setting_is_broken(repo: Repo) -> None:
    asked = task(repo)
    repo.git("checkout", "--quiet", "-b", "aside")
    tip = repo.commit("aside")
    repo.git("checkout", "--quiet", "main")
    repo.git("config", "core.repositoryFormatVersion", "99")
    tree = WorkTree.opened(str(repo.path), asked)
    assert tree
    assert list(Commits(tree).branches()) == [(tip, "branch aside")]


# --- the commands ---------------------------------------------------------------------------------------------------


def test_keep_says_all_there_is(repo: Repo) -> None:
    start, aside = repo.git("rev-parse", "HEAD"), repo.path.parent / "aside"
    repo.git("worktree", "add", "--quiet", "-b", "aside", str(aside))
    repo.git("worktree", "add", "--quiet", "--detach", str(aside) + "-gone")
    gone = Repo(aside.with_name("aside-gone"), repo.env).commit("gone")
    aside.with_name("aside-gone").rename(aside.with_name("renamed"))
    for path in (repo.path, aside):
        (path / "left").write_text(path.name)
        (path / "big").write_bytes(bytes(SIZE + 1))
        inner(Repo(path, repo.env), "in")
    found = records(run(repo, "keep", start, str(SIZE)))
    tip, beside = repo.git("rev-parse", "HEAD"), repo.git("rev-parse", "aside")
    assert found == [
        {"kind": "head", "tip": tip, "before": start},
        {"kind": "nested", "path": "in"},
        {"kind": "large", "path": "big"},
        {"kind": "nested", "path": f"{aside}/in"},
        {"kind": "large", "path": f"{aside}/big"},
        {"kind": "commit", "oid": beside, "below": start, "what": "branch aside"},
        {"kind": "commit", "oid": gone, "below": "", "what": f"work tree {aside}-gone"},
    ]
    assert repo.git("show", f"{tip}:left") == "work"
    assert repo.git("show", f"{beside}:left") == "aside"


def test_keep_says_how_many_commits_at_most(repo: Repo) -> None:
    start = repo.git("rev-parse", "HEAD")
    tree = repo.git("rev-parse", "HEAD^{tree}")
    made = [repo.git("commit-tree", tree, "-p", start, "-m", str(number)) for number in range(110)]
    lines = "".join(f"create refs/heads/b{number} {oid}\n" for number, oid in enumerate(made))
    repo.git("update-ref", "--stdin", stdin=lines.encode())
    assert sum(record["kind"] == "commit" for record in records(run(repo, "keep", start, "1000"))) == 100


def kept(repo: Repo, found: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    """Hold that these and no other files are in what was kept of the HEAD; return all else that is said."""
    heads = [record for record in found if record["kind"] == "head"]
    apart = repo.path.parent / "tmp" / ".claude-bottle.git"  # if git does not take everything
    at = repo.path / ".git" if not apart.exists() else apart
    tree = repo.git(f"--git-dir={at}", "ls-tree", "-r", "-z", "--name-only", heads[0]["tip"]).split("\0")
    assert sorted(filter(None, tree)) == sorted(("changed", "kept", *names))
    return [record for record in found if record["kind"] != "head"]


def test_what_the_agent_has_closed_is_opened(repo: Repo) -> None:
    start, aside = repo.git("rev-parse", "HEAD"), repo.path.parent / "aside"
    repo.git("branch", "other", repo.git("commit-tree", "HEAD^{tree}", "-p", start, "-m", "other"))
    repo.git("worktree", "add", "--quiet", "-b", "aside", str(aside))
    inner(repo, "in")
    files = ("closed/deep/file", "searched/file", "listed/file", "file", ".gitignore", "in/file")
    for path in [repo.path / name for name in files] + [aside / "closed/file"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("ignored\n")
    for name, mode in (
        ("file", 0), (".gitignore", 0o200), ("closed/deep", 0), ("closed", 0), ("searched", 0o100), ("listed", 0o400),
        ("in/.git", 0), ("../aside/closed", 0), (".git/refs/heads/other", 0), (".git/objects", 0), ("../aside", 0),
        (".git", 0), (".", 0),
    ):  # fmt: skip
        (repo.path / name).chmod(mode)
    found = records(run(repo, "keep", start, str(SIZE)))
    others = kept(repo, found, *files)
    assert sorted((record["kind"], record.get("what", record.get("path"))) for record in others) == [
        ("commit", "branch aside"), ("commit", "branch other"), ("nested", "in"),
    ]  # fmt: skip
    assert repo.git("show", "aside:closed/file") == "ignored"
    assert not (repo.path / "file").stat().st_mode & 0o177


def test_what_git_only_warns_of_is_named(repo: Repo) -> None:
    """A path of more than PATH_MAX bytes: nobody can open its last folders by their names."""
    start = repo.git("rev-parse", "HEAD")
    folder = os.open(repo.path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("x" * 250, dir_fd=folder)
        folder, outer = os.open("x" * 250, os.O_RDONLY, dir_fd=folder), folder
        os.close(outer)
    os.close(folder)
    (repo.path / "left").write_text("1")
    (failed,) = kept(repo, records(run(repo, "keep", start, str(SIZE))), "left")
    assert failed["kind"] == "failed"
    assert failed["why"].startswith("warning: could not open directory 'xxx")
    assert run(repo, "diff", start, str(SIZE)).returncode == exporter.PART


@pytest.mark.parametrize("language", ["C.UTF-8", "de_DE.UTF-8"])
def test_what_is_no_loss_is_not_named(repo: Repo, language: str) -> None:
    start = repo.git("rev-parse", "HEAD")
    repo.git("config", "core.autocrlf", "input")
    (repo.path / "crlf").write_text("1\r\n", newline="")
    (repo.path / "closed").mkdir()
    (repo.path / ".gitignore").write_text("ignored\n")
    os.mkfifo(repo.path / "ignored")
    assert kept(repo, records(run(repo, "keep", start, str(SIZE), LC_ALL=language)), "crlf", ".gitignore") == []


def test_names_that_git_refuses_are_named_and_the_rest_is_kept(repo: Repo) -> None:
    start = repo.git("rev-parse", "HEAD")
    (repo.path / ".GIT").mkdir()
    for name in ("left", ".GIT/config", "git~1"):
        (repo.path / name).write_text("1")
    (repo.path / "changed").unlink()
    os.mkfifo(repo.path / "changed")
    found = kept(repo, records(run(repo, "keep", start, str(SIZE))), "left")
    whys = [record["why"] for record in found if record["kind"] == "failed"]
    for name in ("'.GIT/config'", "'git~1'", "changed: can only add regular files"):
        assert [why for why in whys if name in why], whys
    assert [record["path"] for record in found if record["kind"] == "special"] == ["changed"]


def test_no_more_than_some_reasons_are_given(repo: Repo) -> None:
    start = repo.git("rev-parse", "HEAD")
    (repo.path / ".GIT").mkdir()
    for number in range(30):
        (repo.path / ".GIT" / str(number)).touch()
    whys = [each["why"] for each in records(run(repo, "keep", start, str(SIZE))) if each["kind"] == "failed"]
    assert (len(whys), whys[-1]) == (21, "and 40 more")


def test_what_git_passes_over_is_listed(repo: Repo) -> None:
    start = repo.git("rev-parse", "HEAD")
    (repo.path / "sub").mkdir()
    os.mkfifo(repo.path / "sub" / "fifo")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as made, contextlib.chdir(repo.path):
        made.bind("socket")
    found = kept(repo, records(run(repo, "keep", start, str(SIZE))))
    assert found == [{"kind": "special", "path": name} for name in ("socket", "sub/fifo")]


def test_a_sparse_checkout_hides_nothing(repo: Repo) -> None:
    """Neither what is new beside it, nor what was changed of a file that need not be there."""
    start = repo.git("rev-parse", "HEAD")
    repo.git("config", "core.sparseCheckout", "true")
    repo.git("update-index", "--skip-worktree", "changed")
    (repo.path / ".git" / "info" / "sparse-checkout").write_text("/kept\n")
    for name in ("changed", "new"):
        (repo.path / name).write_text("by the agent")
    assert kept(repo, records(run(repo, "keep", start, str(SIZE))), "new") == []
    assert repo.git("show", "HEAD:changed") == "by the agent"


def test_a_submodule_whose_status_is_kept_quiet_comes(repo: Repo) -> None:
    for name in ("untracked", "assumed"):
        module = inner(repo, name)
        module.commit()
        module.git("config", "status.showUntrackedFiles", "no")
    repo.commit("with submodules")
    start = repo.git("rev-parse", "HEAD")
    tree = WorkTree.opened(str(repo.path), Task(start, SIZE, str(repo.path.parent / "tmp")))
    assert tree
    assert [tree.known(name) for name in ("untracked", "assumed")] == [True, True]
    (repo.path / "untracked" / "new").touch()
    Repo(repo.path / "assumed", repo.env).git("update-index", "--assume-unchanged", "file")
    (repo.path / "assumed" / "file").write_text("2")
    assert [tree.known(name) for name in ("untracked", "assumed")] == [False, False]


def test_branches_that_cannot_be_read_are_named(repo: Repo) -> None:
    start, refs = repo.git("rev-parse", "HEAD"), repo.path / ".git" / "refs" / "heads"
    tip = repo.git("commit-tree", "HEAD^{tree}", "-p", start, "-m", "good")
    repo.git("branch", "good", tip)
    (refs / "zeros").write_bytes(bytes(41))
    (refs / "missing").write_text("1" * 40 + "\n")
    found = kept(repo, records(run(repo, "keep", start, str(SIZE))))
    assert found[0] == {"kind": "commit", "oid": tip, "below": "", "what": "branch good"}
    assert [record["why"] for record in found[1:]] == [
        "warning: ignoring broken ref refs/heads/zeros", "the commit of branch missing is missing",
    ]  # fmt: skip
    repo.git("pack-refs", "--all", "--prune")
    with (repo.path / ".git" / "packed-refs").open("a") as file:
        file.write("junk\n")
    found = records(run(repo, "keep", start, str(SIZE)))
    assert {"kind": "unread", "why": "no branch, tag or stash can be read"} in found


def test_a_stash_without_a_log_comes(repo: Repo) -> None:
    (repo.path / "changed").write_text("stashed")
    repo.git("stash", "--quiet")
    (repo.path / ".git" / "logs" / "refs" / "stash").unlink()
    assert list(Commits(opened(repo)).unnamed()) == [(repo.git("rev-parse", "stash"), "stash stash@{0}")]


def test_a_work_tree_whose_repository_cannot_be_used_is_said(repo: Repo) -> None:
    start, aside = repo.git("rev-parse", "HEAD"), repo.path.parent / "aside"
    repo.git("worktree", "add", "--quiet", "--detach", str(aside))
    (repo.path / ".git" / "worktrees" / "aside" / "HEAD").write_text("junk")
    (repo.path.parent / "tmp" / ".claude-bottle.git").touch()
    done = run(repo, "keep", start, "1000")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["why"] for record in found if record["kind"] == "failed"] == [
        f"in {aside}: its repository cannot be used"
    ]


def test_keep_fails_where_there_is_no_git(repo: Repo) -> None:
    break_head(repo)
    (repo.path.parent / "tmp" / ".claude-bottle.git").touch()
    done = run(repo, "keep", "1" * 40, "1000")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr


def test_a_bundle_has_one_ref_and_what_is_new(repo: Repo) -> None:
    start, one, two = repo.git("rev-parse", "HEAD"), repo.commit("1"), repo.commit("2")
    for before, below in (((), start), ((one,), one), (("1" * 40,), start)):
        done = run(repo, "bundle", start, two, OUT, *before)
        assert (done.returncode, done.stderr) == (0, b"")
        head = done.stdout.partition(b"\n\n")[0].decode().splitlines()
        assert (head[1].split()[0], head[2:]) == (f"-{below}", [f"{two} {OUT}"])


def test_a_bundle_goes_back_before_what_has_come(repo: Repo) -> None:
    """Or it would be empty."""
    start, one, two = repo.git("rev-parse", "HEAD"), repo.commit("1"), repo.commit("2")
    done = run(repo, "bundle", start, one, OUT, two)
    assert f"{one} {OUT}\n".encode() in done.stdout


def test_an_empty_bundle_is_refused_by_git(repo: Repo) -> None:
    start = repo.git("rev-parse", "HEAD")
    done = run(repo, "bundle", start, start, OUT)
    assert (done.returncode, b"Refusing to create empty bundle" in done.stderr) == (128, True)


def test_a_bundle_of_nothing_is_a_failure(repo: Repo) -> None:
    done = run(repo, "bundle", repo.git("rev-parse", "HEAD"), "1" * 40, OUT)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr


def test_a_difference_shows_what_is_not_committed_and_leaves_the_index(repo: Repo) -> None:
    start = repo.git("rev-parse", "HEAD")
    (repo.path / "left").write_text("the work\n")
    repo.git("config", "diff.external", "false")
    done = run(repo, "diff", start, "1000")
    assert (done.returncode, b"\n+the work\n" in done.stdout) == (0, True)
    assert repo.git("ls-files") == "changed\nkept"
    assert run(repo, "diff", "1" * 40, "1000").returncode == 128


def test_a_difference_that_is_not_whole_says_so(repo: Repo) -> None:
    start = repo.git("rev-parse", "HEAD")
    (repo.path / ".gitattributes").write_text("left filter=x\n")
    (repo.path / "left").write_text("the work")
    repo.git("config", "filter.x.clean", "false")
    repo.git("config", "filter.x.required", "true")
    (repo.path.parent / "tmp" / ".claude-bottle.git").touch()
    assert run(repo, "diff", start, "1000").returncode == exporter.PART


def test_a_commit_of_what_was_left_is_forgotten(repo: Repo) -> None:
    repo.git("worktree", "add", "--quiet", "-b", "aside", "a side")
    before = repo.git("rev-parse", "HEAD")
    kept = Repo(repo.path / "a side", repo.env).commit("kept")
    assert run(repo, "forget", kept, before).returncode == 0
    assert repo.git("rev-parse", "HEAD", "aside").split() == [before] * 2
    ahead = repo.commit("the agent has gone on")
    run(repo, "forget", kept, before)
    assert repo.git("rev-parse", "HEAD") == ahead
