"""The life of one session: plan it, ask, bring it up, prove it, run claude, watch it, bring its work back.

Used by the commands.
"""
