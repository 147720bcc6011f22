"""What is kept is whole, for one user alone, and within its limits; what became of it since makes no reader fail."""

import json
import os
import stat
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from claude_bottle.errors import UsageError
from claude_bottle.process import liveness
from claude_bottle.session import records
from claude_bottle.session.records import ANSWER, FACTS, LIMIT, MESSAGES, MOST, TRANSCRIPT, Facts, Record, Records

SESSION = "demo-0123abcd"
FACTS_MADE = Facts(
    SESSION,
    "demo",
    datetime(2026, 11, 30, 10, 0, tzinfo=UTC),
    agent_file="/home/me/agents/d\udce9mo.yaml",
    ended=datetime(2026, 11, 30, 11, 0, tzinfo=UTC),
    code=3,
    kept=True,
    struck=2,
    notes=("the transcript is not kept: it is larger than 46 MiB",),
)


def numbered(number: int) -> Facts:
    started = FACTS_MADE.started + timedelta(minutes=number)
    return replace(FACTS_MADE, session=f"demo-{number:08x}", started=started)


@pytest.fixture
def kept(tmp_path: Path) -> Records:
    return Records(tmp_path / "state" / "sessions")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_record_is_read_as_it_was_written_and_for_one_user_alone(kept: Records) -> None:
    os.umask(0o000)
    try:
        record = kept.create(FACTS_MADE)
        record.write(ANSWER, b"42\n")
        os.close(record.opened(MESSAGES))
    finally:
        os.umask(0o022)
    [found] = kept.all()
    assert found.facts == FACTS_MADE
    assert found.read(ANSWER) == b"42\n"
    assert {mode(path) for path in found.folder.iterdir()} == {0o600}
    assert mode(kept.folder) == mode(found.folder) == 0o700
    assert found.size == kept.size() == sum(path.stat().st_size for path in found.folder.iterdir())


def test_every_fact_survives_the_file() -> None:
    made = replace(FACTS_MADE, **{each.name: _other(each.name, each.type) for each in fields(Facts)})
    assert Facts.parse(json.dumps(made.as_json()).encode()) == made


def _other(name: str, kind: object) -> Any:
    values: dict[object, Any] = {bool: True, int: 7, int | None: 8, tuple[str, ...]: ("a", "b"), str: name}
    return values.get(kind, FACTS_MADE.started)


def test_a_part_is_replaced_whole_and_none_is_too_large(kept: Records) -> None:
    record = kept.create(FACTS_MADE)
    record.write(ANSWER, b"one")
    with pytest.raises(OSError, match="larger than 8 MiB"):
        record.write(ANSWER, b"x" * (MOST[ANSWER] + 1))
    assert record.read(ANSWER) == b"one"
    record.write(ANSWER, b"two")
    assert record.read(ANSWER) == b"two"
    assert sorted(path.name for path in record.folder.iterdir()) == [ANSWER, FACTS]
    assert sum(MOST.values()) == 64 * records.MIB


def test_messages_are_appended_and_their_end_is_read_whatever_their_size(kept: Records) -> None:
    record = kept.create(FACTS_MADE)
    for text in (b"one\n", b"two\n"):
        descriptor = record.opened(MESSAGES)
        os.write(descriptor, text)
        os.close(descriptor)
    assert record.read(MESSAGES) == b"one\ntwo\n"
    assert record.tail(MESSAGES, 4) == b"two\n"
    os.truncate(record.path(MESSAGES), 1 << 40)  # sparse
    assert record.read(MESSAGES) is None
    assert record.tail(MESSAGES, 4) == bytes(4)
    assert record.tail(ANSWER, 4) == b""


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "device", "open to others", "none"])
def test_no_other_file_is_read_or_written_through(kept: Records, tmp_path: Path, kind: str) -> None:
    record = kept.create(FACTS_MADE)
    path, secret = record.path(ANSWER), tmp_path / "secret"
    secret.write_bytes(b"secret")
    secret.chmod(0o600)
    if kind == "link":
        path.symlink_to(secret)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "open to others":
        path.write_bytes(b"theirs")
        path.chmod(0o644)
    assert record.read(ANSWER) is None
    assert record.tail(ANSWER, 9) == (b"theirs" if kind == "open to others" else b"")
    if kind in ("link", "device"):
        with pytest.raises(OSError, match=r".*"):
            record.opened(ANSWER)
    assert secret.read_bytes() == b"secret"
    kept.remove(record)
    assert kept.all() == ()
    assert secret.read_bytes() == b"secret"


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{", b"[]", b"null", b"7", b"\xff", b"[" * 100_000),
        json.dumps({**FACTS_MADE.as_json(), "session": "other-0123abcd"}).encode(),
        *(
            json.dumps({**FACTS_MADE.as_json(), name: value}).encode()
            for name, value in [
                *(("started", None), ("started", 7), ("started", "soon"), ("code", "0"), ("code", True)),
                *(("kept", 1), ("agent", None), ("notes", 5), ("struck", 1.5), ("branch", ["x"])),
            ]
        ),
    ],
)
def test_a_damaged_record_is_shown_and_can_be_removed(kept: Records, data: bytes) -> None:
    kept.create(numbered(1))
    record = kept.create(FACTS_MADE)
    record.path(FACTS).write_bytes(data)
    [damaged] = [each for each in kept.all() if each.session == SESSION]
    assert damaged.facts is None
    assert not damaged.is_running(liveness.this_process())
    assert kept.find(SESSION) == damaged
    kept.remove(damaged)
    assert [each.session for each in kept.all()] == ["demo-00000001"]


