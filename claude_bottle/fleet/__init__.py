"""Sessions on machines where nobody waits: one start packed into a file, and the launcher that runs it there."""
