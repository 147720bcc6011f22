"""Undo, for the living and for the dead: the stack of a session, its watchdog, and orphans found by their labels.

The only wing with atexit and signal handlers. Used by the session and the commands.
"""
