"""A hand-back whose time is up, or that the user gives up, at each of its commands: none is started after that."""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from claude_bottle.errors import RepositoryError
from claude_bottle.process import command, deadline, stream
from claude_bottle.process.command import Client, Result
from claude_bottle.repository import fetch
from claude_bottle.repository.clone import OUT
from claude_bottle.repository.fetch import Bottle, HandBack
from tests.support.fetching import crowd, partly
from tests.support.repos import BRANCH, Ground

# A part of each command that a hand-back runs for one commit, in order: in the bottle, on what came out of it, and on
# what has landed.
IN_THE_BOTTLE = ("bash -c exit 0", " - keep ", " - bundle ")
CHECKING = (
    "rev-parse --absolute-git-dir", "rev-parse --is-inside-work-tree", "rev-parse --show-toplevel",
    "rev-parse --show-object-format", " init --quiet", "--git-path objects", "--git-path shallow", " index-pack ",
    " cat-file -t ", " rev-list --objects ", " diff-tree ", " update-ref ",
    "rev-parse --quiet --verify refs/heads/bottle/", " fetch --quiet ",
)  # fmt: skip
TELLING = (" --raw ", " --batch-check=", " --batch=", " log ", " rev-list --count ", " --stat=100 ")
PLACES = (*IN_THE_BOTTLE, *CHECKING, *TELLING)
HOW = ("given up", "cut off", "out of time")

End = Callable[..., list[str]]


@pytest.fixture
def end(monkeypatch: pytest.MonkeyPatch) -> End:
    """Return what ends the time at the `nth` command with a part, and returns the list of those that start later.

    The user gives up during the command, or the command is cut off as time is up, or time is up as it has ended; or
    `part_of` the time is.
    """
    skipped = 0.0
    monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + skipped))
    start, pump = command.start, stream.pump

    def ending(part: str, how: str, nth: int = 1, part_of: float = 1.0) -> list[str]:
        seen, late = 0, list[str]()

        def starting(argv: Sequence[str], env: Mapping[str, str]) -> Client:
            if seen == nth:
                late.append(" ".join(argv))
            return start(argv, env)

        def conversing(client: Client, *, seconds: float, **more: Any) -> Result:
            nonlocal seen, skipped
            if seen == nth or part not in " ".join(client.argv):
                return pump(client, seconds=seconds, **more)
            seen += 1
            if seen < nth:
                return pump(client, seconds=seconds, **more)
            if how == "given up":
                monkeypatch.setattr(stream._Patience, "told", 1)
                monkeypatch.setattr(stream._Patience, "asked", 2)
            result = pump(client, seconds=0.0 if how == "cut off" else seconds, **more)
            skipped = fetch.BUDGET * part_of
            return result

        monkeypatch.setattr(command, "start", starting)
        monkeypatch.setattr(stream, "pump", conversing)
        return late

    return ending


def uncorked(ground: Ground) -> Bottle:
    """Return a bottle with work of every kind: committed on the HEAD and aside, and left uncommitted."""
    bottle = ground.uncork()
    ground.genie.git("checkout", "--quiet", "-b", "aside")
    ground.genie.commit("aside")
    ground.genie.git("checkout", "--quiet", BRANCH)
    ground.genie.commit("committed", new="1")
    (ground.genie.path / "link").symlink_to("/etc/passwd")
    return bottle


def saved(ground: Ground) -> list[str]:
    """Return the subjects of the commits that were saved beside the repository, the newest of each bundle."""
    subjects = []
    for path in sorted(ground.folder.glob("*.bundle")):
        ground.user.git("fetch", "--quiet", str(path), OUT)
        subjects.append(ground.user.git("log", "--max-count=1", "--format=%s", "FETCH_HEAD"))
    return subjects


def branches(ground: Ground) -> list[str]:
    return ground.user.git("for-each-ref", "--format=%(refname:short)", "refs/heads/bottle").split()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("place", PLACES)
