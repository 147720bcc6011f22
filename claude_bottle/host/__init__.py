"""Leaf facts of this machine: its environment, the owner of a session, its addresses, the stage dir, and the console.

The only wing that reads the environment and prints. Used by every wing below it.
"""
