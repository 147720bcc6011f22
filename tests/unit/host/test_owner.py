"""Who owns what a session has made: the label, and what can be known of the process that it names."""

import os
import subprocess
from dataclasses import replace

import pytest

from claude_bottle.host.owner import Owner, start_time
from tests.support.owners import ELSEWHERE, OBSERVER, REBOOTED, launcher


@pytest.mark.parametrize("owner", [OBSERVER, ELSEWHERE, Owner("a b/1/2", "-", 10**30, "-")])
def test_a_label_names_its_owner(owner: Owner) -> None:
    assert Owner.parse(str(owner)) == owner


def test_the_label_has_four_parts_and_no_colon_of_the_machines_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "na:me")
    owner = Owner.of_this_process()
    assert owner.machine.startswith("na-me/")
    assert str(owner).split(":") == [owner.machine, owner.boot, str(os.getpid()), start_time(os.getpid())]


@pytest.mark.parametrize(
    "label",
    [
        *("", "x", ":::", "m:b:1", "m:b:1:2:3", ":b:1:2", "m::1:2", "m:b::2", "m:b:1:"),
        *("m:b:none:2", "m:b:-1:2", "m:b:0:2", "m:b:01:2", "m:b: 1:2", "m:b:\u0661:2", f"m:b:{'1' * 5000}:2"),
        *("m:b:1:none", "m:b:1:-2", "m:b:1:2\n", "m:b:1:--"),
    ],
)
def test_nonsense_names_nobody(label: str) -> None:
    assert Owner.parse(label) is None


def test_a_process_is_judged_by_machine_boot_and_start() -> None:
    with launcher() as (process, owner):
        owners = (owner, replace(owner, started="1"), REBOOTED, ELSEWHERE, replace(owner, machine="another"))
        assert [one.liveness(OBSERVER) for one in owners] == ["ours", "dead", "dead", "elsewhere", "elsewhere"]
        assert process.poll() is None


def test_only_the_certainly_dead_are_judged_so() -> None:
    with subprocess.Popen("true") as child:
        pass
    gone = replace(OBSERVER, pid=child.pid)
    assert gone.is_dead(OBSERVER)
    assert replace(OBSERVER, started="1").is_dead(OBSERVER), "another process has its number"
    assert replace(OBSERVER, boot="another").is_dead(OBSERVER), "the machine was booted since"
    assert replace(OBSERVER, pid=10**30).is_dead(OBSERVER), "no machine has so many"
    assert not OBSERVER.is_dead(OBSERVER)
    assert not replace(gone, machine="another").is_dead(OBSERVER)


def test_a_zombie_is_dead() -> None:
    with subprocess.Popen("true") as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # a zombie until it is waited for
        assert replace(OBSERVER, pid=ended.pid).is_dead(OBSERVER)


@pytest.mark.parametrize(("shown", "liveness"), [("7", "theirs"), ("-", "theirs"), ("8", "dead")])
def test_a_process_of_another_user_lives_unless_it_is_seen_to_be_another(
    monkeypatch: pytest.MonkeyPatch, shown: str, liveness: str
) -> None:
    """Root may signal anybody, so the kernel's refusal is the test's own, as is what /proc shows."""

    def refuse(_pid: int, _signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr("os.kill", refuse)
    monkeypatch.setattr("claude_bottle.host.owner.start_time", lambda _: shown)
    assert replace(OBSERVER, pid=1, started="7").liveness(OBSERVER) == liveness
