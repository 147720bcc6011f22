"""A shell in a session's bottle; docker is a fake one."""

import pytest

from tests.support.labels import LIST, row
from tests.support.owners import OBSERVER
from tests.support.scene import Scene


@pytest.mark.parametrize("code", [0, 3])
def test_a_shell_runs_in_the_agents_container_and_gives_its_exit_code(scene: Scene, code: int) -> None:
    scene.rule(LIST, stdout=row("demo-1", OBSERVER))
    scene.rule("exec", code=code, stdout="said\n")
    assert scene.run("shell", "demo", TERM="xterm", LC_ALL="") == (code, "said\n", "")
    [argv] = [event.argv for event in scene.log if event.starts("docker exec")]
    assert argv == (
        "docker",
        "exec",
        "--interactive",
        "--user",
        "1000:1000",
        "--env",
        "TERM",
        "--env",
        "LANG",
        "claude-bottle-demo-1",
        "bash",
    )
