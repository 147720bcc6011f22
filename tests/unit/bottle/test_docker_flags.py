"""The labels by which other commands know what a session's credential proxy ends, and what holds a bottle up."""

import contextlib
import os
import subprocess
import threading
from pathlib import Path

import pytest

from claude_bottle.bottle import docker_flags
from claude_bottle.bottle.plan import Run
from tests.support import plans


def test_agent_and_sidecar_name_the_ended_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else does: a comma would end the label of a volume that a --mount makes."""
    plan = plans.plan(plans.manifests(tmp_path), Run(terminal=False))
    monkeypatch.setattr(docker_flags, "ended", lambda _: ("a.test", "b.test:8443"))
    named = "claude-bottle.signs=a.test,b.test:8443"
    for role in ("agent", "sidecar"):
        assert named in docker_flags.owned_by(plan, role)
    for role in ("network", "gate", "lock", "key-holder", "key-volume"):
        assert "claude-bottle.signs=" in docker_flags.owned_by(plan, role)
    assert "volume-label=claude-bottle.signs=," in docker_flags.volume_labels(plan, "config")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A folder in the place of /proc, with two processes of the guard's user."""
    proc = tmp_path / "proc"
    for name in ("1", "7", "self"):
        (proc / name).mkdir(parents=True)
    (proc / "loadavg").write_text("0.1 0.2 0.3 1/9 7\n")
    return proc


def pauses(proc: Path) -> bool:
    """Run the guard after the end of its lifeline; return whether it holds the bottle up."""
    script = docker_flags._GUARD.replace("/proc", str(proc)).replace(f"-t {docker_flags.PAUSE}", "-t 0.1")
    subprocess.run(("bash", "-c", script.replace("-t 0.1 -u", "-t 0.01 -u")), stdin=subprocess.DEVNULL, check=False)
    return (proc / "self" / "comm").exists() and (proc / "self" / "comm").read_text() == docker_flags.PAUSED


def test_a_bottle_without_a_process_of_the_agent_s_is_held_up(proc: Path) -> None:
    assert pauses(proc)


def test_a_process_that_vanishes_during_the_look_is_one(proc: Path) -> None:
    (proc / "9").symlink_to(proc / "nowhere")
    assert not pauses(proc)


def test_a_look_in_which_a_process_began_does_not_count(proc: Path) -> None:
    (proc / "loadavg").unlink()
    os.mkfifo(proc / "loadavg")
    over = threading.Event()

    def move() -> None:
        number = 7
        while not over.is_set():
            with contextlib.suppress(BrokenPipeError):  # the reader has just gone
                (proc / "loadavg").write_text(f"0.1 0.2 0.3 1/9 {(number := number + 1)}\n")

    mover = threading.Thread(target=move)
    mover.start()
    try:
        assert not pauses(proc)
    finally:
        over.set()
        reader = os.open(proc / "loadavg", os.O_RDONLY | os.O_NONBLOCK)  # it may be waiting for one
        mover.join()
        os.close(reader)
