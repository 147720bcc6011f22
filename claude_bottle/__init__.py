"""claude-bottle: run Claude Code in an isolated Docker container that proves its isolation."""

PREFIX = "claude-bottle"  # of every name and label that a session gives to something on the engine
