"""A bottle's work on its way back: what comes, and into which branch."""

import json
import os
import subprocess
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from claude_bottle.cleanup import orphans
from claude_bottle.cleanup.orphans import Leftover
from claude_bottle.errors import EngineError, RepositoryError
from claude_bottle.repository import export, fetch
from claude_bottle.repository.clone import OUT
from claude_bottle.repository.fetch import Bottle, HandBack, Reached
from tests.support.clients import NO_ENGINE
from tests.support.fetching import crowd, landed, partly
from tests.support.repos import BRANCH, OWNER, SESSION, Ground, Repo
from tests.support.systems import LINUX

GONE = "Error response from daemon: No such container: x"


def test_everything_comes_back_byte_for_byte(ground: Ground) -> None:
    bottle, work = ground.uncork(), ground.genie.path
    before = ground.user.snapshot()
    names = ["a b", "quote\"'", "back\\slash", "tab\there", "new\nline", "\u00fcml\u00e4ut", "-dash", ":(top)x", "*"]
    for name in names:
        (work / name).write_text(name)
    odd = b"not utf8 \xff" if LINUX else b"not text"  # macOS has no other names
    (work / os.fsdecode(odd)).write_bytes(bytes(range(256)) * 100)
    (work / "crlf").write_bytes(b"a\r\nb\r\n")
    (work / "run").write_text("#!/bin/sh\n")
    (work / "run").chmod(0o755)
    (work / "link").symlink_to("/etc/passwd")
    (work / "empty").touch()
    (work / "kept").unlink()
    ground.genie.commit("by the genie")
    told = ground.fetch(bottle)
    assert told.startswith(f"branch  {BRANCH} in {ground.user.path}\n")
    assert f"look  git -C {ground.user.path} diff {bottle.work.start[:12]} {BRANCH}\n" in told
    assert f"merge  git -C {ground.user.path} merge {BRANCH}\n" in told
    landed(ground, before, BRANCH)
    ground.user.git("worktree", "add", "--quiet", str(ground.folder / "seen"), BRANCH)
    seen = Repo(ground.folder / "seen", ground.env).snapshot()
    assert {name: seen[name] for name in seen if name != ".git"} == {
        name: value for name, value in ground.genie.snapshot().items() if name.split("/")[0] != ".git"
    }


def test_nothing_comes_of_nothing(ground: Ground) -> None:
    bottle, before = ground.uncork(), ground.user.snapshot()
    assert ground.fetch(bottle) == "branch  none: nothing was changed in the bottle\n"
    assert ground.user.snapshot() == before


def test_nothing_comes_of_a_history_that_was_taken_back(ground: Ground) -> None:
    ground.user.commit("second")
    bottle, before = ground.uncork(), ground.user.snapshot()
    ground.genie.git("reset", "--quiet", "--hard", "HEAD~1")
    assert ground.fetch(bottle) == "branch  none: no commit in the bottle is new\n"
    assert ground.user.snapshot() == before


def test_a_branch_moves_forward_and_else_another_is_made(ground: Ground) -> None:
    bottle = ground.uncork()
    one = ground.genie.commit("one")
    ground.fetch(bottle)
    two = ground.genie.commit("two")
    ground.fetch(bottle)
    assert ground.user.git("rev-parse", BRANCH) == two
    ground.genie.git("reset", "--quiet", "--hard", one)
    three = ground.genie.commit("three")
    assert ground.fetch(bottle).startswith(f"branch  {BRANCH}-2 ")
    ground.user.git("checkout", "--quiet", f"{BRANCH}-2")
    four = ground.genie.commit("four")
    assert ground.fetch(bottle).startswith(f"branch  {BRANCH}-3 ")
    names = (BRANCH, f"{BRANCH}-2", f"{BRANCH}-3")
    assert [ground.user.git("rev-parse", name) for name in names] == [two, three, four]


