"""The limit of a session's time, by a clock that is only counted, and in whole sessions with a fake docker."""

import time

import pytest

from claude_bottle.session import time_limit
from tests.support.scene import NAME, STEPS, TRUSTING, USUAL, Patches, Scene

QUICK: Patches = TRUSTING | {"session.time_limit.GRACE": 0.2}
TERM, KILL = (f"bash -c kill -{name} -1; exit 0" for name in ("TERM", "KILL"))


class Clock:
    """What a thread waits for: claude's end, which comes after so many seconds, or never."""

    def __init__(self, end: float | None = None) -> None:
        self.now, self._end = 0.0, end
        self.said = list[tuple[float, str]]()

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        return self._end is not None and self.now >= self._end

    def notify(self, message: str) -> None:
        self.said.append((self.now, message.partition(",")[0]))


@pytest.mark.parametrize(
    ("seconds", "at", "left"),
    [
        (7200, 6600, "10m"),
        (1200, 600, "10m"),
        (1199, 599.5, "10m"),
        (600, 300, "5m"),
        (5, 2.5, "2s"),
        (1, 0.5, "0s"),
    ],
)
def test_the_end_is_told_ten_minutes_or_half_of_the_time_before(seconds: int, at: float, left: str) -> None:
    clock = Clock()
    reason = time_limit.passed(seconds, clock.wait, clock.notify)
    assert (clock.now, clock.said) == (seconds, [(at, f"the session ends in {left}")])
    assert reason is not None
    assert reason.exit_code == 124


@pytest.mark.parametrize(("end", "told"), [(1, 0), (6599, 0), (6601, 1), (7199, 1)])
def test_claude_that_ends_before_is_let_be(end: float, told: int) -> None:
    clock = Clock(end)
    assert time_limit.passed(7200, clock.wait, clock.notify) is None
    assert len(clock.said) == told


@pytest.mark.parametrize("deaf", [False, True])
def test_claude_is_asked_to_end_and_then_made_to(scene: Scene, deaf: bool) -> None:
    """The one that is deaf is held until the second signal; neither session has the engine remove its bottle."""
    scene.rule(STEPS["claude"], fifo="claude", code=137 if deaf else 143)
    scene.rule(KILL if deaf else TERM, fifo="signal")
    child = scene.launch("start", "demo", "--yes", "--print", "x", "--for", "1s", patches=QUICK)
    with scene.held("claude"), scene.held("signal"):
        pass
    code, _, err = scene.end(child)
    sent = [name for name in (TERM, KILL) if any(event.starts(name) for event in scene.calls)]
    assert sent == [TERM, KILL][: 1 + deaf]
    assert code == 124, err
    assert err.count("claude-bottle: the session has reached its limit of time, 1s, which ended it\n") == 1
    assert err.count("claude-bottle: the session ends in 0s, at its limit of time") == 1
    assert scene.undone == USUAL


def test_a_bottle_in_which_nothing_can_be_ended_is_ended_itself(scene: Scene) -> None:
    scene.rule(STEPS["claude"], fifo="claude", code=137)
    for each in (TERM, KILL):
        scene.rule(each, code=126, stderr="resource temporarily unavailable\n")
    child = scene.launch("start", "demo", "--yes", "--print", "x", "--for", "1s", patches=QUICK)
    with scene.held("claude"):
        while not any(event.ends(STEPS["bottle"]) for event in scene.log):
            time.sleep(0.01)
    assert scene.end(child)[0] == 124


def test_a_session_that_ends_before_has_its_own_code(scene: Scene) -> None:
    scene.rule(STEPS["claude"], code=7)
    code, _, err = scene.run("start", "demo", "--yes", "--for", "1h")
    assert code == 7, err
    assert not [event for event in scene.calls if event.starts("kill -")]


def test_the_option_overrides_the_manifest_and_all_say_so(scene: Scene) -> None:
    (scene.agents / "bottles" / "default.yaml").write_text("limits: {time: 2h}\n")
    for words, shown, seconds in (((), "2h", 7200), (("--for", "3h"), "3h", 10800), (("--for", "90s"), "1m30s", 90)):
        code, out, err = scene.run("start", "demo", "--dry-run", *words)
        assert code == 0, err
        assert f"1024 processes, ends after {shown}\n" in err
        assert f"claude-bottle.time={seconds}" in out
    assert scene.run("start", "demo", "--yes", "--for", "3h")[0] == 0
    [bottle] = [event for event in scene.log if event.starts(f"run --name {NAME} ")]
    assert "claude-bottle.time=10800" in bottle.argv


@pytest.mark.parametrize("words", [("--for", "2"), ("--for", ""), ("--for", "0s"), ("--for", "x" * 500)])
def test_a_wrong_time_is_a_usage_error(scene: Scene, words: tuple[str, ...]) -> None:
    code, out, err = scene.run("start", "demo", *words)
    assert (code, out) == (2, "")
    assert "Invalid value for '--for': " in err
