"""What a bottle is made of, as data: plan, images, home, docker flags, sidecar, key-holder, firewall.

Pure but for the files that a manifest names. Used by the self-test, the session and the commands.
"""
