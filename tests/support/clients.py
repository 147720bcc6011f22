"""What docker's clients print of an engine that is not there and of an object that is not there, by version."""

_SOCKET = "unix:///var/run/docker.sock"
_GET = 'Get "http://198.51.100.1:2375/v1.51/containers/json": dial tcp 198.51.100.1:2375: i/o timeout'

NO_ENGINE = {
    "20.10": f"Cannot connect to the Docker daemon at {_SOCKET}. Is the docker daemon running?",
    "26.1.5": f"Cannot connect to the Docker daemon at {_SOCKET}. Is the docker daemon running?",
    "28.2.2 not permitted": f"permission denied while trying to connect to the Docker daemon socket at {_SOCKET}",
    "28.5.2 ssh": "error during connect: Get http://x/v1.51/info: command [ssh x]: bash: docker: command not found",
    "29.7.2": f"failed to connect to the docker API at {_SOCKET}; check if the path is correct",
    "29.7.2 not permitted": f"permission denied while trying to connect to the docker API at {_SOCKET}",
    "29.7.2 silent": _GET,
    "any, no context": 'context "x": context not found: open /home/x/.docker/contexts/meta/x: no such file',
}  # fmt: skip
NO_NETWORK = {
    "20.10": "Error: No such network: vpn",
    "26.1.5": "Error response from daemon: network vpn not found",
    "29.7.2": "Error response from daemon: network vpn not found",
    "one to come": "nothing here is called vpn",
}
NO_IMAGE = {
    "20.10": "Error: No such image: x",
    "28.5.2": "Error response from daemon: No such image: x",
    "29.7.2": "error: no such object: x",
    "one to come": "nothing here is called x",
}