def test_nothing_is_started_after_the_end(ground: Ground, end: End, place: str, how: str) -> None:
    bottle = uncorked(ground)
    before = ground.user.snapshot()
    late = end(place, how)
    told, error = partly(bottle, last=True)
    assert late == []
    assert any(why in told + error for why in (("given up",) if how == "given up" else ("out of time", "no answer")))
    reached = PLACES.index(place) + (how == "out of time")
    if reached < len(IN_THE_BOTTLE):
        assert (ground.user.snapshot(), saved(ground)) == (before, [])
    elif reached < len(IN_THE_BOTTLE) + len(CHECKING):
        assert "the work is saved" in error
        beside = [] if place in IN_THE_BOTTLE else ["aside"]
        assert saved(ground) == [*beside, "Keep what was left uncommitted"]
        assert branches(ground) in ([], [BRANCH])  # it may have landed as git was ended
    else:
        assert (branches(ground), saved(ground)) == ([BRANCH], ["aside"])
        assert told.startswith(f"branch  {BRANCH} in ")
        assert f"merge  git -C {ground.user.path} merge {BRANCH}\n" in told
        assert error.startswith("the agent's branch aside: ")


def test_these_are_all_the_places(ground: Ground, end: End) -> None:
    """Else the test above would leave some out."""
    bottle = uncorked(ground)
    ran = end(" - keep ", "none", nth=0)
    ground.fetch(bottle)
    assert {next(iter([place for place in PLACES if place in argv]), argv) for argv in ran} == set(PLACES)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("place", ["docker inspect ", "docker update ", "kill -STOP", " - keep "])
def test_a_second_try_ends_as_well(ground: Ground, end: End, place: str, how: str) -> None:
    bottle = uncorked(ground)
    before = ground.user.snapshot()
    crowd(ground)
    late = end(place, how)
    partly(bottle, last=True)
    assert (late, ground.user.snapshot(), list(ground.folder.glob("*.bundle"))) == ([], before, [])


@pytest.mark.parametrize("how", HOW)
def test_there_is_no_second_try_after_the_end(ground: Ground, end: End, how: str) -> None:
    bottle = uncorked(ground)
    crowd(ground)
    late = end("bash -c exit 0", how)
    error = partly(bottle, last=True)[1]
    assert late == []
    assert error == (
        "given up while looking at the bottle" if how == "given up" else "out of time: the 8 minutes are over"
    )
    assert not (ground.folder / "room").exists()


