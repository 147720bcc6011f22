"""What stands between a bundle and the user's repository when something goes wrong there."""

import errno
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from claude_bottle.errors import RepositoryError
from claude_bottle.repository import fetch, git, quarantine
from claude_bottle.repository.clone import OUT
from tests.support.repos import BRANCH, SESSION, Ground, Repo


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    made = Ground(tmp_path)
    made.user.commit("the user's", kept="1")
    return made


def counted(ground: Ground, body: str) -> Path:
    """Put a git before the real one that runs `body` at each fetch, and writes a line; return the file of the lines."""
    log, real = ground.folder / "log", Path("/usr/bin/git")
    program = ground.folder / "bin" / "git"
    program.write_text(
        f'#!/bin/bash\nif [[ " $* " = *" fetch "* ]]; then echo >> {log}; {body}; fi\nexec {real} "$@"\n'
    )
    program.chmod(0o755)
    return log


def test_a_fetch_that_takes_too_long_is_not_tried_again(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "_SECONDS", 3.0)
    bottle = ground.uncork()
    ground.genie.commit("the work")
    log = counted(ground, "exec sleep 1000")
    with pytest.raises(RepositoryError, match=f"no answer within 3 s; the work is saved in .* fetch .* {OUT}"):
        fetch.fetch(bottle)
    assert log.read_text() == "\n"


def test_a_lock_is_waited_for(ground: Ground) -> None:
    bottle = ground.uncork()
    tip = ground.genie.commit("the work")
    lock = ground.user.path / ".git" / "refs" / "heads" / "bottle" / f"{SESSION}.lock"
    lock.parent.mkdir()
    lock.touch()
    log = counted(ground, f"[ $(wc -l < {ground.folder}/log) -lt 3 ] || rm -f {lock}")
    ground.fetch(bottle)
    assert (ground.user.git("rev-parse", BRANCH), len(log.read_text())) == (tip, 3)


def test_a_branch_that_somebody_moves_meanwhile_is_left_to_them(ground: Ground) -> None:
    """To go back is refused, and git fetch --quiet says nothing of it."""
    bottle = ground.uncork()
    tip = ground.genie.commit("the work")
    moved = ground.user.commit("the user's own")
    real = f"/usr/bin/git -C {ground.user.path}"
    log = counted(ground, f"{real} rev-parse --quiet --verify {BRANCH} > /dev/null || {real} branch {BRANCH} {moved}")
    ground.fetch(bottle)
    assert (ground.user.git("rev-parse", BRANCH), ground.user.git("rev-parse", f"{BRANCH}-2")) == (moved, tip)
    assert log.read_text() == "\n\n"


def test_settings_that_would_lead_the_fetch_astray_do_not(ground: Ground) -> None:
    for key, value in (
        ("url.https://198.51.100.130/.insteadOf", "/"),
        ("url.https://198.51.100.130/.insteadOf", f"{ground.folder}/tmp/"),
        ("transfer.hideRefs", "refs/heads"),
        ("uploadpack.packObjectsHook", f"touch {ground.folder}/mark #"),
    ):
        ground.user.git("config", "--global", "--add", key, value)
    bottle = ground.uncork()
    tip = ground.genie.commit("the work")
    ground.fetch(bottle)
    assert ground.user.git("rev-parse", BRANCH) == tip
    assert not (ground.folder / "mark").exists()


def test_what_cannot_be_copied_beside_the_repository_stays(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where one disk is full and the other takes nothing: what is there is moved, which takes no space."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfileobj", full)
    monkeypatch.setattr(tempfile, "tempdir", str(ground.folder / "tmp"))
    bottle = ground.uncork()
    ground.genie.commit("the work")
    ground.user.git("branch", "bottle")
    replace = Path.replace

    def only_within(path: Path, target: Path) -> Path:
        if target.parent == ground.folder:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        assert not (path.parent / "quarantine").exists()
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", only_within)
    with pytest.raises(RepositoryError) as caught:
        fetch.fetch(bottle)
    (saved,) = (ground.folder / "tmp").iterdir()
    assert f"the work is saved in {saved} (git" in str(caught.value)
    assert list(ground.folder.glob("*.bundle")) == []
    Repo(ground.folder, ground.env).git("bundle", "list-heads", str(saved))


def test_more_objects_than_anybody_makes_are_refused_unread(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "_OBJECTS", 1)
    bottle = ground.uncork()
    ground.genie.commit("the work", new="1")
    with pytest.raises(RepositoryError, match="the bundle has 2 objects, more than the limit of 1;"):
        fetch.fetch(bottle)


def test_a_branch_that_has_gone_on_is_where_the_work_is(ground: Ground) -> None:
    bottle = ground.uncork()
    ground.genie.commit("the work", new="1")
    ground.fetch(bottle)
    ground.user.git("checkout", "--quiet", BRANCH)
    tip = ground.user.commit("the user's own")
    assert ground.fetch(bottle).startswith(f"branch  {BRANCH} in ")
    assert ground.user.git("for-each-ref", "--format=%(objectname)", "refs/heads/bottle") == tip


def test_a_file_as_large_as_the_memory_that_git_may_take_lands(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git, "WARY", {"GIT_ALLOC_LIMIT": str(65 << 20)})
    bottle = ground.uncork()
    with (ground.genie.path / "large").open("wb") as file:
        file.truncate(65 << 20)
    ground.fetch(bottle)
    assert ground.user.git("cat-file", "-s", f"{BRANCH}:large") == str(65 << 20)