def test_one_branch_is_enough_for_all_of_a_rebase(ground: Ground) -> None:
    bottle, genie = ground.uncork(), ground.genie
    genie.git("checkout", "--quiet", "-b", "onto")
    genie.commit("onto", changed="onto")
    genie.git("checkout", "--quiet", "-b", "moved", BRANCH)
    for text in ("one", "two"):
        genie.commit(text, changed=text)
    rebase = ("git", "-C", str(genie.path), "rebase", "--quiet")
    assert subprocess.run((*rebase, "onto"), env=genie.env, capture_output=True, check=False).returncode == 1
    branches = list[str]()
    for text in ("a", "b", "b", "c", "next", "d"):
        if text == "next":
            genie.git("add", "changed")
            going = (*rebase[:3], "-c", "core.editor=true", "rebase", "--continue")
            assert subprocess.run(going, env=genie.env, capture_output=True, check=False).returncode == 1
        else:
            (genie.path / "changed").write_text(text)
        told = ground.fetch(bottle)
        branches.append(told.split()[1])
        assert ground.user.git("show", f"{branches[-1]}:changed") == (genie.path / "changed").read_text().strip()
    assert set(branches) == {BRANCH}


def test_tags_are_named_and_come_if_asked_for(ground: Ground) -> None:
    bottle, genie = ground.uncork(), ground.genie
    tip = genie.commit("on the branch")
    genie.git("tag", "v1.0")
    genie.git("tag", "--annotate", "--message", "an annotated one", "rel/2+x")
    genie.git("tag", "start", bottle.work.start)
    genie.git("tag", "-m", "of no commit", "tree", "HEAD^{tree}")
    genie.git("checkout", "--quiet", "--detach")
    alone = genie.commit("only the tag's")
    genie.git("tag", "alone")
    genie.git("checkout", "--quiet", BRANCH)
    genie.git("reflog", "expire", "--expire=now", "--all")
    names = "alone, rel/2+x, start, v1.0"
    assert ground.fetch(bottle).endswith(f"tags    {names}: to fetch them, ./cli.py fetch --tags {SESSION}\n")
    assert ground.user.git("tag") == ""
    for _ in range(2):
        told = fetch.fetch(bottle, tags=True)
        assert [line.split()[1] for line in told.splitlines() if line.startswith("tag ")] == [
            f"{BRANCH}/{name}" for name in ("alone", "rel/2+x", "start", "v1.0")
        ]  # fmt: skip
    commits = {"alone": alone, "rel/2+x": tip, "start": bottle.work.start, "v1.0": tip}
    assert {name: ground.user.git("rev-parse", f"refs/tags/{BRANCH}/{name}") for name in commits} == commits
    genie.git("tag", "--force", "v1.0", bottle.work.start)
    assert partly(bottle, tags=True)[1] == f"tag v1.0: {BRANCH}/v1.0 exists already, at another commit"
    assert "beware  tags are lost with the bottle: alone," in fetch.fetch(bottle, last=True)


def test_a_tag_brings_no_commit_that_the_bottle_never_had(ground: Ground) -> None:
    bottle, docker = ground.uncork(), ground.folder / "bin" / "docker"
    ground.user.git("checkout", "--quiet", "-b", "private")
    private = ground.user.commit("the user's own")
    answer = json.dumps({"kind": "head", "tip": bottle.work.start, "before": bottle.work.start})
    answer += "\\n" + json.dumps({"kind": "tag", "oid": private, "name": "v1"})
    empty = "fatal: Refusing to create empty bundle."
    instead = f"""[[ "$*" = *" - keep "* ]] && {{ printf '{answer}\\n'; exit; }}
[[ "$*" = *" - bundle "* ]] && {{ echo '{empty}' >&2; exit 128; }}
"""
    docker.write_text(docker.read_text().replace("shift 5", f"{instead}shift 5"))
    assert partly(bottle, tags=True)[1] == "tag v1: it has no commit that came out of the bottle"
    assert ground.user.git("tag") == ""


@pytest.mark.parametrize("name", ["-x", "a\u00fc", "a;b", "x$(id)", "a'b", "@", "v" * 101])
def test_a_tag_with_an_odd_name_is_refused(ground: Ground, name: str) -> None:
    bottle = ground.uncork()
    ground.genie.git("update-ref", f"refs/tags/{name}", ground.genie.commit("one"))
    assert "its name is not accepted" in partly(bottle, tags=True)[1]
    assert ground.user.git("tag") == ""


