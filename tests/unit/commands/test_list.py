"""The sessions, as a table and as JSON; docker is a fake one."""

import json

from tests.support.labels import LIST, row
from tests.support.owners import OBSERVER
from tests.support.scene import Scene


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


def test_a_container_of_doctors_is_no_session(scene: Scene) -> None:
    scene.rule(LIST, stdout=row("", OBSERVER, "doctor", "") + row("demo-1", OBSERVER))
    assert [session["session"] for session in json.loads(scene.run("list", "--json")[1])] == ["demo-1"]
