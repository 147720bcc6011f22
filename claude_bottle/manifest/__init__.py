"""What the user wrote, as frozen data; every fault at once, each with its line and column.

Reads the manifests and the files that they name. Used by the plan, the session and the commands.
"""
