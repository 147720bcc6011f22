"""The contract: what the product and its tests rely on in the sidecar's image, as tables of what is sent and expected.

Runs against CLAUDE_BOTTLE_PIPELOCK_IMAGE, else against the stand-in. The engine must be on this machine: the rows are
sent by the tests themselves, through the host's address on the sidecar's inner network.
"""
