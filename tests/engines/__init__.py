"""The product's tests on the engines of Debian's releases, each with its own docker client, git, OpenSSH and Python.

`make matrix` runs them and writes the table in docs/platforms.md. It takes root on Linux, and the machine's own engine,
which lends the images that no registry has to be asked for.
"""
