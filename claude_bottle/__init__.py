"""claude-bottle: run Claude Code in an isolated Docker container that proves its isolation."""

__version__ = "0.4.0"

REFUSED = "claude-bottle.invalid"  # what the self-test asks of each sidecar; nobody's (RFC 2606)
PREFIX = "claude-bottle"  # of every name and label that a session gives to something on the engine
