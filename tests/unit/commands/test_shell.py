"""A shell in a session's bottle; docker is a fake one."""

import pytest

from claude_bottle.bottle import passed_on
from tests.support.labels import LIST, row
from tests.support.owners import OBSERVER
from tests.support.scene import Scene


@pytest.mark.parametrize("code", [0, 3])
def test_a_shell_runs_in_the_agents_container_and_gives_its_exit_code(scene: Scene, code: int) -> None:
    scene.rule(LIST, stdout=row("demo-1", OBSERVER))
    scene.rule("exec", code=code, stdout="said\n")
    scene.environ |= {"TERM": "xterm", "TZ": "Europe/Berlin", "NO_COLOR": "1", "LANG": "de_DE.UTF-8", "LC_ALL": ""}
    assert scene.run("shell", "demo") == (code, "said\n", "")
    [argv] = [event.argv for event in scene.log if event.starts("docker exec")]
    given = ("--env", "TERM", "--env", "NO_COLOR", "--env", "TZ")
    bash = passed_on.known(("bash",))
    started = ("docker", "exec", "--interactive", "--user", "1000:1000")
    assert argv == (*started, *given, "claude-bottle-demo-1", *bash)
