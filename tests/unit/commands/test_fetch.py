"""Sessions with a repository and a fake docker: what is run in which order, what is told, and the exit code."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from claude_bottle.errors import EngineError
from claude_bottle.host.owner import Owner
from claude_bottle.repository.git import Git
from tests.support.labels import LIST, row
from tests.support.owners import ELSEWHERE, OBSERVER
from tests.support.repos import Repo, users
from tests.support.scene import STEPS, TRUSTING, USUAL, Scene

KEEP = " - keep /work "  # part of the command that commits what was left
START = ("start", "demo", "--yes", "--repo", "user")


def head(tip: str) -> str:
    """Return what a bottle says that has only a HEAD."""
    return json.dumps({"kind": "head", "tip": tip, "before": tip}) + "\n"


@pytest.fixture
def user(scene: Scene) -> Repo:
    """The user's repository, of one commit; git is on the scene's PATH."""
    (scene.docker.parent / "git").symlink_to(shutil.which("git") or "")
    return users(scene.folder / "user", scene.environ | {"PATH": os.environ["PATH"]})


def test_a_dry_run_shows_the_clone_and_calls_no_docker(scene: Scene, user: Repo) -> None:
    (user.path / "more").write_text("1")
    before = user.snapshot()
    code, out, err = scene.run("start", "demo", "--dry-run", "--repo", "user", "--with-changes")
    assert (code, scene.log) == (0, [])
    assert f"# clone\n{{ printf %s $'\\n# v2 git bundle\\n{user.git('rev-parse', 'HEAD')} refs/heads/bottle/" in out
    assert f"repo    {user.path} at main " in err
    assert "  note    1 uncommitted change included as a commit on top\n" in err
    assert user.snapshot() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_start_that_ends_as_it_takes_changes_along(
    scene: Scene, user: Repo, number: signal.Signals
) -> None:
    os.mkfifo(scene.folder / "filter")
    user.git("config", "filter.x.clean", f"/bin/cat {scene.folder / 'filter'}")
    (user.path / ".gitattributes").write_text("new filter=x\n")
    (user.path / "new").write_text("1")
    child = scene.launch(*START, "--with-changes")
    with scene.held("filter"):
        assert [path.name.startswith("claude-bottle-index-") for path in scene.tmp.iterdir()] == [True]
        child.send_signal(number)
        child.wait()
        while list(scene.tmp.iterdir()):
            time.sleep(0.01)
    assert scene.end(child)[0] in (-number, 128 + number)
    assert user.git("for-each-ref", "--format=%(refname)") == "refs/heads/main"


def test_work_comes_back_before_anything_is_undone(scene: Scene, user: Repo) -> None:
    commit = user.git("rev-parse", "HEAD")
    scene.rule(KEEP, stdout=head(commit))
    code, _, err = scene.run(*START)
    assert code == 0
    assert "branch  none: nothing was changed in the bottle\n" in err
    assert scene.at("end", "unbundle /dev/stdin") < scene.at("start", STEPS["claude"])
    undone = [place for place, event in enumerate(scene.log) if event.argv in USUAL]
    assert scene.at("end", STEPS["claude"]) < scene.at("start", KEEP) < min(undone)
    assert scene.undone == USUAL
    label = next(word for word in scene.log[scene.at("start", STEPS["bottle"])].argv if ".repository=" in word)
    assert label == f"claude-bottle.repository={commit} {commit} {user.path}"


@pytest.mark.parametrize(("claude", "code"), [(0, 74), (7, 7)])
def test_a_hand_back_that_fails_is_told_and_the_teardown_goes_on(
    scene: Scene, user: Repo, claude: int, code: int
) -> None:
    scene.rule(STEPS["claude"], code=claude)
    scene.rule(KEEP, stdout=head("\x1b[31m"))
    before = user.snapshot()
    ended, _, err = scene.run(*START)
    assert ended == code
    assert "claude-bottle: the bottle's answer is malformed: " in err
    assert scene.undone == USUAL
    assert user.snapshot() == before


def test_a_signal_brings_the_work_back_too(scene: Scene, user: Repo) -> None:
    scene.rule(STEPS["claude"], fifo="claude")
    scene.rule(KEEP, fifo="keep", stdout=head(user.git("rev-parse", "HEAD")))
    child = scene.launch(*START)
    with scene.held("claude"):
        child.send_signal(signal.SIGTERM)
        with scene.held("keep"):
            child.send_signal(signal.SIGINT)
    code, _, err = scene.end(child)
    assert code == 128 + signal.SIGTERM
    assert "branch  none" in err
    assert scene.undone == USUAL


@pytest.mark.parametrize(
    ("owner", "label", "told"),
    [
        (OBSERVER, "", "demo-1 has no repository: it was started without --repo"),
        (ELSEWHERE, f"{'1' * 40} {'1' * 40} /x", "/x is on the machine that started the session, not on this one"),
    ],
    ids=["none", "elsewhere"],
)
def test_fetch_says_why_it_cannot(scene: Scene, owner: Owner, label: str, told: str) -> None:
    scene.rule(LIST, stdout=row("demo-1", owner, repository=label))
    assert scene.run("fetch", "demo")[::2] == (2, f"claude-bottle: {told}\n")


def test_without_git_there_is_one_clear_line(scene: Scene) -> None:
    (scene.folder / "user").mkdir()
    code, _, err = scene.run(*START)
    assert (code, err) == (69, "claude-bottle: git is not on PATH: install git\n")
    with pytest.raises(EngineError):
        Git(Path("/"), {"PATH": "/nonexistent"}).run("version")


def hold_git(scene: Scene, words: str) -> None:
    """Have the scene's git note its commands in "gits", and wait at a FIFO "git" before one with these words."""
    git = scene.docker.parent / "git"
    real = git.readlink()
    git.unlink()
    git.write_text(
        f'#!/bin/bash\necho "$@" >> {scene.folder}/gits\n'
        f'[[ "$*" = *"{words}"* ]] && read -r < {scene.folder}/git\nexec {real} "$@"\n'
    )
    git.chmod(0o755)
    os.mkfifo(scene.folder / "git")


