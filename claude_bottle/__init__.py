"""claude-bottle: run Claude Code in an isolated Docker container that proves its isolation."""

__version__ = "0.4.0"
REFUSED = "claude-bottle.invalid"  # the host the self-test requests from each sidecar; .invalid never exists (RFC 2606)
PREFIX = "claude-bottle"  # of the names and labels of every object a session creates on the engine
