"""The difference that a running bottle shows of its work."""

from dataclasses import replace

import pytest

from claude_bottle.errors import RepositoryError
from claude_bottle.repository import fetch
from tests.support.fetching import nested, require_filter
from tests.support.repos import Ground

GONE = "Error response from daemon: No such container: x"


def test_the_difference_is_shown_with_what_is_not_committed(ground: Ground) -> None:
    bottle, before = ground.uncork(), ground.user.snapshot()
    ground.genie.commit("one", new="1\t2\n")
    (ground.genie.path / "left").write_text("\x1b[31m\n")
    (ground.genie.path / "changed").write_text("2\n")
    ground.genie.git("config", "diff.external", f"touch {ground.folder}/mark #")
    text = "".join(fetch.diff(bottle))
    assert {"+1\t2", r"+\x1b[31m", "+2"} <= set(text.splitlines())
    assert ground.genie.git("-c", "diff.external=", "status", "--porcelain").splitlines() == [" M changed", "?? left"]
    assert ground.user.snapshot() == before
    assert not (ground.folder / "mark").exists()


def test_the_difference_is_shown_whatever_the_agents_git_takes_amiss(ground: Ground) -> None:
    bottle = ground.uncork()
    require_filter(ground)
    (ground.genie.path / "left").write_text("the work")
    nested(ground, "inside")
    text = "".join(fetch.diff(bottle))
    assert "+the work\n" in text
    assert "+++ b/inside/file\n" in text
    assert ground.genie.git("diff", "--cached") == ""


def test_a_difference_that_is_not_all_of_it_is_a_failure(ground: Ground) -> None:
    bottle = ground.uncork()
    (ground.genie.path / "left").write_text("the work")
    (ground.genie.path / "git~1").touch()
    shown = list[str]()
    with pytest.raises(RepositoryError, match=r"^the diff is incomplete: "):
        shown.extend(fetch.diff(bottle))
    assert "+the work\n" in "".join(shown)


def test_a_difference_is_shown_without_its_start_and_a_failure_told(ground: Ground) -> None:
    bottle = ground.uncork()
    gone = replace(bottle, work=replace(bottle.work, start="1" * 40))
    assert "+1\n" in list(fetch.diff(gone))
    (ground.folder / "bin" / "docker").write_text(
        "#!/bin/sh\necho 'Error response from daemon: No such container: x' >&2; exit 1\n"
    )
    with pytest.raises(RepositoryError, match="the changes in the bottle cannot be shown: No such container: x"):
        list(fetch.diff(bottle))
