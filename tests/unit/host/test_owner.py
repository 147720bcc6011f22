"""Who owns what a session has made: the label."""

import os

import pytest

from claude_bottle.host.owner import Owner
from claude_bottle.process.liveness import start_time, this_process
from tests.support.owners import ELSEWHERE, OBSERVER


@pytest.mark.parametrize("owner", [OBSERVER, ELSEWHERE, Owner("a b/1/2", "-", 10**30, "-")])
def test_a_label_names_its_owner(owner: Owner) -> None:
    assert Owner.parse(str(owner)) == owner


def test_the_label_has_four_parts_and_only_plain_characters_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: 'na:m,e"\n')
    owner = this_process()
    assert owner.machine.startswith("na-m-e--/")
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
