"""The sessions, as a table and as JSON; docker is a fake one."""

import json

import pytest

from tests.support.labels import LIST, row
from tests.support.owners import OBSERVER
from tests.support.scene import Scene


def test_list_tells_agent_state_and_counts_and_json_bottle_and_mode(scene: Scene) -> None:
    scene.rule(LIST, stdout=row("demo-1", OBSERVER, "sidecar", "") + row("demo-1", OBSERVER, agent="de\x1bmo"))
    opened = json.dumps({"event": "tunnel_open", "target": "a.test:443", "request_id": "req-1"})
    blocked = json.dumps({"event": "blocked", "target": "b.test:443", "request_id": "req-2"})
    scene.rule("logs claude-bottle-demo-1-sidecar", stdout=f"{opened}\n{blocked}\n{blocked}\n")
    scene.rule("exec", stdout="waits   ")
    code, out, _ = scene.run("list")
    header, line = out.splitlines()
    assert (code, header.split()) == (0, ["SESSION", "AGENT", "STATE", "AGE", "ALLOWED", "BLOCKED", "BRANCH"])
    first, agent, state, *_, allowed, refused, branch = line.split()
    assert (first, agent, state, allowed, refused, branch) == ("demo-1", r"de\x1bmo", "waits", "1", "1", "-")
    [session] = json.loads(scene.run("list", "--json")[1])
    assert session["age"] >= 0
    assert {key: value for key, value in session.items() if key != "age"} == {
        "session": "demo-1", "name": None, "agent": "de\x1bmo", "bottle": "default",
        "started": "2026-11-24T11:00:00+01:00", "left": None, "mode": "headless", "state": "waits",
        "allowed": 1, "blocked": 1, "branch": None,
    }  # fmt: skip


def test_list_counts_the_requests_inside_ended_tunnels_instead_of_the_tunnels(scene: Scene) -> None:
    """A session that an older version started has no such label, and its tunnels count."""
    scene.rule(LIST, stdout=row("demo-1", OBSERVER, signs="a.test,c.test:8443") + row("old-1", OBSERVER))
    opened = [{"event": "tunnel_open", "target": target} for target in ("a.test:443", "b.test:443", "c.test:8443")]
    inside = [{"event": "request", "verdict": one, "host": "a.test"} for one in ("allowed", "allowed", "blocked")]
    for name in ("demo-1-sidecar", "old-1-sidecar"):
        scene.rule(f"logs claude-bottle-{name}", stdout="".join(f"{json.dumps(one)}\n" for one in opened))
    scene.rule("logs claude-bottle-demo-1-gate", stdout="".join(f"{json.dumps(one)}\n" for one in inside))
    listed = {one["session"]: (one["allowed"], one["blocked"]) for one in json.loads(scene.run("list", "--json")[1])}
    assert listed == {"demo-1": (1 + 2, 1), "old-1": (3, 0)}
    assert not [event for event in scene.log if event.starts("logs claude-bottle-old-1-gate")]


def test_list_counts_what_there_is_of_a_session_that_starts(scene: Scene) -> None:
    scene.rule(LIST, stdout=row("demo-1", OBSERVER, signs="a.test"))
    blocked = json.dumps({"event": "blocked", "target": "b.test:443"})
    scene.rule("logs claude-bottle-demo-1-sidecar", stdout=f"{blocked}\n")
    scene.rule("logs claude-bottle-demo-1-gate", code=1, stderr="Error: No such container\n")
    [listed] = json.loads(scene.run("list", "--json")[1])
    assert (listed["allowed"], listed["blocked"]) == (0, 1)


def test_list_shows_what_remains_of_a_limit_of_time(scene: Scene) -> None:
    """Of a session that is older than its limit by now, nothing; a label that is no number is no limit."""
    rows = (("a-1", "7200"), ("b-1", "99999999"), ("c-1", "-5"), ("d-1", "1e3"), ("e-1", ""), ("f-1", "9" * 99))
    scene.rule(LIST, stdout="".join(row(name, OBSERVER, time=time) for name, time in rows))
    listed = {one["session"]: one for one in json.loads(scene.run("list", "--json")[1])}
    assert [one["left"] for one in listed.values()] == [0, 99999999 - listed["b-1"]["age"], None, None, None, None]
    first, second, third, *_ = scene.run("list")[1].splitlines()[1:]
    assert "d, 0 s left " in first
    assert " d left " in second
    assert "left" not in third


def test_a_container_of_doctors_is_no_session(scene: Scene) -> None:
    scene.rule(LIST, stdout=row("", OBSERVER, "doctor", "") + row("demo-1", OBSERVER))
    assert [session["session"] for session in json.loads(scene.run("list", "--json")[1])] == ["demo-1"]


USED = "working \n10.000000 1000000000\n10.250000 1125000000\n5242880\n0\n"


def test_the_usage_is_there_if_wanted(scene: Scene) -> None:
    scene.rule(LIST, stdout=row("demo-1", OBSERVER) + row("demo-2", OBSERVER))
    scene.rule("exec --interactive --user 1000:1000 claude-bottle-demo-1 ", stdout=USED)
    header, first, second = scene.run("list", "--stats")[1].splitlines()
    assert header.split()[-3:] == ["CPU", "MEMORY", "BRANCH"]
    assert first.split()[-4:] == ["50%", "5", "MiB", "-"]
    assert second.split()[-3:] == ["-", "-", "-"]
    both = json.loads(scene.run("list", "--stats", "--json")[1])
    assert [(one["cpu"], one["memory"]) for one in both] == [(50.0, 5 << 20), (None, None)]


@pytest.mark.parametrize(
    ("session", "header"),
    [
        ("demo-0a1b2c3d", "SESSION STATE AGE ALLOWED BLOCKED CPU MEMORY BRANCH"),
        (f"{'long-name-' * 2}0a1b2c3d", "SESSION STATE AGE ALLOWED BLOCKED CPU MEMORY"),
        (f"{'a' * 30}-0a1b2c3d", "SESSION STATE ALLOWED BLOCKED CPU MEMORY"),
    ],
)
def test_the_table_fits_80_columns(scene: Scene, session: str, header: str) -> None:
    there = row(session, OBSERVER, agent=session[:-9], repository="a b /c", manifest="/m")
    scene.rule(LIST, stdout=there)
    scene.rule("exec", stdout=USED)
    lines = scene.run("list", "--stats")[1].splitlines()
    assert lines[0].split() == header.split()
    assert max(map(len, lines)) <= 80
    assert json.loads(scene.run("list", "--json")[1])[0]["branch"] == f"bottle/{session}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--watch",), "claude-bottle: --watch needs a terminal; list --json is for programs\n"),
        (("--watch", "--json"), "--watch and --json exclude each other"),
    ],
)
def test_a_watch_needs_a_terminal(scene: Scene, words: tuple[str, ...], said: str) -> None:
    code, out, err = scene.run("list", *words)
    assert (code, out) == (2, "")
    assert said in err
    assert scene.log == []
