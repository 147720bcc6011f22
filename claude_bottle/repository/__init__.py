"""A repository into a bottle, a branch out of it, through git alone.

What a bottle answers is never trusted: it passes a quarantine first. Used by the session and the commands.
"""
