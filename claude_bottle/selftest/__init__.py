"""The proof of isolation: query from inside, judge from outside, give a receipt.

Pure; the probe is a program of its own, which runs in the bottle. Used by the session.
"""
