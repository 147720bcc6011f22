"""The launcher with constants of its modules changed: patched.py '{"cleanup.stack._TIMEOUT": 1}' start demo."""

import importlib
import json
import os
import signal
import sys

from claude_bottle import cli

for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
    signal.signal(number, signal.SIG_DFL)  # what runs the tests may have had them ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
random = os.urandom
os.urandom = lambda size: bytes.fromhex("0a1b2c3d") if size == 4 else random(size)  # the session's id
for name, value in json.loads(sys.argv.pop(1)).items():
    module, _, attribute = name.rpartition(".")
    owner = importlib.import_module(f"claude_bottle.{module}")
    assert hasattr(owner, attribute), name
    setattr(owner, attribute, value)
cli.main(sys.argv[1:], prog_name="cli.py")
