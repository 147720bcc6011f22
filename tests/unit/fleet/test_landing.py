"""Work that comes home from a node which may be hostile."""

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from claude_bottle.errors import DockerError, RepositoryError
from claude_bottle.fleet import landing
from claude_bottle.fleet.tasks import Task
from claude_bottle.repository.clone import OUT, Work
from tests.support import plans
from tests.support.repos import Repo, users

TASK = Task("demo-1", "demo", "", "", "", 0)


class Node:
    """A user's repository and a docker whose `cp` prints what the node has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
        self.user = users(folder / "user", self.env, "first", a="1")
        (folder / "bin").mkdir()
        (folder / "bin/docker").write_text(f"#!/bin/sh\nexec cat {folder}/sent\n")
        (folder / "bin/docker").chmod(0o755)
        start = self.user.git("rev-parse", "HEAD").strip()
        self.work = Work(self.user.path, start, start)

    def bundle(self, name: str, content: str) -> bytes:
        """Return a bundle of a commit on top of the user's."""
        other = Repo(self.folder / name, self.env)
        subprocess.run(("git", "clone", "--quiet", self.user.path, other.path), env=self.env, check=True)
        other.git("config", "user.name", "Genie")
        other.git("config", "user.email", "genie@example.com")
        other.commit(content, file=content)
        other.git("update-ref", OUT, "HEAD")
        other.git("bundle", "create", "--quiet", str(self.folder / f"{name}.bundle"), f"^{self.work.commit}", OUT)
        return (self.folder / f"{name}.bundle").read_bytes()

    def sends(self, **files: bytes) -> None:
        with tarfile.open(self.folder / "sent", mode="w") as tar:
            for name, data in files.items():
                entry = tarfile.TarInfo(f"out/{name}.bundle")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))

    def land(self) -> list[str]:
        told: list[str] = []
        landing.land(plans.machine(), self.env, TASK, self.work, told.append)
        return told


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    return Node(tmp_path)


def test_each_bundle_becomes_a_branch(node: Node) -> None:
    node.sends(s=node.bundle("one", "1"), **{"s-2": node.bundle("two", "2")})
    told = node.land()
    assert [node.user.git("show", f"bottle/demo-1{end}:file") for end in ("", "-2")] == ["1", "2"]
    assert len(told) == 2


def test_one_that_is_refused_is_saved_and_the_others_land(node: Node) -> None:
    node.sends(a=b"no bundle", bb=node.bundle("one", "1"))
    with pytest.raises(RepositoryError, match=r"the work is saved, unchecked, in .*/user-bottle-demo-1\.bundle"):
        node.land()
    assert node.user.git("show", "bottle/demo-1:file") == "1"
    assert (node.folder / "user-bottle-demo-1.bundle").read_bytes() == b"no bundle"


@pytest.mark.parametrize("data", [b"rubbish" * 1000, b""])
def test_what_is_no_tar_is_not_taken_for_no_work(node: Node, data: bytes) -> None:
    (node.folder / "sent").write_bytes(data)
    with pytest.raises(DockerError, match="cannot be fetched"):
        node.land()


def test_a_hole_of_a_gigabyte_is_refused(node: Node) -> None:
    """A sparse file is small on the wire, and not on this disk."""
    with (node.folder / "hole").open("wb") as file:
        file.truncate(1 << 31)
    argv = ("tar", "--create", "--sparse", "--file", "sent", "--transform", "s,hole,out/a.bundle,", "hole")
    subprocess.run(argv, cwd=node.folder, check=True)
    with pytest.raises((RepositoryError, DockerError)):
        node.land()
    assert sum(path.stat().st_blocks for path in (node.folder / "tmp").rglob("*")) < 1000