@pytest.mark.parametrize("how", HOW)
def test_what_is_too_large_is_not_taken_back_after_the_end(
    ground: Ground, end: End, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(fetch, "BUNDLE", 1 << 20)
    bottle = uncorked(ground)
    (ground.genie.path / "noise").write_bytes(os.urandom(2 << 20))
    late = end(" - forget ", how)
    told, error = partly(bottle)
    assert (told, late, branches(ground)) == ("", [], [])
    assert error.startswith("what was left uncommitted stays in the bottle: the work is larger than 1024 MiB")
    assert (
        "; nor can what was committed before be fetched: it stays in the bottle; the agent's branch aside stays in "
        in error
    )


@pytest.mark.parametrize(
    ("how", "beside"),
    [
        ("given up", ["Keep what was left uncommitted"]),
        ("cut off", ["Keep what was left uncommitted"]),
        ("out of time", ["aside", "Keep what was left uncommitted"]),
    ],
)
def test_what_is_out_of_the_bottle_at_the_end_is_saved(ground: Ground, end: End, how: str, beside: list[str]) -> None:
    bottle = uncorked(ground)
    late = end(" - bundle ", how, nth=2)
    told, error = partly(bottle)
    assert (told, late, branches(ground), saved(ground)) == ("", [], [], beside)
    assert ("the agent's branch aside stays in the bottle: " in error) == (how != "out of time")


def test_the_time_of_the_bottle_leaves_some_for_the_checks(ground: Ground, end: End) -> None:
    bottle = uncorked(ground)
    end(" - bundle ", "cut off", nth=2, part_of=0.9)
    told, error = partly(bottle)
    assert told.startswith(f"branch  {BRANCH} in ")
    assert error.startswith("the agent's branch aside stays in the bottle: ")
    assert (branches(ground), saved(ground)) == ([BRANCH], [])


@pytest.mark.parametrize(("place", "how"), [(" index-pack ", "given up"), (" fetch --quiet ", "cut off")])
def test_what_has_landed_before_the_end_is_told(ground: Ground, end: End, place: str, how: str) -> None:
    bottle = uncorked(ground)
    late = end(place, how, nth=2)
    told, error = partly(bottle)
    assert late == []
    assert told.startswith(f"branch  {BRANCH} in ")
    assert "beware  links" in told
    assert error.startswith("the agent's branch aside")
    assert saved(ground) == ["aside"]


def test_a_branch_that_has_landed_is_told_whatever_there_is_no_time_for(ground: Ground, end: End) -> None:
    bottle = uncorked(ground)
    late = end(" fetch --quiet ", "out of time", nth=2)
    told = ground.fetch(bottle)
    assert late == []
    assert told.endswith(
        f"also    {BRANCH}-2: the agent's branch aside\n"
        "beware  not all of it was examined: out of time: the 10 minutes are over\n"
    )


def test_all_that_does_not_come_is_named(ground: Ground, end: End) -> None:
    bottle = uncorked(ground)
    ground.genie.git("checkout", "--quiet", "-b", "more", f"{BRANCH}~1")
    ground.genie.commit("more")
    ground.genie.git("checkout", "--quiet", BRANCH)
    (ground.genie.path / "left").write_text("1")
    late = end(" - bundle ", "given up")
    told, error = partly(bottle, last=True)
    assert (told, late) == ("", [])
    assert error.split("; ") == [
        "what was left uncommitted is lost with the bottle: given up while fetching the work",
        "nor can what was committed before be fetched: it is lost with the bottle",
        "the agent's branch aside, the agent's branch more is lost with the bottle: given up",
    ]


def test_a_budget_that_is_used_up_starts_nothing(ground: Ground, monkeypatch: pytest.MonkeyPatch, end: End) -> None:
    bottle = uncorked(ground)
    monkeypatch.setattr(fetch, "BUDGET", 0.0)
    ran = end("", "none", nth=0)
    with pytest.raises(RepositoryError, match=r"^out of time: the 0 seconds are over$"):
        fetch.fetch(bottle, last=True)
    assert ran == []


def test_a_bottle_that_hangs_has_no_more_than_the_budget(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "BUDGET", 2.0)
    bottle = uncorked(ground)
    docker = ground.folder / "bin" / "docker"
    docker.write_text("#!/bin/sh\nexec sleep 1000\n")
    with pytest.raises(RepositoryError, match=r"^out of time: the 2 seconds are over$"):
        fetch.fetch(bottle, last=True)


def test_the_main_thread_says_what_another_has_begun(ground: Ground) -> None:
    """It waits for that one, and the user with it."""
    bottle, fifo = ground.uncork(), ground.folder / "fifo"
    os.mkfifo(fifo)
    docker = ground.folder / "bin" / "docker"
    docker.write_text(docker.read_text().replace("shift 5", f'[[ "$*" = *" - keep "* ]] && cat {fifo}\nshift 5'))
    said = list[str]()

    def say(text: str) -> None:
        said.append(text)
        fifo.write_bytes(b"")  # it has been waiting for this

    back = HandBack(bottle, say, said.append)
    thread = threading.Thread(target=back.run)
    thread.start()
    back.run()
    thread.join()
    assert said == [
        "bringing the work back, for at most 10 minutes",
        "branch  none: nothing was changed in the bottle\n",
    ]
