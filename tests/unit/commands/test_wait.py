"""Sessions in the background by their records: waited for, listed once they have ended, not joined any more."""

import fcntl
import json
import os
import sys
import threading
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

import pexpect
import pytest

from claude_bottle.commands import wait
from claude_bottle.host.machine import Machine
from claude_bottle.process import terminal_host
from claude_bottle.session.records import TERMINAL, Facts, Records
from tests.support import owners
from tests.support.labels import LIST, row
from tests.support.owners import OBSERVER, REBOOTED
from tests.support.scene import PATCHED, TRUSTING, Scene

MADE = Facts("demo-00000001", "demo", datetime(2026, 11, 30, 10, tzinfo=UTC), owner=str(REBOOTED), detached=True)
ENDED = datetime(2026, 11, 30, 11, tzinfo=UTC)


def kept(scene: Scene, *codes: int | None) -> list[str]:
    """Make records of sessions that have ended with these codes, None for one whose launcher was killed."""
    records = Records(scene.key.with_name("sessions"))
    ids = [f"demo-{number:08x}" for number in range(len(codes))]
    for session, code in zip(ids, codes, strict=True):
        ended = ENDED if code is not None else None
        records.create(replace(MADE, session=session, name=f"n{session[-1]}", code=code, ended=ended))
    return ids


@pytest.mark.parametrize(
    ("codes", "order", "code"),
    [
        ((0, 0), (0, 1), 0),
        ((0, 3, 5), (0, 1, 2), 3),
        ((0, 3, 5), (2, 1, 0), 5),
        ((None, 3), (0, 1), 137),
        ((75,), (0,), 75),
    ],
)
def test_the_first_code_that_is_not_zero_counts(
    scene: Scene, codes: tuple[int | None, ...], order: tuple[int, ...], code: int
) -> None:
    ids = kept(scene, *codes)
    assert scene.run("wait", *(ids[place] for place in order)) == (code, "", "")
    assert scene.run("wait", *(f"n{place}" for place in order))[0] == code


def test_a_session_without_a_record_has_a_code_of_its_own(scene: Scene) -> None:
    [three] = kept(scene, 3)
    code, _, said = scene.run("wait", "no\x1bbody", three)
    assert (code, said) == (68, 'claude-bottle: nothing is kept of a session "no\\x1bbody"\n')
    assert scene.run("wait", three, "nobody")[0] == 3


def test_wait_waits(scene: Scene) -> None:
    records = Records(scene.key.with_name("sessions"))
    with owners.launcher() as (process, owner):
        record = records.create(replace(MADE, owner=str(owner)))
        child = scene.launch("wait", MADE.session)

        def end() -> None:
            assert record.facts
            record.write_facts(replace(record.facts, code=9, ended=ENDED))

        timer = threading.Timer(0.5, end)
        timer.start()
        assert scene.end(child)[0] == 9
        assert process.poll() is None
        timer.join()


def test_what_has_ended_is_listed_until_its_record_is_removed(scene: Scene) -> None:
    kept(scene, 0, 75, None)
    scene.rule(LIST, stdout=row("demo-1", OBSERVER))
    _, out, _ = scene.run("list")
    header, *lines = out.splitlines()
    assert header.split()[:2] == ["SESSION", "NAME"]
    assert [(line.split()[:2], "ended (" in line) for line in lines] == [
        (["demo-00000000", "n0"], True),
        (["demo-00000001", "n1"], True),
        (["demo-00000002", "n2"], True),
        (["demo-1", "-"], False),
    ]
    states = [one["state"] for one in json.loads(scene.run("list", "--json")[1])]
    assert states == ["ended (0)", "ended (75)", "ended (137)", "?"]
    assert scene.run("history", "--remove", "--all")[0] == 0
    assert len(scene.run("list")[1].splitlines()) == 2


def test_what_has_ended_is_listed_although_the_engine_does_not_answer(scene: Scene) -> None:
    kept(scene, 75)
    scene.rule(LIST, code=1, stderr="Error response from daemon: out of order\n")
    code, out, said = scene.run("list")
    assert (code, "ended (75)" in out, "out of order" in said) == (70, True, True)


def test_a_name_is_of_the_session_that_runs(scene: Scene) -> None:
    """Not of one that had it before, even if nothing is known of the one that runs."""
    kept(scene, 3)
    assert scene.run("wait", "n0")[0] == 3
    path = scene.key.with_name("names") / "n0"
    path.parent.mkdir()
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code, _, said = scene.run("wait", "n0")
        assert (code, 'the session named "n0" was started without --detach' in said) == (68, True)
        with owners.launcher() as (_, owner):
            running = replace(MADE, session="demo-0000000a", name="n0", owner=str(owner))
            Records(scene.key.with_name("sessions")).create(running)
            here = Machine({"HOME": str(scene.folder)}, scene.folder, interactive=False, owner=OBSERVER)
            assert here.key_file == scene.key
            assert wait.find(here, "n0").session == "demo-0000000a"


@pytest.mark.parametrize("full", [True, False])
def test_attach_that_cannot_join_says_so_and_waits(scene: Scene, *, full: bool) -> None:
    """Of a launcher that lets nobody in, and of one that listens no more."""
    records, path = Records(scene.key.with_name("sessions")), scene.folder / "socket"
    scene.folder.chmod(0o700)
    with owners.launcher() as (_, owner), terminal_host.listen(path) as listening:
        record = records.create(replace(MADE, owner=str(owner)))
        record.write(TERMINAL, os.fsencode(path))
        if not full:
            listening.close()
        argv = [str(PATCHED), json.dumps(TRUSTING), "attach", MADE.session]
        child: pexpect.spawn[bytes] = pexpect.spawn(
            sys.executable, argv, env=dict(scene.environ), cwd=str(scene.folder), timeout=300
        )
        scene.pids.add(child.pid or 0)
        with closing(child):
            if full:
                listening.setblocking(True)
                listening.accept()[0].close()
            child.expect_exact("cannot be joined: too many terminals, or it is ending; waiting for its exit code")
            assert record.facts
            record.write_facts(replace(record.facts, code=9, ended=ENDED))
            child.expect(pexpect.EOF)
        assert child.exitstatus == 9


def test_attach_needs_a_terminal(scene: Scene) -> None:
    assert scene.run("attach")[0] == 2
    assert "attach needs a terminal" in scene.run("attach", "demo")[2]


@pytest.mark.parametrize("name", ["", "A", "a b", "../x"])
def test_a_name_that_is_none_is_a_usage_error(scene: Scene, name: str) -> None:
    code, _, said = scene.run("start", "demo", "--yes", "--name", name)
    assert code == 2
    assert "Invalid value for '--name'" in said