def test_the_head_comes_back_and_so_do_other_branches(ground: Ground) -> None:
    bottle = ground.uncork()
    ground.genie.git("checkout", "--quiet", "-b", "aside")
    ground.genie.commit("aside")
    ground.genie.git("checkout", "--quiet", "-b", "onward", BRANCH)
    tip = ground.genie.commit("onward")
    assert f"also    {BRANCH}-2: the agent's branch aside\n" in ground.fetch(bottle)
    assert ground.user.git("rev-parse", BRANCH) == tip
    assert ground.user.git("log", "--max-count=1", "--format=%s", f"{BRANCH}-2") == "aside"


def test_commits_that_are_not_on_the_head_come_back(ground: Ground) -> None:
    bottle = ground.uncork()
    tips = {"branch feature/x": ground.genie.commit("feature")}
    ground.genie.git("branch", "feature/x")
    ground.genie.git("checkout", "--quiet", "--detach", bottle.work.start)
    left = ground.genie.commit("detached")
    ground.genie.git("checkout", "--quiet", BRANCH)
    ground.genie.git("reset", "--quiet", "--hard", bottle.work.start)
    tips[f"branch {BRANCH}"] = ground.genie.commit("the branch itself")
    ground.genie.git("checkout", "--quiet", "--detach", bottle.work.start)
    (ground.genie.path / "changed").write_text("stashed")
    ground.genie.git("stash", "--quiet")
    ground.genie.git("checkout", "--quiet", "-b", "deleted")
    deleted = ground.genie.commit("on a branch that is no more")
    ground.genie.git("checkout", "--quiet", "--detach", bottle.work.start)
    ground.genie.git("branch", "--quiet", "-D", "deleted")
    tips[f"commit {deleted[:12]}"] = deleted
    tips |= {"stash stash@{0}": ground.genie.git("rev-parse", "stash"), f"commit {left[:12]}": left}
    told = ground.fetch(bottle)
    assert told.startswith(f"branch  none: no commit on HEAD is new\nalso    {BRANCH}: the agent's branch {BRANCH}\n")
    also = [line.split(maxsplit=1)[1] for line in told.splitlines() if line.startswith("also")]
    named = {what.removeprefix("the agent's "): branch for branch, _, what in (line.partition(": ") for line in also)}
    assert {what: ground.user.git("rev-parse", branch) for what, branch in named.items()} == tips
    assert ground.fetch(bottle) == told  # each into the branch that it has


def test_a_branch_ahead_of_the_head_leaves_the_heads_alone(ground: Ground) -> None:
    bottle = ground.uncork()
    tip = ground.genie.commit("on the head")
    ground.genie.git("checkout", "--quiet", "-b", "ahead")
    (ground.genie.path / "Makefile").touch()
    ahead = ground.genie.commit("ahead")
    ground.genie.git("checkout", "--quiet", BRANCH)
    told = ground.fetch(bottle)
    assert told.endswith(
        f"also    {BRANCH}-2: the agent's branch ahead\n"
        "beware  files that run automatically on this machine, or by an everyday command:\n        Makefile\n"
    )
    assert [ground.user.git("rev-parse", name) for name in (BRANCH, f"{BRANCH}-2")] == [tip, ahead]


def test_what_the_user_has_set_is_no_hindrance(ground: Ground) -> None:
    for setting in (
        *("protocol.allow=never", "safe.bareRepository=explicit", "fetch.prune=true", "fetch.recurseSubmodules=true"),
        *(
            "core.quotePath=false",
            "log.showSignature=true",
            "diff.noprefix=true",
            "color.ui=always",
            "status.short=true",
        ),
        *("core.splitIndex=true", "core.untrackedCache=true", "index.version=4", "merge.ff=only", "core.autocrlf=true"),
        *("pack.packSizeLimit=1m", "fetch.unpackLimit=1", "transfer.unpackLimit=1", "core.logAllRefUpdates=always"),
    ):
        ground.user.git("config", "--global", *setting.split("=", 1))
    ground.user.git("add", "--all")
    (ground.user.path / "changed").write_text("2\n")
    bottle = ground.uncork(ground.survey(with_changes=True))
    ground.genie.commit("the work", new="1")
    told = ground.fetch(bottle)
    assert "the work\n        new | 1 +\n        1 file changed, 1 insertion(+)\n" in told
    assert ground.user.git("show", f"{BRANCH}~1:changed") == "2"


