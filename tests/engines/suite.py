"""Run the product's tests on an engine."""

import subprocess
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from tests.engines.engine import ENGINES, Engine
from tests.engines.report import Row, counts, summary
from tests.world import REPOSITORY
from tests.world.shell import attempt, run, say

VERSIONS = r"""
docker version --format '{{.Server.Version}}'
docker version --format '{{.Client.Version}}'
git --version | cut -d ' ' -f 3
ssh -V 2>&1 | sed -E 's/^OpenSSH_([^ ,]+).*/\1/'
python3 --version | cut -d ' ' -f 2
"""
ALL = ("-m", "presets or not presets")
WITHOUT_UNITS = ("tests/contract", "tests/integration", "tests/isolation", *ALL)
PYTEST = (".venv-dev/bin/python", "-m", "pytest", "-n", "4", "--color=no")


def tested(engine: Engine, only: Sequence[str]) -> Row:
    """Return an engine's row: its versions, its receipt, and the counts of all tests, or of those that `only` names.

    An engine with flags of its own has no unit tests: those of its release have been run, and know no engine.
    """
    start = time.monotonic()
    versions = engine.output("bash", "-c", VERSIONS).splitlines()
    say(f"{engine.name}: engine, client, git, OpenSSH and Python are {', '.join(versions)}")
    receipt = attempt(*engine.argv(".venv-dev/bin/python", "-m", "tests.engines.receipt"))
    checks = (receipt.stdout or b"no receipt").decode().splitlines()[-1]
    say(f"{engine.name}: receipt: {checks}\n{receipt.stderr.decode(errors='replace') if receipt.returncode else ''}")
    usual = WITHOUT_UNITS if ENGINES[engine.name].flags else ALL
    code, lines = _printed(*engine.argv(*PYTEST, *(only or usual)))
    alone: list[str] = []
    if code == 1:  # tests failed; any other code is an error of pytest's own
        code, alone = _printed(*engine.argv("bash", ".ci/again"))
    return Row(
        name=engine.name,
        versions=tuple(versions),
        checks=checks,
        counts=counts(lines, alone),
        minutes=round((time.monotonic() - start) / 60),
        run=f"{datetime.now(UTC):%Y-%m-%d}, {run('git', '-C', str(REPOSITORY), 'describe', '--always').strip()}",
        passed=receipt.returncode == 0 and code == 0,
        summary=summary(alone or lines),
    )


def _printed(*argv: str) -> tuple[int, list[str]]:
    """Run a command whose output is printed as it comes; return its exit code and its lines."""
    lines = []
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line.rstrip())
    return process.returncode, lines
