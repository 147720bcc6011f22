"""What docker's clients print of an engine that is not there and of an object that is not there, by version.

The contract test (tests/integration/test_wording.py) provokes it anew from the client that is installed. No release of
Debian has client 29, so that nothing of it can be run: each of its cases is named as recorded.
"""

RECORDED = "29.7.2 (recorded, not run)"
_SOCKET = "unix:///var/run/docker.sock"
_GET = 'Get "http://198.51.100.1:2375/v1.51/containers/json": dial tcp 198.51.100.1:2375: i/o timeout'

NO_ENGINE = {
    "20.10": f"Cannot connect to the Docker daemon at {_SOCKET}. Is the docker daemon running?",
    "26.1.5": f"Cannot connect to the Docker daemon at {_SOCKET}. Is the docker daemon running?",
    "28.2.2": f"Cannot connect to the Docker daemon at {_SOCKET}. Is the docker daemon running?",
    "28.2.2 refused": "Cannot connect to the Docker daemon at tcp://127.0.0.1:1. Is the docker daemon running?",
    "28.2.2 not permitted": f"permission denied while trying to connect to the Docker daemon socket at {_SOCKET}",
    "28.5.2 ssh": "error during connect: Get http://x/v1.51/info: command [ssh x]: bash: docker: command not found",
    RECORDED: f"failed to connect to the docker API at {_SOCKET}; check if the path is correct",
    f"{RECORDED} not permitted": f"permission denied while trying to connect to the docker API at {_SOCKET}",
    f"{RECORDED} silent": _GET,
    "any, no context": 'context "x": context not found: open /home/x/.docker/contexts/meta/x: no such file',
}  # fmt: skip
NO_NETWORK = {
    "20.10": "Error: No such network: vpn",
    "26.1.5": "Error response from daemon: network vpn not found",
    RECORDED: "Error response from daemon: network vpn not found",
    "one to come": "nothing here is called vpn",
}
NO_IMAGE = {
    "20.10": "Error: No such image: x",
    "28.5.2": "Error response from daemon: No such image: x",
    RECORDED: "error: no such object: x",
    "one to come": "nothing here is called x",
}
_NO_NETWORK = "Error response from daemon: network x not found\nexit status 1"
NOT_REMOVED: dict[str, tuple[int, str]] = {  # exit code and stderr, for want of the object
    "20.10 rm": (1, "Error: No such container: x"),
    "20.10 network rm": (1, "Error: No such network: x"),
    "20.10 volume rm": (1, "Error: No such volume: x"),
    "28.2.2 rm": (1, "Error response from daemon: No such container: x"),
    "28.2.2 rm --force": (0, "Error response from daemon: No such container: x"),
    "28.2.2 network rm": (1, _NO_NETWORK),
    "28.2.2 volume rm": (1, "Error response from daemon: get x: no such volume"),
    f"{RECORDED} rm --force": (0, ""),
    f"{RECORDED} network rm": (1, _NO_NETWORK),
    f"{RECORDED} volume rm": (1, "Error response from daemon: get x: no such volume"),
}
