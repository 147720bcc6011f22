"""Sessions seen through labels, and the commands about them; docker is a fake one, the launchers are real children."""

import json
from datetime import UTC, datetime

import pytest

from claude_bottle.errors import UsageError
from claude_bottle.session import registry
from claude_bottle.session.registry import Session
from tests.support.labels import LIST, listed, objects, row
from tests.support.owners import ELSEWHERE, OBSERVER, REBOOTED, launcher
from tests.support.scene import Scene

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def test_a_session_is_found_by_whatever_begins_it_alone() -> None:
    found = [Session(name, ELSEWHERE, NOW) for name in ("demo-0a", "demo-0a1b", "review-0a")]
    assert [registry.find(found, name).id for name in ("r", "demo-0a1", "demo-0a")] == [
        "review-0a",
        "demo-0a1b",
        "demo-0a",
    ]
    with pytest.raises(UsageError, match=r'^"de" could be any of demo-0a, demo-0a1b: '):
        registry.find(found, "de")
    with pytest.raises(UsageError, match=r'^no session "x\\x1b"; there are demo-0a, demo-0a1b, review-0a$'):
        registry.find(found, "x\x1b")
    with pytest.raises(UsageError, match=r'^no session "x"; there is none$'):
        registry.find([], "x")
    with pytest.raises(UsageError, match=r'^no session ""; there are demo-0a$'):
        registry.find(found[:1], "")  # of a shell's variable that was not set


def test_list_tells_agent_bottle_mode_and_counts(scene: Scene) -> None:
    scene.rule(LIST, stdout=row("demo-1", OBSERVER, "sidecar", "") + row("demo-1", OBSERVER, agent="de\x1bmo"))
    opened = json.dumps({"event": "tunnel_open", "target": "a.test:443", "request_id": "req-1"})
    blocked = json.dumps({"event": "blocked", "target": "b.test:443", "request_id": "req-2"})
    scene.rule("logs claude-bottle-demo-1-sidecar", stdout=f"{opened}\n{blocked}\n{blocked}\n")
    code, out, _ = scene.run("list")
    header, line = out.splitlines()
    assert (code, header.split()) == (0, ["SESSION", "AGENT", "BOTTLE", "AGE", "MODE", "ALLOWED", "BLOCKED"])
    first, *_, mode, allowed, refused = line.split()
    assert (first, mode, allowed, refused) == ("demo-1", "headless", "1", "1")
    assert r"de\x1bmo" in line
    [session] = json.loads(scene.run("list", "--json")[1])
    assert session["age"] >= 0
    assert {key: session[key] for key in ("session", "agent", "started", "allowed", "blocked")} == {
        "session": "demo-1", "agent": "de\x1bmo", "started": "2026-11-24T11:00:00+01:00", "allowed": 1, "blocked": 1,
    }  # fmt: skip


@pytest.mark.parametrize(("seconds", "said"), [(59, "59 s"), (60, "1 min"), (7300, "2 h"), (200_000, "2 d")])
def test_an_age_is_told_in_one_unit(seconds: int, said: str) -> None:
    assert registry.duration(seconds) == said


def test_stop_asks_a_launcher_that_lives_here_and_removes_nothing_itself(scene: Scene) -> None:
    with launcher() as (process, owner):
        scene.rule(LIST, stdout=row("demo-1", owner))
        code, out, _ = scene.run("stop", "demo-1", "demo")
        assert (code, out, process.wait()) == (0, "stopped demo-1\n", -15)
    assert scene.undone == []


def test_stop_removes_in_order_what_a_launcher_elsewhere_owns(scene: Scene) -> None:
    scene.rule(LIST, stdout=row("demo-1", ELSEWHERE))
    scene.rule("ps --all --filter label=claude-bottle.session=demo-1", stdout=objects("demo-1", ELSEWHERE))
    assert scene.run("stop", "demo-1")[:2] == (0, "stopped demo-1\n")
    assert [argv[-1] for argv in scene.undone] == ["claude-bottle-demo-1", "claude-bottle-demo-1-sidecar"]


