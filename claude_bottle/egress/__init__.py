"""Which hosts may be reached: their names, the configuration of the proxy, its log.

Pure but for the data files in `pipelock/`. Used by the manifest, the plan, the monitor and the commands.
"""
