"""claude-bottle: run Claude Code in an isolated Docker container that proves its isolation."""
