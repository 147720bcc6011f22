# `make` alone lists the targets.

PYTHON ?= python3
DEV := .venv-dev/bin/python -m
# Lists every shell file, by its first line or its name; not cli.py, which is a shell script only up to its last exec.
SHELL_FILES := find * .ci -type f ! -name '*.py*' -exec awk \
	'FNR == 1 && (/^\#!.*[\/ ](ba|da)?sh( |$$)/ || FILENAME ~ /\.sh$$/) { print FILENAME }' {} +

.PHONY: help demo test lint contract matrix bench picture clean ensurepip

help: ## Show this help
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' Makefile | while IFS='	' read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done

demo: ensurepip ## Run the demo agent against a stand-in for Anthropic's API: no account, no container registry
	$(PYTHON) -m tests.world demo

test: lint ## Run everything that CI runs
	$(PYTHON) -m tests.world up
	$(PYTHON) -m tests.world shells
	$(PYTHON) -m tests.world browser
	$(DEV) pytest -n 4

lint: .venv-dev/stamp ## Check style, types and shell
	$(DEV) ruff check
	$(DEV) ruff format --check
	$(DEV) mypy
	$(SHELL_FILES) | xargs .venv-dev/bin/shellcheck

contract: .venv-dev/stamp ## Test the required behaviour of pipelock: CLAUDE_BOTTLE_PIPELOCK_IMAGE, else the stand-in
	$(PYTHON) -m tests.world up
	$(DEV) pytest -n 4 tests/contract

matrix: .venv-dev/stamp ## Test on the engines of Debian's releases, MATRIX="NAME..." or all; write docs/platforms.md
	$(DEV) tests.engines $(MATRIX)

bench: .venv-dev/stamp ## Measure start, teardown, memory and many sessions at once; write docs/performance.md
	$(PYTHON) -m tests.world up
	$(DEV) tests.bench $(BENCH)

picture: .venv-dev/stamp ## Record a session of the demo agent; write docs/session.svg
	$(DEV) tests.picture

clean: ## Remove virtual environments and caches
	rm -rf .venv .venv.new .venv.old .venv-dev .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv-dev/stamp: requirements-dev.txt | ensurepip
	$(PYTHON) -m venv --clear .venv-dev
	$(DEV) pip install --quiet --no-deps --only-binary=:all: --require-hashes --requirement requirements-dev.txt
	touch $@

# A bare Debian has Python without its venv module.
ensurepip:
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { apt-get update --quiet && apt-get install --quiet --yes python3-venv; }
