"""What goes into the bottle: a pack, a remote without its secrets, and a label of it."""

from dataclasses import replace
from pathlib import Path

import pytest

from claude_bottle.repository import clone
from claude_bottle.repository.clone import Work
from tests.support.repos import Ground


def test_a_failure_to_pack_is_gits_own_to_tell(ground: Ground) -> None:
    ground.user.commit()
    taken = ground.survey()
    gone = replace(taken, work=replace(taken.work, start="1" * 40))
    with pytest.raises(AssertionError, match="bad object 1111"):
        ground.uncork(gone)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://token@example.com/x", "https://example.com/x"),
        ("HTTPS://me:token@example.com/x?a=b", "HTTPS://example.com/x"),
        ("ssh://git:pw@example.com:22/x", "ssh://git@example.com:22/x"),
        ("git@example.com:me/x.git", "git@example.com:me/x.git"),
        ("/srv/x@y", "/srv/x@y"),
    ],
)
def test_no_secret_of_a_remote_goes_in(url: str, told: str) -> None:
    assert clone.without_secret(url) == told


def test_a_label_holds_all_that_another_command_needs() -> None:
    work = Work(Path("/a b/c"), "1" * 40, "2" * 64)
    assert Work.of_label(work.label) == work
    assert [Work.of_label(text) for text in ("-", "", "1 2 /x", f"{'1' * 40} {'2' * 40} ")] == [None] * 4
