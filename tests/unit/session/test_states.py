"""Which bottles are asked what their agents do, and what counts as an answer; docker is a fake one."""

from datetime import UTC, datetime

from claude_bottle.bottle.state import Usage
from claude_bottle.session import registry, states
from claude_bottle.session.states import State
from tests.support.labels import LIST, row
from tests.support.owners import OBSERVER
from tests.support.scene import Scene

USED = "working \n10.000000 1000000000\n10.250000 1125000000\n5000\n1000\n"


TOP = "root 7 6 0 10:00 ? 00:00:01 claude --dangerously-skip-permissions --print"


def words(scene: Scene, *rows: str) -> list[str]:
    scene.rule(LIST, stdout="".join(rows))
    return [state.word for state in states.read(scene.environ, registry.listed(scene.environ), usage=False)]


def just_now(line: str) -> str:
    """Return a container's line as of one that was created a moment ago."""
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} +0000 UTC\t{line.partition(chr(9))[2]}"


def test_each_bottle_is_asked_once(scene: Scene) -> None:
    for number, said in enumerate(("waits   ", "working ", "rubbish!")):
        scene.rule(f"claude-bottle-demo-{number} ", stdout=said)
    assert words(scene, *(row(f"demo-{number}", OBSERVER) for number in range(3))) == ["waits", "working", "?"]
    assert len([event for event in scene.log if event.starts("exec")]) == 3


def test_no_process_is_started_in_a_bottle_during_its_set_up(scene: Scene) -> None:
    """It would spoil the self-test, which looks at every process."""
    scene.rule("top claude-bottle-none-1", code=1, stderr="Error: ps failed\n")
    scene.rule("top claude-bottle-home-1", stdout="agent 7 6 0 10:00 ? 00:00:01 tar --extract\n")
    rows = (
        *(row("lock-1", OBSERVER), row("lock-1", OBSERVER, "lock")),
        *(row("probe-1", OBSERVER), row("probe-1", OBSERVER, "probe")),
        *(just_now(row("none-1", OBSERVER)), just_now(row("home-1", OBSERVER))),
        row("side-1", OBSERVER, "sidecar"),
    )
    assert sorted(words(scene, *rows)) == ["-", *["starting"] * 4]
    assert [event for event in scene.log if event.starts("exec")] == []


def test_a_young_bottle_in_which_claude_runs_is_asked(scene: Scene) -> None:
    scene.rule("top claude-bottle-demo-1", stdout=f"{TOP}\n")
    scene.rule("exec", stdout="waits   ")
    assert words(scene, just_now(row("demo-1", OBSERVER))) == ["waits"]


def test_what_fails_says_too_much_or_does_not_answer_is_unknown(scene: Scene) -> None:
    scene.rule("claude-bottle-fails-1 ", code=1, stderr="Error: container is paused\n")
    scene.rule("claude-bottle-much-1 ", stdout="waits   " * 1000)
    scene.rule("claude-bottle-slow-1 ", fifo="never")
    assert words(scene, *(row(f"{name}-1", OBSERVER) for name in ("fails", "much", "slow"))) == ["?", "?", "?"]


def test_the_usage_is_asked_for_in_the_same_exec(scene: Scene) -> None:
    scene.rule(LIST, stdout=row("demo-1", OBSERVER))
    scene.rule("exec", stdout=USED)
    found = states.read(scene.environ, registry.listed(scene.environ), usage=True)
    assert found == [State("working", Usage(50.0, 4000))]
    assert len([event for event in scene.log if event.starts("exec")]) == 1


def test_without_sessions_nothing_is_asked(scene: Scene) -> None:
    assert words(scene) == []
