"""Cloning into a bottle: the pack, the origin without secrets, the label."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from claude_bottle.repository import clone
from claude_bottle.repository.clone import Work
from tests.support.repos import Ground


def test_a_failed_pack_prints_gits_own_error(ground: Ground) -> None:
    ground.user.commit()
    repository = ground.survey()
    gone = replace(repository, work=replace(repository.work, start="1" * 40))
    with pytest.raises(AssertionError, match="bad object 1111"):
        ground.uncork(gone)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://token@example.com/x", "https://example.com/x"),
        ("HTTPS://me:token@example.com/x?a=b", "HTTPS://example.com/x"),
        ("ssh://git:pw@example.com:22/x", "ssh://git@example.com:22/x"),
        ("git@example.com:me/x.git", "git@example.com:me/x.git"),
        ("/srv/x@y", "/srv/x@y"),
    ],
)
def test_a_remotes_url_loses_its_secrets(url: str, shown: str) -> None:
    assert clone.without_secret(url) == shown


def test_a_label_round_trips_and_others_are_not_parsed() -> None:
    for path in ("/a b/c", "/50%FF", os.fsdecode(b"/r\xe9po \xc3\xa9")):
        for branch in ("", "bottle/run-tasks/a-1"):
            work = Work(Path(path), "1" * 40, "2" * 64, branch)
            assert Work.of_label(work.label.encode().decode()) == work
    assert [Work.of_label(text) for text in ("-", "", "1 2 /x", f"{'1' * 40} {'2' * 40} ")] == [None] * 4


@pytest.mark.parametrize("branch", ["", "main", "bottle/x", "bottle/../main", "bottle/a/b/c", "bottle/a/b.lock"])
def test_a_label_names_no_branch_of_the_users_own(branch: str) -> None:
    """It is text that anybody who uses the engine can write."""
    assert Work.of_label(f"{'1' * 40} {'2' * 40}:{branch} /x") is None