def await_line(child: "subprocess.Popen[str]", text: str) -> None:
    """Read what a child prints on stderr up to a line with this text."""
    assert child.stderr
    while text not in (line := child.stderr.readline()):
        assert line, f"never said: {text}"


@pytest.mark.usefixtures("user")
def test_the_bottle_ends_once_its_work_is_out(scene: Scene) -> None:
    """However long the checks take."""
    hold_git(scene, "rev-parse --show-object-format")
    scene.rule(KEEP, stdout=head("1" * 40))
    scene.rule(" - bundle /work ", stdout="what came out")
    child = scene.launch(*START)
    with scene.held("git"):
        while not any(event.ends(STEPS["bottle"]) for event in scene.log):
            time.sleep(0.01)
    code, _, err = scene.end(child)
    assert (code, scene.undone) == (74, USUAL), err


@pytest.mark.parametrize(
    ("fifo", "told"),
    [
        ("alive", "given up while looking at the bottle\n"),
        ("keep", "given up while committing what was left\n"),
        ("bundle", "given up while fetching the work; it is lost with the bottle; the agent's branch aside is lost "),
        ("git", "given up while fetching into the repository; the work is saved, unchecked, in "),
    ],
)
@pytest.mark.usefixtures("user")
def test_a_second_late_signal_gives_the_hand_back_up(scene: Scene, fifo: str, told: str) -> None:
    """And nothing of it is started anew: no second try, no other commit, no git."""
    hold_git(scene, "rev-parse --show-object-format")
    also = json.dumps({"kind": "commit", "oid": "2" * 40, "below": "", "what": "branch aside"}) + "\n"
    answers = {"alive": "", "keep": head("1" * 40) + also, "bundle": "what came out"}
    for name, match in (("alive", "bash -c exit 0"), ("keep", KEEP), ("bundle", " - bundle /work ")):
        scene.rule(match, stdout=answers[name], **({"fifo": name} if name == fifo else {}))
    child = scene.launch(*START)
    with scene.held(fifo):
        before, gits = len(scene.log), (scene.folder / "gits").read_text()
        child.send_signal(signal.SIGINT)
        await_line(child, "Ctrl-C again gives it up")
        child.send_signal(signal.SIGINT)
        code, _, err = scene.end(child)
    assert code == 74
    assert f"claude-bottle: {told}" in err
    started = [event.argv for event in scene.log[before:] if event.kind == "start"]
    assert started == scene.undone == USUAL
    assert (scene.folder / "gits").read_text() == gits
    assert len(list(scene.folder.glob("user-bottle-*.bundle"))) == 2 * (fifo == "git")


def test_a_signal_ends_a_fetch_and_starts_nothing_anew(scene: Scene, user: Repo) -> None:
    """At once, as the work stays in the bottle; a second one changes nothing."""
    commit = user.git("rev-parse", "HEAD")
    scene.rule(LIST, stdout=row("demo-1", OBSERVER, repository=f"{commit} {commit} {user.path}"))
    scene.rule(KEEP, fifo="keep", stdout=head(commit))
    child = scene.launch("fetch", "demo-1")
    with scene.held("keep"):
        before = len(scene.log)
        await_line(child, "bringing the work back, for at most 10 minutes")
        child.send_signal(signal.SIGINT)
        child.send_signal(signal.SIGINT)
        code = scene.end(child)[0]
    assert code in (128 + signal.SIGINT, -signal.SIGINT)  # the second one may find Python at its end
    assert [event for event in scene.log[before:] if event.kind == "start"] == []


def test_a_fetch_whose_time_is_up_says_so_and_starts_nothing(scene: Scene, user: Repo) -> None:
    commit = user.git("rev-parse", "HEAD")
    scene.rule(LIST, stdout=row("demo-1", OBSERVER, repository=f"{commit} {commit} {user.path}"))
    code, out, err = scene.run("fetch", "demo-1", patches={"repository.fetch.BUDGET": 0.0})
    assert (code, out) == (74, "")
    assert err.splitlines() == [
        "claude-bottle: bringing the work back, for at most 0 seconds",
        "claude-bottle: out of time: the 0 seconds are over",
    ]
    assert [event.argv[1] for event in scene.log if event.kind == "start"] == ["ps"]


@pytest.mark.usefixtures("user")
def test_a_session_whose_time_is_up_is_undone_all_the_same(scene: Scene) -> None:
    code, _, err = scene.run(*START, patches={**TRUSTING, "repository.fetch.BUDGET": 0.0})
    assert code == 74
    assert "claude-bottle: out of time: the 0 seconds are over\n" in err
    assert scene.undone == USUAL
