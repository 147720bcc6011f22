"""Work that is too large, and bottles that hang or never end: what comes back all the same."""

import os

import pytest

from claude_bottle.errors import RepositoryError
from claude_bottle.repository import export, fetch, quarantine
from claude_bottle.repository.clone import OUT
from tests.support.fetching import names, partly
from tests.support.repos import BRANCH, SESSION, Ground, Repo


def test_large_files_stay_in_the_bottle(ground: Ground) -> None:
    bottle = ground.uncork()
    with (ground.genie.path / "zeros").open("wb") as file:
        file.truncate(10 << 30)
    (ground.genie.path / "left").write_text("1")
    assert "beware  too large, stays in the bottle: zeros\n" in ground.fetch(bottle)
    assert ground.user.git("diff", "--name-only", "HEAD", BRANCH) == "left"


def test_a_bottle_that_gives_no_end_is_cut_off(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "BUNDLE", 1 << 20)
    bottle, before = ground.uncork(), ground.user.snapshot()
    (ground.genie.path / "noise").write_bytes(os.urandom(2 << 20))
    with pytest.raises(RepositoryError, match="the work is larger than 1024 MiB"):
        fetch.fetch(bottle)
    assert ground.user.snapshot() == before


def test_a_bottle_that_hangs_gives_what_was_committed(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_KEEPING", 10.0)
    bottle = ground.uncork()
    ground.genie.git("checkout", "--quiet", "-b", "aside")
    tips = [ground.genie.commit("aside")]
    ground.genie.git("checkout", "--quiet", BRANCH)
    tips.append(ground.genie.commit("committed"))
    ground.genie.git("config", "filter.hang.clean", "sleep 1000 #")
    (ground.genie.path / ".gitattributes").write_text("* filter=hang\n")
    told, error = partly(bottle)
    assert "what was left uncommitted took too long to commit: it stays in the bottle" in told
    assert error == "not all that was left uncommitted came back"
    assert [ground.user.git("rev-parse", branch) for branch in (f"{BRANCH}-2", BRANCH)] == tips


def test_a_work_tree_that_hangs_holds_nothing_else_back(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_KEEPING", 10.0)
    bottle, aside = ground.uncork(), ground.folder / "aside"
    ground.genie.git("worktree", "add", "--quiet", "-b", "aside", str(aside))
    tip = Repo(aside, ground.genie.env).commit("aside")
    (aside / ".gitattributes").write_text("* filter=hang\n")
    ground.genie.git("config", "filter.hang.clean", "sleep 1000 #")
    (ground.genie.path / "left").write_text("1")
    partly(bottle)
    assert ground.user.git("show", f"{BRANCH}:left") == "1"
    assert ground.user.git("rev-parse", f"{BRANCH}-2") == tip


@pytest.mark.parametrize("last", [False, True])
def test_what_is_too_large_leaves_what_was_committed(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, *, last: bool
) -> None:
    monkeypatch.setattr(fetch, "BUNDLE", 1 << 20)
    bottle = ground.uncork()
    tip = ground.genie.commit("committed")
    (ground.genie.path / "noise").write_bytes(os.urandom(2 << 20))
    told, error = partly(bottle, last=last)
    assert told.startswith(f"branch  {BRANCH} in ")
    where = "is lost with the bottle" if last else "stays in the bottle"
    assert error.startswith(f"what was left uncommitted {where}: the work is larger than ")
    assert ("cli.py diff" in error) is not last
    assert ground.user.git("rev-parse", BRANCH) == tip


def test_what_was_too_large_comes_once_it_is_deleted(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "BUNDLE", 1 << 20)
    bottle, noise = ground.uncork(), ground.genie.path / "noise"
    ground.genie.commit("one", one="1")
    noise.write_bytes(os.urandom(2 << 20))
    partly(bottle)
    noise.unlink()
    ground.genie.commit("two", two="2")
    ground.fetch(bottle)
    assert {"one", "two"} <= names(ground)


def test_what_is_too_large_in_another_work_tree_leaves_what_was_committed(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "BUNDLE", 1 << 20)
    bottle, aside = ground.uncork(), Repo(ground.folder / "aside", ground.genie.env)
    ground.genie.git("worktree", "add", "--quiet", "-b", "aside", str(aside.path))
    tip = aside.commit("committed")
    (aside.path / "noise").write_bytes(os.urandom(2 << 20))
    told, error = partly(bottle)
    assert told == f"also    {BRANCH}: the agent's branch aside\n"
    assert error.startswith("what was left uncommitted of the agent's branch aside stays in the bottle: the work is ")
    assert (ground.user.git("rev-parse", BRANCH), aside.git("rev-parse", "HEAD")) == (tip, tip)


def test_what_builds_on_refused_work_is_saved_as_well(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """It came out of the bottle as what is new on top of that, before anything was checked."""
    monkeypatch.setattr(quarantine, "_OBJECT", 1 << 20)
    bottle = ground.uncork()
    ground.genie.commit("good")
    ground.genie.git("checkout", "--quiet", "-b", "aside")
    tip = ground.genie.commit("aside")
    ground.genie.git("checkout", "--quiet", BRANCH)
    (ground.genie.path / "zeros").write_bytes(bytes(8 << 20))
    bad = ground.genie.commit("bad")
    told, error = partly(bottle)
    refused, _, rest = error.partition("; the agent's branch aside: ")
    assert told == ""
    assert "unpacks to 8 MiB, more than the limit of 1 MiB; the work is saved, unchecked, in " in refused
    assert "the work is saved, unchecked, in " in rest
    clone = Repo(ground.folder / "clone", ground.env)
    ground.user.git("clone", "--quiet", str(ground.user.path), str(clone.path))
    for number, oid in (("", bad), ("-2", tip)):
        clone.git("fetch", "--quiet", str(ground.folder / f"user-bottle-{SESSION}{number}.bundle"), OUT)
        assert clone.git("rev-parse", "FETCH_HEAD") == oid


def test_what_several_branches_have_counts_once(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "BUNDLE", 1 << 20)
    bottle = ground.uncork()
    (ground.genie.path / "noise").write_bytes(os.urandom(700 << 10))
    tips = [ground.genie.commit("large")]
    for name in ("a", "b"):
        ground.genie.git("checkout", "--quiet", "-b", name)
        tips.append(ground.genie.commit(name))
    ground.genie.git("checkout", "--quiet", "-b", "below", "HEAD~1")
    ground.genie.git("checkout", "--quiet", BRANCH)
    ground.fetch(bottle)
    assert [ground.user.git("rev-parse", f"{BRANCH}{end}") for end in ("", "-2", "-3")] == tips
