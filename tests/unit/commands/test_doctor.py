"""What keeps a start from working, as lines and as JSON; docker is a fake one."""

import json

from tests.support.scene import Scene


def test_a_fault_is_a_line_and_gives_69(scene: Scene) -> None:
    code, out, _ = scene.run("doctor", CLAUDE_BOTTLE_OAUTH_TOKEN="")
    fault, client, *_ = out.splitlines()
    assert (code, fault.split()[:2], client.split()[:3]) == (69, ["FAULT", "token"], ["ok", "docker", "client"])
    assert "claude setup-token" in fault
    findings = json.loads(scene.run("doctor", "--json", CLAUDE_BOTTLE_OAUTH_TOKEN="")[1])
    assert [(finding["name"], finding["fault"]) for finding in findings[:2]] == [
        ("token", True),
        ("docker client", False),
    ]


def test_a_token_that_cannot_work_is_a_fault(scene: Scene) -> None:
    code, out, _ = scene.run("doctor", CLAUDE_BOTTLE_OAUTH_TOKEN="sk-ant-api03-hunter2")
    assert code == 69
    assert out.splitlines()[0].split(maxsplit=2)[2].startswith("CLAUDE_BOTTLE_OAUTH_TOKEN is an API key")
    assert "hunter2" not in out


def test_an_engine_that_does_not_answer_is_a_fault(scene: Scene) -> None:
    scene.rule("version", code=1, stderr="Cannot connect to the Docker daemon\n")
    code, out, _ = scene.run("doctor")
    assert (code, out.splitlines()[-1].split()[:2]) == (69, ["FAULT", "docker"])


def test_the_version_of_claude_in_the_image_is_told(scene: Scene) -> None:
    def told() -> str:
        return next(line.partition(", ")[2] for line in scene.run("doctor")[1].splitlines() if " image  " in line)

    scene.rule("image inspect", stdout='[null,{"claude-bottle.claude-code":"2.1.332"}]\n' * 2, times=1)
    assert told() == "Claude Code 2.1.332"
    scene.rule("image inspect", stdout="[null,null]\n" * 2, times=1)
    assert told() == "Claude Code of an unknown version"
    scene.rule("image inspect", code=1, stderr="Error: No such image\n")
    assert told() == "built by the first start"
