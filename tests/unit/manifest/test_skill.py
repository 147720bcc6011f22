"""A skill's folder: how much it may be, and what is said of what stays behind."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_bottle.manifest import skill
from claude_bottle.manifest.skill import Skill
from tests.support.manifests import Place


@pytest.fixture
def folder(place: Place) -> Iterator[Path]:
    """A skill of the agent `a`."""
    place.write("agents/a.yaml", "skills: [s]\n")
    folder = place.write("agents/skills/s/SKILL.md").parent
    yield folder
    subprocess.run(("rm", "-rf", folder), check=True)  # pytest could not: it descends by recursion


def nested(folder: Path, depth: int) -> None:
    """Make folders inside one another, also more than fit into one path."""
    before = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=before)
        after = os.open("d", os.O_RDONLY, dir_fd=before)
        os.close(before)
        before = after
    os.close(before)


def faults(place: Place) -> list[str]:
    return [fault.replace(f"{place.agents}/", "") for fault in place.faults()]


def test_a_skill_of_the_largest_size_is_fine(place: Place, folder: Path) -> None:
    for number in range(skill.MOST_FILES - 1):
        (folder / str(number)).touch()
    nested(folder, skill.DEEPEST)
    os.truncate(folder / "SKILL.md", 1 << 20)
    os.truncate(folder / "0", skill.MOST_BYTES - (1 << 20))
    assert place.load().skills == (Skill("s", folder.resolve()),)


def test_too_many_files_or_folders_are_a_fault(place: Place, folder: Path) -> None:
    for number in range(skill.MOST_FILES):
        (folder / str(number)).touch()
    assert faults(place) == ["a.yaml:1:10: skills: skills/s has more than 1,000 files"]
    for number in range(skill.MOST_FILES):
        (folder / str(number)).unlink()
    for number in range(skill.MOST_FILES + 1):
        (folder / str(number)).mkdir()
    assert faults(place) == ["a.yaml:1:10: skills: skills/s has more than 1,000 folders"]


@pytest.mark.parametrize("depth", [skill.DEEPEST + 1, 1200, 5000])
def test_folders_too_deep_are_a_fault(place: Place, folder: Path, depth: int) -> None:
    nested(folder, depth)
    assert faults(place) == ["a.yaml:1:10: skills: skills/s has more than 32 folders inside one another"]


def test_too_large_a_skill_is_a_fault_and_is_not_read(place: Place, folder: Path) -> None:
    (folder / "sparse").touch()
    os.truncate(folder / "sparse", 3 << 30)
    assert faults(place) == ["a.yaml:1:10: skills: skills/s is larger than 64 MiB"]


def test_the_skills_of_an_agent_share_one_limit(place: Place, folder: Path) -> None:
    (folder / "half").touch()
    os.truncate(folder / "half", 40 << 20)
    place.write("agents/skills/t/SKILL.md")
    os.truncate(place.write("agents/skills/t/half"), 40 << 20)
    place.write("agents/a.yaml", "skills: [s, t]\n")
    assert faults(place) == ["a.yaml:1:9: skills: larger than 64 MiB together"]
    place.write("agents/a.yaml", f"skills: [{101 * 's, '}]\n")
    assert faults(place) == ["a.yaml:1:9: skills: more than 100 skills"]


def test_what_stays_behind_is_noted(place: Place, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        before = Path.cwd()
        os.chdir(folder)  # a socket's path has at most 108 bytes
        server.bind("socket")
        os.chdir(before)
    (folder / "inner").mkdir()
    links = {"to-root": "/etc/passwd", "inner/up": "../..", "inner/fine": "../SKILL.md", "fine": "inner/x", "out": ".."}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    assert place.load().skills[0].notes == (
        "skill s: not copied: pipe (a pipe), socket (a socket)",
        "skill s: links copied without their targets: inner/up -> ../.., out -> .., to-root -> /etc/passwd",
    )
    (folder / "z").symlink_to("../z")
    assert place.load().skills[0].notes[1].endswith("to-root -> /etc/passwd, +1 more")
