"""Clone a repository into a bottle and fetch a branch from it, through git alone.

Output of a bottle is never trusted: its objects pass a quarantine first. Used by `session/` and `commands/`.
"""
