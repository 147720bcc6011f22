#!/bin/bash
# Install, build and test with pip, then with uv, then install for the user.
set -ex
python -m venv .venv
.venv/bin/pip install --require-hashes --requirement requirements.txt
pip wheel --no-deps --wheel-dir dist .
.venv/bin/pip install --no-index dist/thing-*.whl
.venv/bin/python -m unittest discover --verbose
uv venv v
uv pip sync --require-hashes --python v requirements.txt
pip install markupsafe
