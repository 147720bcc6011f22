"""Every command with its outputs closed, full or gone: no traceback, and an exit code that the README has."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import systems
from tests.support.labels import LIST, row
from tests.support.owners import OBSERVER
from tests.support.scene import PATCHED, STEPS, TRUSTING, Scene

FULL = "claude-bottle: system error: {}No space left on device\n"
PRINTING = [
    ("--help",), ("start", "--help"), ("--version",), ("check",), ("agents",), ("list",), ("list", "--json"),
    ("doctor",), ("completion", "bash"), ("logs", "demo"), ("start", "demo", "--dry-run"), ("diff", "demo"),
]  # fmt: skip


def run(scene: Scene, redirections: str, *words: str, cwd: Path | None = None) -> tuple[int, str, str]:
    """Run the launcher by a shell that redirects its streams."""
    if "/dev/full" in redirections:
        systems.full()
    shell = ("/bin/sh", "-c", f'exec "$@" {redirections}', "sh")
    done = subprocess.run(
        (*shell, sys.executable, str(PATCHED), json.dumps(TRUSTING), *words), check=False, text=True,
        env=scene.environ, cwd=cwd or scene.folder, stdin=subprocess.DEVNULL, capture_output=True,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert list(scene.tmp.iterdir()) == []
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def busy(scene: Scene) -> Scene:
    """A scene with a session that has something to print."""
    label = f"{'1' * 40} {'1' * 40} {scene.folder}"
    scene.rule(LIST, stdout=row("demo-1", OBSERVER, repository=label))
    scene.rule("logs", stdout=json.dumps({"event": "tunnel_open", "target": "a.test:443"}) + "\n")
    scene.rule(" - diff /work ", stdout="+1\n")
    return scene


@pytest.mark.parametrize("words", PRINTING, ids=" ".join)
def test_a_result_that_cannot_be_written_is_one_line_and_a_code(busy: Scene, words: tuple[str, ...]) -> None:
    code, _, err = run(busy, ">/dev/full", *words)
    assert code == 71
    assert err.splitlines(keepends=True)[-1] in (FULL.format(""), FULL.format("stdout: "))
    assert len(err.splitlines()) == 1 or words[-1] == "--dry-run"  # which shows the preflight
    assert run(busy, ">/dev/full 2>/dev/full", *words)[0] == 71


@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", ">&-", "<&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("words", [("--version",), ("check",), ("list",), ("doctor",)], ids=" ".join)
def test_what_nobody_wants_is_no_failure(busy: Scene, streams: str, words: tuple[str, ...]) -> None:
    whole = run(busy, "", *words)
    code, out, _ = run(busy, streams, *words)
    assert code == whole[0]
    assert bool(out) == (">&-" not in streams.split())


@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", ">&-", ">/dev/full", "<&- >&- 2>&-", ">/dev/full 2>&-"])
@pytest.mark.parametrize(("words", "wanted"), [(("nonsense",), 2), (("check", "nobody"), 64)], ids=["usage", "fault"])
def test_an_error_keeps_its_code_and_out_of_the_results(
    scene: Scene, streams: str, words: tuple[str, ...], wanted: int
) -> None:
    code, out, _ = run(scene, streams, *words)
    assert (code, out) == (wanted, "")


@pytest.mark.parametrize("streams", ["2>&-", "2>/dev/full", "<&-", "<&- >&- 2>&-"])
def test_a_session_runs_without_anybody_to_hear_of_it(scene: Scene, streams: str) -> None:
    scene.rule("image inspect", code=1, stderr="Error: No such image: x")  # it is built, which is shown
    scene.rule(STEPS["claude"], stdout="the answer\n")
    code, out, _ = run(scene, streams, "start", "demo", "--yes", "--print", "a question")
    assert code == 0
    assert out == ("" if ">&-" in streams.split() else "the answer\n")
    assert [event.more["code"] for event in scene.calls if event.ends("docker build ")] == [0]


def test_a_directory_that_is_gone_is_one_line(scene: Scene) -> None:
    gone = scene.folder / "gone"
    gone.mkdir()
    words = ("/bin/sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh", sys.executable, str(PATCHED), "{}")
    done = subprocess.run(
        (*words, "start", "demo", "--dry-run", "--repo", "."), cwd=gone, capture_output=True, text=True, check=False,
        env={**scene.environ, "PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (
        71, "", "claude-bottle: system error: the current directory: No such file or directory\n",
    )  # fmt: skip


@pytest.mark.parametrize("lacking", ["HOME", "TMPDIR"])
def test_a_home_or_temporary_directory_that_is_not_there_is_no_failure(scene: Scene, lacking: str) -> None:
    scene.environ[lacking] = "/nonexistent"
    assert run(scene, "", "start", "demo", "--dry-run")[0] == 0
    del scene.environ[lacking]
    assert run(scene, "", "start", "demo", "--dry-run")[0] == 0
