"""Which bottles are asked what their agents do, and what counts as an answer; docker is a fake one."""

from claude_bottle.bottle.state import Usage
from claude_bottle.session import registry, states
from claude_bottle.session.states import State
from tests.support.labels import LIST, row
from tests.support.owners import OBSERVER
from tests.support.scene import Scene

USED = "working \n10.000000 1000000000\n10.250000 1125000000\n5000\n1000\n"


def words(scene: Scene, *rows: str) -> list[str]:
    scene.rule(LIST, stdout="".join(rows))
    return [state.word for state in states.read(scene.environ, registry.listed(scene.environ), usage=False)]


def test_each_bottle_is_asked_once(scene: Scene) -> None:
    for number, said in enumerate(("waits   ", "working ", "rubbish!")):
        scene.rule(f"claude-bottle-demo-{number} ", stdout=said)
    assert words(scene, *(row(f"demo-{number}", OBSERVER) for number in range(3))) == ["waits", "working", "?"]
    assert len([event for event in scene.log if event.starts("exec")]) == 3


def test_no_process_is_started_in_a_bottle_during_its_set_up(scene: Scene) -> None:
    """It would spoil the self-test, which looks at every process."""
    rows = (
        *(row("lock-1", OBSERVER), row("lock-1", OBSERVER, "lock")),
        *(row("probe-1", OBSERVER), row("probe-1", OBSERVER, "probe")),
        row("gate-1", OBSERVER, signs="a.test"),
        row("side-1", OBSERVER, "sidecar"),
    )
    assert sorted(words(scene, *rows)) == ["-", "starting", "starting", "starting"]
    assert [event for event in scene.log if event.starts("exec")] == []


def test_with_its_proxy_there_a_bottle_is_asked(scene: Scene) -> None:
    scene.rule("exec", stdout="waits   ")
    rows = (row("gate-1", OBSERVER, role, signs="a.test") for role in ("agent", "gate"))
    assert words(scene, *rows) == ["waits"]


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
