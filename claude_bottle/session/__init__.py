"""The life of one session: plan, confirm, bring up, prove, run claude, monitor, fetch the work.

It may use every wing above it. Used by `commands/`.
"""
