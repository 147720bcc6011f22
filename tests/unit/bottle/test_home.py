"""What is copied into the containers."""

import io
import os
import tarfile
from pathlib import Path

from claude_bottle.bottle import home
from claude_bottle.bottle.plan import Run
from claude_bottle.manifest.agent import Skill
from claude_bottle.session import steps
from tests.support import plans


def _skill(folder: Path) -> Skill:
    (folder / "inner").mkdir(parents=True)
    (folder / "SKILL.md").write_text("Look.\n")
    (folder / "inner" / "run").write_text("#!/bin/sh\n")
    (folder / "inner" / "run").chmod(0o700)
    (folder / "outside").symlink_to("/etc/passwd")
    (folder / "folder").symlink_to("/etc")
    (folder / "sibling").symlink_to("SKILL.md")
    os.mkfifo(folder / "fifo")
    return Skill("look", folder)


def test_a_skill_is_copied_without_following_links(tmp_path: Path) -> None:
    data = home.home([_skill(tmp_path / "a")], None)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = {member.name.removeprefix(".claude/skills/look"): member for member in tar if "look" in member.name}
    assert set(found) == {"", "/SKILL.md", "/inner", "/inner/run", "/outside", "/folder", "/sibling"}
    links = {name: member.linkname for name, member in found.items() if member.issym()}
    assert links == {"/outside": "/etc/passwd", "/folder": "/etc", "/sibling": "SKILL.md"}
    assert {name: member.mode for name, member in found.items() if member.isfile()} == {
        "/SKILL.md": 0o644,
        "/inner/run": 0o755,
    }
    assert {(member.uid, member.gid) for member in found.values()} == {(1000, 1000)}


def test_equal_files_give_equal_bytes_wherever_and_whenever_they_are(tmp_path: Path) -> None:
    first, second = _skill(tmp_path / "a"), _skill(tmp_path / "b")
    os.utime(second.folder / "SKILL.md", (1, 1))
    assert home.home([first], "Look.") == home.home([second], "Look.")


def test_the_sidecars_configuration_is_its_users_alone(tmp_path: Path) -> None:
    plan = plans.plan(plans.manifests(tmp_path), Run(terminal=True))
    step = next(step for step in steps.table(plan) if step.name == "sidecar-config")
    with tarfile.open(fileobj=io.BytesIO(step.stdin)) as tar:
        found = {member.name: (member.uid, member.gid, member.mode, read(tar, member)) for member in tar}
    owned = (65534, 65534, 0o600)
    assert found == {"pipelock.yaml": (*owned, plan.config), "reach.json": (*owned, plan.reach)}


def read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()