def test_unknown_facts_are_a_newer_versions(kept: Records) -> None:
    record = kept.create(FACTS_MADE)
    record.write_json(FACTS, {**FACTS_MADE.as_json(), "newer": 1})
    assert kept.all()[0].facts == FACTS_MADE


@pytest.mark.parametrize("kind", ["link", "file", "fifo"])
def test_what_is_no_folder_is_damaged_and_removed_without_being_followed(
    kept: Records, tmp_path: Path, kind: str
) -> None:
    real = kept.create(FACTS_MADE)
    path = kept.folder / "demo-00000007"
    if kind == "link":
        path.symlink_to(real.folder)
    elif kind == "file":
        path.write_bytes(b"")
    else:
        os.mkfifo(path)
    [damaged] = [each for each in kept.all() if each.session == path.name]
    assert damaged.facts is None
    assert damaged.size == 0
    kept.remove(damaged)
    kept.remove(damaged)
    assert [each.facts for each in kept.all()] == [FACTS_MADE]
    if kind == "link":
        path.symlink_to(tmp_path)
        with pytest.raises(OSError, match="own"):
            kept.create(replace(FACTS_MADE, session=path.name))


def test_names_that_are_no_sessions_are_left_alone(kept: Records) -> None:
    kept.create(FACTS_MADE)
    for name in ("other", ".demo-0123abcd", "demo-0123abcd\n", "DEMO-0123abcd", "demo-0123abcd.x", "\x1b[31m-0123abcd"):
        (kept.folder / name).mkdir()
    assert [each.session for each in kept.all()] == [SESSION]
    with pytest.raises(OSError, match="no id"):
        kept.create(replace(FACTS_MADE, session="../../x-0123abcd"))


def test_a_state_folder_that_is_not_there_or_no_folder_has_no_records(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert Records(tmp_path / "none").all() == Records(tmp_path / "file").all() == ()
    assert Records(tmp_path / "none").size() == 0


def test_the_newest_is_first(kept: Records) -> None:
    for number in (2, 3, 1):
        kept.create(numbered(number))
    assert [each.session[-1] for each in kept.all()] == ["3", "2", "1"]


def test_a_record_is_found_by_id_beginning_or_name(kept: Records) -> None:
    for number, name in ((0x10, "alpha"), (0x11, "alpha"), (0x20, "")):
        kept.create(replace(numbered(number), name=name))
    assert kept.find("demo-00000010").session == "demo-00000010"
    assert kept.find("demo-0000002").session == "demo-00000020"
    assert kept.find("alpha").session == "demo-00000011"
    for wrong, why in (("demo-", "ambiguous: demo-00000020"), ("other", 'session "other"'), ("", "nothing is kept")):
        with pytest.raises(UsageError, match=why):
            kept.find(wrong)


def made_large(kept: Records, numbers: range, size: int) -> list[Record]:
    found = []
    for number in numbers:
        found.append(kept.create(numbered(number)))
        found[-1].write(TRANSCRIPT, b"")
        os.truncate(found[-1].path(TRANSCRIPT), size)  # sparse
    return found


def test_the_oldest_go_first_until_the_rest_fits(kept: Records) -> None:
    made_large(kept, range(5), LIMIT // 4)
    me = liveness.this_process()
    assert [each.session[-1] for each in kept.trim(me)] == ["0", "1"]
    assert [each.session[-1] for each in kept.all()] == ["4", "3", "2"]
    assert kept.trim(me) == ()


def test_what_runs_and_what_was_just_kept_is_spared(kept: Records) -> None:
    made = made_large(kept, range(5), LIMIT // 2)
    me = liveness.this_process()
    assert made[0].facts
    made[0].write_facts(replace(made[0].facts, ended=None, owner=str(me)))
    made[2].write_facts(replace(made[0].facts, session=made[2].session, ended=None, owner=str(replace(me, boot="x"))))
    assert {each.session[-1] for each in kept.all() if each.is_running(me)} == {"0"}
    assert [each.session[-1] for each in kept.trim(me, spared=made[1].session)] == ["2", "3", "4"]
    assert {each.session[-1] for each in kept.all()} == {"0", "1"}


def test_what_is_there_of_one_in_the_background_is_left_to_its_user_and_does_not_count(kept: Records) -> None:
    made = made_large(kept, range(5), LIMIT // 2 - records.MIB)
    for each, more in ((made[0], False), (made[1], True), (made[4], False)):
        assert each.facts
        each.write_facts(replace(each.facts, detached=True, kept=more))
    assert [each.session[-1] for each in kept.trim(liveness.this_process())] == ["1"]
    assert [each.session[-1] for each in kept.all()] == ["4", "3", "2", "0"]


def test_one_that_cannot_be_removed_does_not_count_as_gone(kept: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    made_large(kept, range(3), LIMIT // 2)
    remove = kept.remove

    def stubborn(record: Record) -> None:
        if record.session.endswith("0"):
            raise PermissionError
        remove(record)

    monkeypatch.setattr(kept, "remove", stubborn)
    assert [each.session[-1] for each in kept.trim(liveness.this_process())] == ["1", "2"]
