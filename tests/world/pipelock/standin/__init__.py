"""A test double of the pipelock proxy, written from its observed behaviour.

It takes the command line and the configuration that claude-bottle gives to pipelock, refuses what pipelock refuses,
and answers and logs as pipelock does. It tunnels CONNECT and nothing else: plain HTTP that the rules let through gets
a 502. It protects nobody: no scanning, no audit, no hardening. `tests/contract` holds it and the real one to one table.
"""
