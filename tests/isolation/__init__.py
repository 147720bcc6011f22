"""The leak battery: attacks from inside a real bottle, judged where they would arrive. `rows.py` is the table.

It takes root on Linux and `dockerd`: everything happens on an engine of its own, in namespaces without a way to the
real network (`machine.sh`), so that no packet can reach anybody, and the machine's engine is not touched.
"""
