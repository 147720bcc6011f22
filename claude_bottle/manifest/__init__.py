"""What the user wrote, as frozen data; every fault is reported at once, with line and column.

Reads the manifests and the files that they name. Used by the plan, the session and the commands.
"""
