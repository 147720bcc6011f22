"""A repository of a million objects, into a bottle and back."""

import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.ground import Ground
from tests.support.repos import Repo
from tests.support.sessions import docker

OBJECTS = 1_000_000
_FOLDERS, _FILES = 50, 40  # in each
_EACH = 4  # objects of a commit: itself, two trees, a blob


@dataclass(frozen=True)
class Journey:
    """What it took: seconds until claude runs, and from its end to the prompt, one commit coming back."""

    objects: int
    bytes: int
    start: float
    back: float


def measure(ground: Ground, objects: int = OBJECTS) -> Journey:
    """Make the repository, take it in and bring a commit back; SystemExit where the session fails."""
    repo = Repo(ground.folder / "history", ground.environ | {"GIT_CONFIG_GLOBAL": "/dev/null"})
    repo.path.mkdir()
    repo.git("init", "--quiet", "--bare")
    with subprocess.Popen(("git", "-C", repo.path, "fast-import", "--quiet"), stdin=subprocess.PIPE) as importer:
        assert importer.stdin
        for part in _history(objects // _EACH):
            importer.stdin.write(part)
    count = int(repo.git("rev-list", "--objects", "--all", "--count"))
    size = sum(path.stat().st_size for path in Path(repo.path, "objects", "pack").glob("*.pack"))
    launch = ground.launch("hold", "--repo", str(repo.path))
    started = launch.told()
    if started is None:
        raise SystemExit(f"bench: a session with a repository failed: {launch.end()}")
    [session] = ground.sessions()
    docker("exec", "--user", "1000:1000", f"claude-bottle-{session}", "bash", "-c", "echo new > new")
    ended = time.monotonic()
    problem = launch.end()
    back = time.monotonic() - ended
    ground.launches.clear()
    if problem or not repo.git("rev-parse", f"bottle/{session}"):
        raise SystemExit(f"bench: the work did not come back: {problem}")
    return Journey(count, size, started - launch.at, back)


def _history(commits: int) -> Iterator[bytes]:
    """Yield commits for git-fast-import(1), each of which changes one file."""
    for number in range(commits):
        line = f"{number} is the number of a line that nobody has written before\n".encode() * 3
        path = f"{number % _FOLDERS}/{number // _FOLDERS % _FILES}"
        who = f"committer A <a@example.com> {1_500_000_000 + number} +0000"
        yield f"commit refs/heads/master\n{who}\ndata 2\nx\nM 644 inline {path}\ndata {len(line)}\n".encode() + line
