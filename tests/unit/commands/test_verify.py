"""The isolation of bottles proved without claude, as lines and as JSON; docker is a fake one."""

import json

from tests.support.scene import TRUSTING, Scene


def test_each_agent_has_its_outcome_and_the_first_fault_gives_the_exit_code(scene: Scene) -> None:
    (scene.agents / "writer.yaml").write_text("description: Writes\n")
    scene.rule("python3 -I -", stdout="{}\n", times=1)
    scene.rule("network create --driver bridge --internal", stdout="0a\n", times=1)
    scene.rule("network create --driver bridge --internal", code=1, stderr="no luck\n")
    code, out, _ = scene.run("verify")
    first, *_, name, error = out.splitlines()
    assert (code, first, name) == (70, "demo", "writer")
    assert "no luck" in error
    outcome = json.loads(scene.run("verify", "demo", "--json")[1])
    assert outcome["demo"]["passed"] is False
    assert "no luck" in outcome["demo"]["error"]


def test_a_bottle_that_is_not_isolated_gives_66(scene: Scene) -> None:
    # The fake docker builds nothing: every check fails, unless there is none.
    code, out, _ = scene.run("verify", "demo", "--json", patches={})
    outcome = json.loads(out)["demo"]
    assert (code, outcome["passed"]) == (66, False)
    assert {check["verdict"] for check in outcome["checks"]} == {"failed"}
    assert scene.run("verify", "demo", patches=TRUSTING)[0] == 0
