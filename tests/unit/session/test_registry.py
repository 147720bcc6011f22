"""Sessions seen through labels, and whether their launchers live; these are real children."""

import os
import subprocess
from datetime import UTC, datetime

import pytest

from claude_bottle.cleanup import stack
from claude_bottle.errors import UsageError
from claude_bottle.host import machine
from claude_bottle.session import registry
from claude_bottle.session.registry import Session
from tests.support.labels import BOOT, ELSEWHERE, HERE, MACHINE, REBOOTED, launcher

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def test_a_session_is_found_by_whatever_begins_it_alone() -> None:
    found = [Session(name, ELSEWHERE, NOW) for name in ("demo-0a", "demo-0a1b", "review-0a")]
    assert [registry.find(found, name).id for name in ("r", "demo-0a1", "demo-0a")] == [
        "review-0a",
        "demo-0a1b",
        "demo-0a",
    ]
    with pytest.raises(UsageError, match=r'^"de" could be any of demo-0a, demo-0a1b: '):
        registry.find(found, "de")
    with pytest.raises(UsageError, match=r'^no session "x\\x1b"; there are demo-0a, demo-0a1b, review-0a$'):
        registry.find(found, "x\x1b")
    with pytest.raises(UsageError, match=r'^no session "x"; there is none$'):
        registry.find([], "x")
    with pytest.raises(UsageError, match=r'^no session ""; there are demo-0a$'):
        registry.find(found[:1], "")  # of a shell's variable that was not set


def test_a_process_is_judged_by_machine_boot_and_start() -> None:
    with launcher() as (process, owner):
        other_start = f"{MACHINE}:{BOOT}:{process.pid}:1"
        labels = (owner, other_start, REBOOTED, ELSEWHERE, f"{MACHINE}:{BOOT}:none:1")
        assert [machine.fate(one, HERE) for one in labels] == ["ours", "dead", "dead", "elsewhere", "elsewhere"]
        for one in (other_start, REBOOTED, ELSEWHERE, f"{MACHINE}:{BOOT}:{process.pid}:-"):
            assert not stack.ask_to_end(one, HERE)
        assert process.poll() is None
        assert stack.ask_to_end(owner, HERE)
        assert process.wait() == -15
    with subprocess.Popen("true") as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # a zombie until it is waited for
        assert machine.fate(f"{MACHINE}:{BOOT}:{ended.pid}:{machine.start_time(os.getpid())}", HERE) == "dead"


@pytest.mark.parametrize(("seconds", "said"), [(59, "59 s"), (60, "1 min"), (7300, "2 h"), (200_000, "2 d")])
def test_an_age_is_told_in_one_unit(seconds: int, said: str) -> None:
    assert registry.duration(seconds) == said
