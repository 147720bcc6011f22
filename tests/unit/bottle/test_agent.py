"""What ends the agent's processes if the link is cut."""

import subprocess
from dataclasses import replace
from pathlib import Path

from claude_bottle.bottle import agent
from claude_bottle.bottle.plan import Run
from tests.support import plans


def test_the_end_of_a_session_s_time_does_not_end_the_reaper(tmp_path: Path) -> None:
    plan = replace(plans.with_repository(plans.plan(plans.manifests(tmp_path), Run(terminal=False))), remote=True)
    script = agent.reaper(plan)[-1].replace("kill -KILL -1", "echo over")
    pipe = subprocess.PIPE
    with subprocess.Popen(("bash", "-c", script), stdin=pipe, stdout=pipe) as reaper:
        assert reaper.stdin
        assert reaper.stdout
        assert reaper.stdout.readline() == b"up\n"
        reaper.terminate()
        reaper.stdin.close()
        assert reaper.stdout.read() == b"over\n"
