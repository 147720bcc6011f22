"""What is awaited before the work comes back over a link that was cut."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from claude_bottle.bottle.docker_flags import PAUSED
from claude_bottle.bottle.plan import Plan, Run
from claude_bottle.process.engine import Engine
from claude_bottle.session import bring_up
from claude_bottle.session.bring_up import SessionContext
from tests.support import plans
from tests.support.scene import Scene

TOP = "top claude-bottle-"
BUSY = "PID   COMMAND\n7     docker-init\n8     bash\n9     git\n"
QUIET = f"PID   COMMAND\n7     docker-init\n8     {PAUSED}\n"


class Link:
    """One that is open again after a cut that was noticed a while ago."""

    def __init__(self, ago: float = 0.0) -> None:
        self.ago, self.patience = ago, 0.0
        self.since: float | None = None

    def restore(self, seconds: float = 0.0, settle: Callable[[float], None] = lambda _: None) -> None:
        self.patience = seconds
        settle(time.monotonic() - self.ago)


def kept(folder: Path) -> Plan:
    return replace(plans.with_repository(plans.plan(plans.manifests(folder), Run(terminal=False))), remote=True)


def asked(scene: Scene, plan: Plan, link: Link) -> int:
    """Restore a link; return how often the bottle's processes were looked at."""
    absent = cast("Any", None)
    tools = (absent,) * 5
    context = SessionContext(scene.environ, Engine(scene.environ), *tools, link=cast("Any", link))
    scene.pids.add(os.getpid())
    assert context.restore_link(plan) is None
    return sum(event.starts(TOP) for event in scene.log)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bring_up, "_PAUSE", 0.0)


def test_nothing_is_fetched_before_the_bottle_has_noticed_the_cut(scene: Scene, tmp_path: Path) -> None:
    scene.rule(TOP, stdout=BUSY, times=2)
    scene.rule(TOP, stdout=QUIET)
    assert asked(scene, kept(tmp_path), Link()) == 3


@pytest.mark.parametrize("why", ["No such container: x", "Container x is not running"])
def test_a_bottle_that_is_gone_is_not_waited_for(scene: Scene, tmp_path: Path, why: str) -> None:
    scene.rule(TOP, code=1, stderr=f"Error response from daemon: {why}\n")
    assert asked(scene, kept(tmp_path), Link()) == 1


def test_an_engine_that_cannot_say_is_not_waited_for_without_end(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bring_up, "_NOTICED", 1.0)
    scene.rule(TOP, code=1, stderr="Error response from daemon: ps: unrecognized option\n")
    assert asked(scene, kept(tmp_path), Link()) > 1


def test_what_the_cut_is_too_old_for_is_not_asked(scene: Scene, tmp_path: Path) -> None:
    assert asked(scene, kept(tmp_path), Link(ago=120.0)) == 0


def test_a_bottle_that_ends_with_its_link_is_not_waited_for(scene: Scene, tmp_path: Path) -> None:
    assert asked(scene, replace(kept(tmp_path), repository=None), Link()) == 0


def test_the_link_is_not_opened_for_a_bottle_that_has_ended(scene: Scene, tmp_path: Path) -> None:
    """A second cut does not lengthen the pause."""
    link = Link()
    link.since = time.monotonic() - 700
    scene.rule(TOP, stdout=QUIET)
    assert asked(scene, kept(tmp_path), link) == 1
    assert 100 < link.patience <= 160
