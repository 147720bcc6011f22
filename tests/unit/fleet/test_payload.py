"""A task's payload: what goes in comes out, and what others have made leads nowhere else."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from claude_bottle.errors import UsageError
from claude_bottle.fleet import payload
from claude_bottle.fleet.payload import Task

TASK = Task("reviewer", "What is \u201cthis\u201d?", ("A", "key-1"), {"BASE_IMAGE": "x"}, 60, "0" * 40, "main", "", "")


def tar(*members: tarfile.TarInfo, **files: bytes) -> io.BytesIO:
    """Return a tar as somebody else could make it."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as made:
        for name, data in files.items():
            entry = tarfile.TarInfo(name.replace("__", "/").replace("_json", ".json"))
            entry.size = len(data)
            made.addfile(entry, io.BytesIO(data))
        for member in members:
            made.addfile(member, io.BytesIO(b"x" * member.size))
    stream.seek(0)
    return stream


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, link
    entry.size = 1 if kind == tarfile.REGTYPE else 0
    return entry


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    skill = tmp_path / "skill"
    (skill / "empty").mkdir(parents=True)
    (skill / "run").write_text("#!/bin/sh\n")
    (skill / "run").chmod(0o700)
    (skill / "twin").hardlink_to(skill / "run")
    (skill / "link").symlink_to("../../elsewhere")
    stream, folder = io.BytesIO(), tmp_path / "out"
    folder.mkdir()
    payload.write(TASK, {"agents/a.yaml": b"{}", "agents/skills/s": skill}, stream)
    stream.seek(0)
    assert payload.read(stream, folder) == TASK
    out = folder / "agents/skills/s"
    assert (folder / "agents/a.yaml").read_bytes() == b"{}"
    assert ((out / "run").read_text(), (out / "run").stat().st_mode & 0o111) == ("#!/bin/sh\n", 0o111)
    assert (out / "twin").read_text() == "#!/bin/sh\n"
    assert (out / "empty").is_dir()
    assert str((out / "link").readlink()) == "../../elsewhere"


def test_the_same_start_is_the_same_payload(tmp_path: Path) -> None:
    """Whoever packs it, and whenever."""
    made = []
    for name, mode, order in (("one", 0o600, "abcdef"), ("two", 0o640, "fedcba")):
        for folder in order:
            file = tmp_path / name / folder / "f"
            file.parent.mkdir(parents=True)
            file.write_text("same")
            file.chmod(mode)
        stream = io.BytesIO()
        payload.write(TASK, {"agents/files": tmp_path / name}, stream)
        made.append(stream.getvalue())
    assert made[0] == made[1]


@pytest.mark.parametrize(
    "members",
    [
        (member("agents/../../out"),),
        (member("/etc/out"),),
        (member("elsewhere"),),
        (member("agents/l", tarfile.SYMTYPE, "/tmp"), member("agents/l/out")),
        (member("agents", tarfile.SYMTYPE, ".."), member("agents/out")),
        (member("agents/f"), member("agents/f")),
        (member("agents/pipe", tarfile.FIFOTYPE),),
        (member("agents/null", tarfile.CHRTYPE),),
        (member("agents/hard", tarfile.LNKTYPE, "/etc/passwd"),),
    ],
    ids=lambda members: members[-1].name,
)
def test_what_leads_elsewhere_is_refused(tmp_path: Path, members: tuple[tarfile.TarInfo, ...]) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    with pytest.raises((UsageError, FileExistsError)):
        payload.read(tar(*members, task_json=TASK.as_json()), folder)
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"{", "damaged"),
        (b"[]", "damaged"),
        (b'{"version": 2}', "of version 2, and this launcher runs 1"),
        (b'{"version": 1}', "damaged"),
        (json.dumps({"version": 1, "agent": "a", "question": "q", "secrets": [], "more": 1}).encode(), "damaged"),
    ],
)
def test_what_is_no_task_is_told(tmp_path: Path, data: bytes, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        payload.read(tar(task_json=data), tmp_path)


@pytest.mark.parametrize("data", [b"", b"no tar at all", tar(agents__a=b"").getvalue()])
def test_what_is_no_payload_is_told(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(UsageError, match="not a task's payload"):
        payload.read(io.BytesIO(data), tmp_path)


@pytest.mark.parametrize("data", [b"", b"[]", b'{"A": 1}', b"\xff"])
def test_what_are_no_secrets_are_told_and_not_shown(data: bytes) -> None:
    with pytest.raises(UsageError) as raised:
        payload.secrets(data)
    assert "1" not in str(raised.value)
