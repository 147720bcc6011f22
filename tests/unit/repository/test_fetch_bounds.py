"""What a hand-back takes of this machine at most: memory, objects and paths, whatever a bottle makes of few bytes."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from claude_bottle.errors import RepositoryError
from claude_bottle.repository import fetch, packfile, quarantine, report
from claude_bottle.repository.fetch import Bottle
from tests.support import systems
from tests.support.fetching import partly
from tests.support.packs import (
    Blob,
    Commit,
    Tree,
    bundle,
    by_offset,
    committed,
    give,
    name_of,
    number,
    packed,
    raw,
    sealed,
    tree,
)  # fmt: skip
from tests.support.repos import BRANCH, Ground

FILE, FOLDER = "100644", "40000"
Limits = Callable[[str], list[str]]
# A hand-back that has no more address space than this; its commands may have more.
LIMITED = """
import os, resource, sys
if sys.platform == "linux":  # macOS has no limit of address space
    resource.setrlimit(resource.RLIMIT_AS, (384 << 20, resource.getrlimit(resource.RLIMIT_AS)[1]))
from claude_bottle.errors import RepositoryError
from claude_bottle.repository import fetch
from claude_bottle.repository.clone import Work
from tests.support.repos import OWNER, SESSION
try:
    print(fetch.fetch(fetch.Bottle(SESSION, OWNER, "x", Work.of_label(sys.argv[1]), dict(os.environ)), print))
except RepositoryError as error:
    print("error:", error)
"""


@pytest.fixture
def limits(ground: Ground) -> Limits:
    """Put a git before the real one that writes down its limits; return what reads them by a word of the command.

    They are KiB of address space and seconds of CPU time.
    """
    log, program = ground.folder / "log", ground.folder / "bin" / "git"
    log.touch()
    program.write_text(f'#!/bin/bash\necho "$(ulimit -v) $(ulimit -t) $*" >> {log}\nexec /usr/bin/git "$@"\n')
    program.chmod(0o755)

    def of(part: str) -> list[str]:
        lines = [line.split() for line in log.read_text().splitlines()]
        return [" ".join(words[:2]) for words in lines if part in words[2:]]

    return of


def limited(ground: Ground, bottle: Bottle) -> str:
    """Fetch in a process of its own with little memory; return what it prints."""
    root = Path(__file__).parents[3]
    argv = (sys.executable, "-c", LIMITED, bottle.work.label)
    done = subprocess.run(argv, cwd=root, env=ground.env, capture_output=True, check=False)
    assert (done.returncode, done.stderr.decode().partition("Traceback")[1]) == (0, "")
    return done.stdout.decode()


def tree_bomb(base: str, depth: int, width: int) -> bytes:
    """Return a bundle of a commit with width ** depth files, from some objects."""
    blob = b"x\n"
    trees = [tree(*((FILE, b"%02d++++" % n, name_of("blob", blob)) for n in range(width)))]
    for _ in range(depth - 1):
        trees.append(tree(*((FOLDER, b"%02d++++" % n, name_of("tree", trees[-1])) for n in range(width))))
    commit = committed(trees[-1], base)
    pack = packed((Blob, blob), *((Tree, data) for data in trees), (Commit, commit))
    return bundle(name_of("commit", commit), pack, base=base)


def delta_bomb(base: str, many: int) -> bytes:
    """Return a bundle of many deltas, each to 480 MiB, from one of 60 MiB."""
    length, times, chunk = 60 << 20, 8, 15 << 20
    objects = [raw(Blob, bytes(length))]
    copies = b"".join(
        b"\xff" + (part * chunk).to_bytes(4, "little") + chunk.to_bytes(3, "little")
        for _ in range(times)
        for part in range(length // chunk)
    )
    for serial in range(many):
        delta = number(length) + number(length * times + 4) + copies + b"\x04" + serial.to_bytes(4)
        objects.append(by_offset(delta, sum(map(len, objects))))
    whole = tree((FILE, b"a", name_of("blob", bytes(length))))
    commit = committed(whole, base)
    return bundle(name_of("commit", commit), sealed(*objects, raw(Tree, whole), raw(Commit, commit)), base=base)


def hand_back(ground: Ground) -> Bottle:
    bottle = ground.uncork()
    ground.genie.commit("something")
    return bottle


def test_half_a_million_paths_of_some_objects_land_in_little_memory(ground: Ground) -> None:
    bottle = hand_back(ground)
    give(ground, tree_bomb(bottle.work.commit, 6, 9))
    told = limited(ground, bottle)
    assert told.startswith(f"branch  {BRANCH} in ")
    assert "        531443 files changed\n" in told  # those of the bomb, and the two of the user that it has not
    assert "beware" not in told


@systems.needs_linux("a limit of address space")
@pytest.mark.parametrize(("depth", "width"), [(7, 9), (10, 10)])
def test_more_paths_than_are_taken_are_refused_in_little_memory(ground: Ground, depth: int, width: int) -> None:
    """Of ten thousand million, git itself comes to its limit before it lists one."""
    bottle, before = hand_back(ground), ground.user.snapshot()
    data = tree_bomb(bottle.work.commit, depth, width)
    give(ground, data)
    told = limited(ground, bottle)
    assert "it changes more than 1000000 files" in told or "its files cannot be counted: " in told
    assert len(told.splitlines()) == 1
    assert "the work is saved, unchecked, in " in told
    assert (ground.user.snapshot(), [path.read_bytes() for path in ground.folder.glob("*.bundle")]) == (before, [data])


def test_what_unpacks_to_too_much_is_refused_before_git_unpacks_it(ground: Ground, limits: Limits) -> None:
    bottle, before = hand_back(ground), ground.user.snapshot()
    data = delta_bomb(bottle.work.commit, 24)
    assert len(data) < 100_000
    give(ground, data)
    told = limited(ground, bottle)
    assert told.startswith(
        "error: it unpacks to more than 1024 MiB, and to more than the whole repository; the work is "
    )
    assert ground.user.snapshot() == before
    assert limits("init")
    assert not limits("index-pack")


def test_one_such_delta_lands(ground: Ground) -> None:
    """Else the test above would prove nothing."""
    bottle = hand_back(ground)
    give(ground, delta_bomb(bottle.work.commit, 1))
    assert limited(ground, bottle).startswith(f"branch  {BRANCH} in ")


def test_a_hundred_thousand_files_land_in_little_memory(ground: Ground) -> None:
    bottle = ground.uncork()
    stream = ["commit refs/heads/aside\ncommitter A <a@b> 1 +0000\ndata 2\nx\nfrom refs/heads/{BRANCH}\n"]
    stream[0] = stream[0].format(BRANCH=BRANCH)
    for serial in range(100_000):
        path = f"{serial // 1000}/{'Makefile' if serial % 1000 == 0 else serial % 1000}"
        stream.append(f"M 100644 inline {path}\ndata {len(str(serial))}\n{serial}\n")
    stream.extend(f"M 120000 inline link{serial}\ndata 3\n/{serial % 10}x\n" for serial in range(100))
    ground.genie.git("fast-import", "--quiet", stdin="".join(stream).encode())
    told = limited(ground, bottle)
    assert f"also    {BRANCH}: the agent's branch aside\nbeware  files that run automatically" in told
    assert "\n        99/Makefile\n" not in told
    assert told.count("/Makefile\n") == 40
    assert told.count("        ... and 60 more\n") == 2  # of these and of the links
    assert ground.user.git("ls-tree", "-r", "--name-only", BRANCH).count("\n") + 1 == 100_102


@systems.needs_linux("a limit of address space")
@pytest.mark.parametrize(
    "part",
    ["init", "index-pack", "cat-file", "rev-list", "diff-tree", "update-ref", "fetch", "upload-pack", "diff", "log"],
)
def test_each_git_on_what_came_out_is_limited(ground: Ground, limits: Limits, part: str) -> None:
    bottle = hand_back(ground)
    (ground.genie.path / "link").symlink_to("/etc/passwd")
    ground.fetch(bottle)
    found = [limit for limit in limits(part) if limit != "unlimited unlimited"]  # that of the bottle's own
    assert set(found) == {f"{2 << 20} 600"}


def test_what_the_repository_has_may_come(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no more: each commit counts, and all together."""
    monkeypatch.setattr(quarantine, "UNPACKED", 1 << 20)
    (ground.user.path / "noise").write_bytes(os.urandom(3 << 20))
    ground.user.commit("large")
    bottle = ground.uncork()
    ground.genie.git("checkout", "--quiet", "-b", "aside")
    (ground.genie.path / "more").write_bytes(os.urandom(2 << 20))
    ground.genie.commit("aside")
    ground.genie.git("checkout", "--quiet", BRANCH)
    (ground.genie.path / "other").write_bytes(os.urandom(2 << 20))
    told, error = partly(bottle)
    assert told.startswith(f"branch  {BRANCH} in ")
    assert error.startswith("the agent's branch aside: it unpacks to more than 1 MiB, and to more than the whole rep")
    assert "the work is saved, unchecked, in " in error