def test_work_is_saved_where_the_repository_cannot_take_it(ground: Ground) -> None:
    bottle = ground.uncork()
    tip = ground.genie.commit("the work")
    ground.user.git("branch", "bottle")
    back = HandBack(bottle, (said := list[str]()).append, said.append)
    back.run()
    back.run()
    (saved,) = ground.folder.glob("*.bundle")
    assert back.failed
    begun, why = said
    assert begun == "bringing the work back, for at most 10 minutes"
    assert f"in {saved} (git -C {ground.user.path} fetch {saved} {OUT})" in why
    ground.user.git("fetch", "--quiet", str(saved), OUT)
    assert ground.user.git("rev-parse", "FETCH_HEAD") == tip
    with pytest.raises(RepositoryError):
        fetch.fetch(bottle)
    assert {path.name for path in ground.folder.glob("*.bundle")} == {saved.name, f"user-bottle-{SESSION}-2.bundle"}


def test_work_lands_where_there_is_no_room_for_temporary_files(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `cleanup` would find it if this process were killed."""
    bottle = ground.uncork()
    ground.genie.commit("by the genie", new="1")
    before, beside = ground.user.snapshot(), sorted(ground.folder.iterdir())
    monkeypatch.setattr(tempfile, "tempdir", str(ground.folder / "none"))
    found = list[Leftover]()
    fetch.fetch(bottle, out=lambda: found.extend(orphans.stage_dirs(ground.env)))
    landed(ground, before, BRANCH)
    assert sorted(ground.folder.iterdir()) == beside
    assert [(Path(item.name).parent, item.session, item.owner) for item in found] == [(ground.folder, SESSION, OWNER)]
    assert list(orphans.stage_dirs(ground.env)) == []


def test_a_bottle_that_has_ended_is_told(ground: Ground) -> None:
    bottle = ground.uncork()
    (ground.folder / "bin" / "docker").write_text(f"#!/bin/sh\necho '{GONE}' >&2; exit 1\n")
    with pytest.raises(RepositoryError, match="the bottle has ended"):
        fetch.fetch(bottle)


@pytest.mark.parametrize("said", NO_ENGINE.values(), ids=NO_ENGINE)
def test_an_engine_that_has_ended_is_no_bottle_that_has(ground: Ground, said: str) -> None:
    bottle = ground.uncork()
    (ground.folder / "bin" / "docker").write_text(f"#!/bin/sh\necho '{said}' >&2; exit 1\n")
    with pytest.raises(EngineError, match=r"^docker cannot be used: "):
        fetch.fetch(bottle)
    with pytest.raises(EngineError, match=r"^docker cannot be used: "):
        list(fetch.diff(bottle))


def test_what_is_out_lands_though_docker_has_vanished(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    bottle, leave = ground.uncork(), export.leave
    ground.genie.git("checkout", "--quiet", "-b", "aside")
    ground.genie.commit("aside")
    ground.genie.git("checkout", "--quiet", BRANCH)
    tip = ground.genie.commit("the work")

    def leaving(bottle: Bottle, oid: str, into: Path, **more: Any) -> bool:
        if oid != tip:
            raise EngineError("docker is not on PATH")
        return leave(bottle, oid, into, **more)

    monkeypatch.setattr(export, "leave", leaving)
    told, error = partly(bottle)
    assert told.startswith(f"branch  {BRANCH} in ")
    assert (ground.user.git("rev-parse", BRANCH), error) == (tip, "the agent's branch aside: docker is not on PATH")


def test_two_bottles_land_at_once(ground: Ground) -> None:
    from concurrent.futures import ThreadPoolExecutor

    bottle = ground.uncork()
    tip = ground.genie.commit("the work")
    bottles = [Bottle(f"demo-{number:08x}", bottle.owner, "x", bottle.work, bottle.env) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(fetch.fetch, bottles))
    assert {ground.user.git("rev-parse", f"bottle/{each.session}") for each in bottles} == {tip}


def test_another_thread_leaves_the_telling_to_the_main_one(ground: Ground) -> None:
    back = HandBack(ground.uncork(), (said := list[str]()).append, said.append)
    thread = threading.Thread(target=back.run)
    thread.start()
    thread.join()
    assert said == []
    back.run()
    back.run()
    assert said == ["branch  none: nothing was changed in the bottle\n"]


def test_the_work_comes_back_on_the_branch_that_was_asked_for(ground: Ground) -> None:
    asked = "bottle/run-tasks/fix"
    work = replace(ground.uncork().work, branch=asked)
    bottle = Bottle(SESSION, OWNER, "x", work, ground.env)
    ground.genie.commit("the work")
    said, branches = list[str](), list[str]()
    HandBack(bottle, said.append, said.append, landed=branches.append).run()
    assert branches == [asked]
    ground.genie.git("commit", "--quiet", "--amend", "--allow-empty", "--message", "another")
    HandBack(bottle, said.append, said.append, landed=branches.append).run()
    assert branches == [asked, f"{asked}.2"]  # never "fix-2", which may be a task of its own
    assert ground.user.git("branch", "--format=%(refname:short)", "--list", "bottle/*").split() == [asked, f"{asked}.2"]


def test_a_full_bottle_is_made_room_in_at_the_end_of_a_session(ground: Ground) -> None:
    bottle = ground.uncork()
    tip = ground.genie.commit("the work")
    crowd(ground)
    assert "the bottle is running, but nothing can be started in it: cannot fork" in partly(bottle)[1]
    assert not (ground.folder / "room").exists()
    back = HandBack(bottle, (said := list[str]()).append, said.append)
    back.run()
    assert (back.failed, ground.user.git("rev-parse", BRANCH)) == (False, tip)
    assert (ground.folder / "room").read_text() == "update --pids-limit 1088 x\n"


def cut_off(bottle: Bottle, down: Path, cuts: int) -> tuple[HandBack, list[str], list[str]]:
    """Run a hand-back whose way is `down` until it looks again; return it, what it said, and its branches."""
    down.touch()
    reached = [Reached(), Reached(cuts=cuts)]

    def reach() -> Reached:
        if len(reached) == 1:
            down.unlink()
        return reached.pop(0)

    said, branches = list[str](), list[str]()
    back = HandBack(bottle, said.append, said.append, landed=branches.append, reach=reach)
    back.run()
    assert reached == []  # it looked before and after
    return back, said, branches


@pytest.mark.parametrize("cut", [True, False])
def test_a_hand_back_whose_way_is_cut_is_tried_once_more(ground: Ground, cut: bool) -> None:
    bottle, down = ground.uncork(), ground.folder / "down"
    tip = ground.genie.commit("the work", new="1")
    docker = ground.folder / "bin" / "docker"
    docker.write_text(
        docker.read_text().replace("shift 5", f'[[ "$*" = *" bundle "* && -e {down} ]] && exit 1\nshift 5')
    )
    back, said, branches = cut_off(bottle, down, int(cut))
    assert back.failed == (not cut)
    assert branches == [BRANCH] * cut
    assert not cut or ground.user.git("rev-parse", BRANCH) == tip
    assert said[-1].startswith(f"branch  {BRANCH} in " if cut else "the bottle did not send its work")


def test_a_branch_that_came_before_the_cut_is_named_once(ground: Ground) -> None:
    bottle, down = ground.uncork(), ground.folder / "down"
    ground.genie.commit("the work", new="1")
    ground.genie.git("checkout", "--quiet", "--orphan", "aside")
    aside = ground.genie.commit("aside")
    ground.genie.git("checkout", "--quiet", BRANCH)
    docker = ground.folder / "bin" / "docker"
    docker.write_text(
        docker.read_text().replace("shift 5", f'[[ "$*" = *" bundle "*{aside}* && -e {down} ]] && exit 1\nshift 5')
    )
    back, said, branches = cut_off(bottle, down, 1)
    assert (back.failed, branches) == (False, [BRANCH, f"{BRANCH}-2"])
    assert len(said) == 2


def test_a_bottle_that_is_about_to_go_is_asked_nothing(ground: Ground) -> None:
    bottle = ground.uncork()
    back = HandBack(bottle, (said := list[str]()).append, said.append, reach=lambda: Reached(left=0.0))
    back.run()
    assert (back.failed, "out of time" in said[-1]) == (True, True)
