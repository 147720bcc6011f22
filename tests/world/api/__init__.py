"""The stand-in for Anthropic: one container on the world's network, under the names of the seven hosts."""

import hashlib
import subprocess
from pathlib import Path

from tests.world import certificates
from tests.world.base import IMAGE as BASE
from tests.world.base import built, packed
from tests.world.shell import WorldError, attempt, run, say

NETWORK = "claude-bottle-world"
SUBNET = "198.51.100.64/26"
CONTAINER = "claude-bottle-world-api"
LABEL = "claude-bottle-world.inputs"
HOSTS = (
    "api.anthropic.com",
    "claude.ai",
    "claude.com",
    "code.claude.com",
    "downloads.claude.ai",
    "mcp-proxy.anthropic.com",
    "platform.claude.com",
)
#: not one of Anthropic's: for tests of a bottle's own `egress.allow`
EXTRA_HOST = "extra.test"

DOCKERFILE = f"""\
FROM {BASE}
RUN apt-get update && apt-get install -y --no-install-recommends python3-minimal libpython3-stdlib \\
 && rm -rf /var/lib/apt/lists/*
""".encode()
SERVER = Path(__file__).with_name("server.py")
NOBODY = 65534


def ensure(tls: Path) -> None:
    """Make the network and the container that are not there; the server's certificate and its key are in `tls`."""
    _network()
    _container(built("claude-bottle-world-api", DOCKERFILE), tls)


def remove() -> None:
    """Remove the container and the network."""
    run("docker", "rm", "--force", "--volumes", CONTAINER)
    say(f"removed the container {CONTAINER}")
    if attempt("docker", "network", "inspect", NETWORK).returncode == 0:
        run("docker", "network", "rm", NETWORK)
        say(f"removed the network {NETWORK}")


def _network() -> None:
    if attempt("docker", "network", "inspect", NETWORK).returncode == 0:
        say(f"the network {NETWORK} is there")
        return
    # Not --internal: newer engines resolve no names through such. Without the gateway's address nothing leaves either.
    run(
        "docker",
        "network",
        "create",
        "--subnet",
        SUBNET,
        "--opt",
        "com.docker.network.bridge.inhibit_ipv4=true",
        NETWORK,
    )
    say(f"made the network {NETWORK}, {SUBNET}, with no way out")


def _container(image: str, tls: Path) -> None:
    stream = packed({"server.py": SERVER.read_bytes(), **certificates.served(tls)}, NOBODY)
    inputs = hashlib.sha256(image.encode() + stream).hexdigest()
    state = attempt(
        "docker", "inspect", "--format", '{{.State.Running}} {{index .Config.Labels "' + LABEL + '"}}', CONTAINER
    )
    if state.stdout.decode().split() == ["true", inputs]:
        say("the stand-in for Anthropic's API is running")
        return
    run("docker", "rm", "--force", "--volumes", CONTAINER)
    aliases = tuple(f"--network-alias={host}" for host in (*HOSTS, EXTRA_HOST))
    run("docker", "create", "--name", CONTAINER, "--label", f"{LABEL}={inputs}", "--network", NETWORK, *aliases,
        "--pull", "never", "--init", "--user", str(NOBODY), "--cap-drop", "ALL",
        "--security-opt", "no-new-privileges", image, "python3", "-u", "/srv/server.py")  # fmt: skip
    run("docker", "cp", "-", f"{CONTAINER}:/srv", stdin=stream)
    run("docker", "start", CONTAINER)
    _await_listening()
    say("started the stand-in for Anthropic's API")


def _await_listening() -> None:
    """Wait for the first line of the server's output, or for its end."""
    follow = ("docker", "logs", "--follow", CONTAINER)
    with subprocess.Popen(follow, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as logs:
        first = logs.stdout.readline() if logs.stdout else ""
        if first != "listening\n":
            raise WorldError(f"the stand-in for Anthropic's API does not start: {first}{logs.communicate()[0]}")
        logs.kill()