def test_the_paths_of_all_commits_count(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "PATHS", 3)
    bottle = ground.uncork()
    ground.genie.git("checkout", "--quiet", "-b", "aside")
    ground.genie.commit("aside", a="1", b="1")
    ground.genie.git("checkout", "--quiet", BRANCH)
    ground.genie.commit("two", c="1", d="1")
    told, error = partly(bottle)
    assert told.startswith(f"branch  {BRANCH} in ")
    assert error.startswith("the agent's branch aside: it changes more than 3 files; the work is saved, unchecked, in ")


def test_of_many_files_only_their_number_is_told(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_STATTED", 2)
    bottle = ground.uncork()
    ground.genie.commit("three", a="1", b="1", c="1")
    assert "        3 files changed\n" in ground.fetch(bottle)


def test_what_git_says_at_length_is_not_kept(ground: Ground) -> None:
    """A subject of 20 MiB is cut as it is read."""
    bottle = ground.uncork()
    ground.genie.git("commit", "--quiet", "--allow-empty", "--file=-", stdin=b"x" * (20 << 20))
    told = limited(ground, bottle)
    assert f" {'x' * 100}" in told
    assert max(map(len, told.splitlines())) < 300


def test_a_bundle_is_looked_at_no_longer_than_the_budget(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is read here, before git has it."""
    bottle = hand_back(ground)
    sizes = packfile.sizes

    def late(pack: int, start: int, name: int) -> Iterator[int]:
        for size in sizes(pack, start, name):
            monkeypatch.setattr("claude_bottle.process.deadline.Deadline.over", "out of time")
            yield size

    monkeypatch.setattr(packfile, "sizes", late)
    with pytest.raises(RepositoryError, match=r"^out of time; the work is saved, unchecked, in "):
        fetch.fetch(bottle)
