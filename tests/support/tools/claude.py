#!/usr/bin/python3
"""Stands where claude stands: the prompt is a JSON object of commands; tells how each ended, and what it said."""

import json
import subprocess
import sys
import tempfile

SECONDS = 60  # retries on a certificate error would take longer


def run(command: str) -> tuple[int, str]:
    """Run a command in a folder of its own."""
    argv = ("timeout", str(SECONDS), "bash", "-c", command)
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            argv, cwd=folder, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    return done.returncode, done.stdout.decode(errors="replace")


if __name__ == "__main__":
    print(json.dumps({name: run(command) for name, command in json.loads(sys.argv[-1]).items()}))
