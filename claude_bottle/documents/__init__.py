"""Text that others wrote: YAML with positions, YAML edited in place, text made safe to print.

Pure. Used by every other wing.
"""
