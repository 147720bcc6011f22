"""`python -m tests.engines.receipt`: prove the demo agent's bottle on the engine that answers; exit as verify does."""

import collections
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests import world
from tests.support.sessions import CLI


def main() -> None:
    """Print how many checks ended in which way, on the last line."""
    made = world.up()
    with tempfile.TemporaryDirectory() as folder:
        environ = os.environ | made.environ(made.copy_agents(Path(folder, "agents")))
        done = subprocess.run((str(CLI), "verify", "demo", "--json"), env=environ, stdout=subprocess.PIPE, check=False)
    receipt = json.loads(done.stdout or "{}").get("demo", {})
    verdicts = collections.Counter(check["verdict"] for check in receipt.get("checks", ()))
    print(", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()) or "no receipt")
    sys.exit(done.returncode)


main()
