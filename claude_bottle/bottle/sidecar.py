"""The sidecar: the container between a bottle and the internet, in which pipelock runs."""

from claude_bottle.bottle import docker_flags
from claude_bottle.bottle.plan import PROXY_PORT, SIDECAR_UID, Plan

Argv = tuple[str, ...]

_MEMORY = 256 * 1024 * 1024  # bytes for a sidecar; 80 MB were seen with 1023 tunnels


def create(plan: Plan) -> Argv:
    """Return the command that makes the sidecar, on its way out."""
    listen = f"{plan.sidecar_address}:{PROXY_PORT}"
    return (
        *("docker", "create", "--name", plan.sidecar, "--pull", "never"),
        *("--network", plan.egress.name),
        # Nothing that it is asked can change it; its configuration lies in a volume.
        *("--user", f"{SIDECAR_UID}:{SIDECAR_UID}", "--read-only"),
        *docker_flags.unprivileged(),
        *("--pids-limit", "256", *docker_flags.memory(_MEMORY)),
        # A container inherits 1, and a raw frame through the sidecar would reach the outside.
        *("--sysctl", "net.ipv4.ip_forward=0"),
        *docker_flags.without_ipv6(plan),
        # The image's own check asks 127.0.0.1, where nothing listens.
        "--no-healthcheck",
        *("--log-driver", "json-file", "--log-opt", "max-size=10m", "--log-opt", "max-file=3"),
        *("--mount", f"type=volume,dst=/config,{docker_flags.volume_labels(plan, 'config')}"),
        *docker_flags.labels(plan, "sidecar"),
        *docker_flags.proxy_variables(),
        # The credential proxy stands for these.
        *(word for end in plan.ended for word in ("--add-host", f"{end.name}:{end.address}")),
        plan.sidecar_image,
        # Strict on the command line as well: without it a file that says less is an open proxy.
        *("run", "--config", "/config/pipelock.yaml", "--mode", "strict", "--listen", listen),
    )


def connect(plan: Plan) -> Argv:
    """Return the command that connects it with its bottle's network."""
    return (
        *("docker", "network", "connect", "--ip", str(plan.sidecar_address), "--alias", "pipelock"),
        *(plan.name, plan.sidecar),
    )
