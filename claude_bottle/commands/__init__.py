"""One file a command: what it does and what it returns. Used by `cli.py` alone."""