def test_stop_removes_what_a_launcher_that_does_not_end_keeps(scene: Scene) -> None:
    with launcher() as (process, owner):
        process.send_signal(19)  # SIGSTOP: it cannot act on what it is asked
        scene.rule(LIST, stdout=row("demo-1", owner))
        scene.rule("ps --all --filter label", stdout=objects("demo-1", owner))
        code, _, err = scene.run("stop", "demo-1", patches={"commands.running._PATIENCE": 0})
    assert code == 0
    assert "demo-1 does not end by itself" in err
    assert [argv[-1] for argv in scene.undone] == ["claude-bottle-demo-1", "claude-bottle-demo-1-sidecar"]


def test_stop_all_leaves_others_alone(scene: Scene) -> None:
    with launcher() as (process, owner):
        scene.rule(LIST, stdout=row("demo-1", owner) + row("demo-2", ELSEWHERE))
        code, out, _ = scene.run("stop", "--all")
        assert (code, out, process.wait()) == (0, "1 session of others left alone\nstopped demo-1\n", -15)
    assert scene.undone == []


@pytest.mark.parametrize("words", [("stop",), ("stop", "--all", "x"), ("stop", "x"), ("logs", "x"), ("shell", "x")])
def test_a_session_that_is_not_there_is_wrong_usage(scene: Scene, words: tuple[str, ...]) -> None:
    assert scene.run(*words)[0] == 2


def test_cleanup_removes_what_the_dead_left_and_the_network_that_nobody_uses(scene: Scene) -> None:
    listing = objects("dead-1", REBOOTED) + objects("far-1", ELSEWHERE)
    scene.rule("ps --all --filter label", stdout=listing)
    scene.rule("network ls --quiet", stdout="0a1b\n")
    scene.rule("ps --all --filter network=", stdout="claude-bottle-dead-1-sidecar\n")
    would = scene.run("cleanup", "--dry-run")
    assert scene.undone == []
    done = scene.run("cleanup")
    names = ["claude-bottle-dead-1", "claude-bottle-dead-1-sidecar", "claude-bottle-egress"]
    assert [argv[-1] for argv in scene.undone] == names
    assert done[:2] == (0, "".join(
        f"removed {kind} {name}\n" for kind, name in zip(("container", "container", "network"), names, strict=True)
    ) + "1 session of other hosts, not judged\n")  # fmt: skip
    assert would[1] == done[1].replace("removed", "would remove")


@pytest.mark.parametrize(
    ("users", "starting"),
    [("claude-bottle-demo-1-sidecar\n", False), ("", True)],
    ids=["in use", "about to be"],
)
def test_cleanup_keeps_the_network_of_the_living(scene: Scene, users: str, starting: bool) -> None:
    with launcher() as (_, owner):
        scene.rule("network ls --quiet", stdout="0a1b\n")
        network = listed("claude-bottle-demo-1", "demo-1", owner, "network")
        scene.rule("network ls --filter label", stdout=network if starting else "")
        scene.rule("ps --all --filter network=", stdout=users)
        assert scene.run("cleanup")[0] == 0
    assert scene.undone == []


def test_cleanup_that_cannot_remove_says_so_and_goes_on(scene: Scene) -> None:
    scene.rule("ps --all --filter label", stdout=objects("dead-1", REBOOTED))
    scene.rule("rm --force --volumes claude-bottle-dead-1", code=1, stderr="no luck\n", times=1)
    code, out, err = scene.run("cleanup")
    assert (code, out) == (75, "removed container claude-bottle-dead-1-sidecar\n")
    assert "container claude-bottle-dead-1 cannot be removed: no luck" in err


def test_logs_of_a_session_show_one_line_a_request(scene: Scene) -> None:
    scene.rule(LIST, stdout=row("demo-1", OBSERVER))
    events = [
        {"event": "tunnel_open", "target": "a.test:443", "request_id": "req-1", "time": "T"},
        {"event": "blocked", "target": "\u2028b\x1b.test:443", "reason": "not in allowlist", "request_id": "req-2"},
    ]
    scene.rule("logs", stdout="".join(json.dumps(one, ensure_ascii=False) + "\n" for one in events))
    _, out, _ = scene.run("logs", "demo")
    assert [line.split() for line in out.split("\n")] == [
        ["T", "allowed", "a.test"], ["-", "blocked", r"\u2028b\x1b.test", "not", "in", "allowlist"], [],
    ]  # fmt: skip
    assert scene.run("logs", "demo", "--blocked")[1].count("\n") == 1
