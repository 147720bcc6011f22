"""The only code that starts programs: run one, stream through one, put one on a terminal, query the engine.

Knows what docker, git and ssh print and what it means. Touches nothing of a session. Used by every wing below it.
"""
