"""The credential proxy's container: it loads the gate's rules, drops every privilege, then runs nginx."""

from collections.abc import Iterable
from pathlib import Path

from claude_bottle.bottle import docker_flags, home
from claude_bottle.bottle.plan import PROXY_UID
from claude_bottle.egress import credential_proxy
from claude_bottle.egress.credential_proxy import Ended
from claude_bottle.host import installation
from claude_bottle.process.container import clean

Argv = tuple[str, ...]

CAPABILITIES = ("NET_ADMIN", "SETGID", "SETPCAP", "SETUID")  # of its first process, which drops them
PIDS = 32
# Bytes: 128 MiB of bodies at most, each twice for the moment in which it is judged; 500 KiB for each of the bottle's
# 1,000 connections, with the largest head and an answer that nobody reads.
MEMORY = 1024 * 1024 * 1024
PLACE = "/run/proxy"  # its only folder that can be written to
_FOLDER = f"{PLACE}:size=4m,mode=0700,uid={PROXY_UID},gid={PROXY_UID}"
_SECONDS = "45"  # between two lines of a remote launcher's


def files(hosts: Iterable[Ended], settings: bytes, certificates: bytes) -> bytes:
    """Return the tar that the container gets; `certificates`, in PEM, are trusted besides the base image's own."""
    ended = tuple(hosts)
    entries = {
        "nginx.conf": credential_proxy.configuration(ended, more=bool(certificates)),
        "credential_proxy.lua": credential_proxy.program(),
        "openssl.cnf": credential_proxy.authority(ended),
        "settings.json": settings,
        "more-ca.pem": certificates,
    }
    return home.archive([home.Entry(name, data) for name, data in entries.items()], PROXY_UID)


def run(name: str, target: str, image: str, owned: Iterable[str], rules: bytes, tar: bytes, *, remote: bool) -> Argv:
    """Return the command that runs the proxy in the network `target`, such as `container:NAME`, until its stdin ends.

    stdin is `rules`, `tar`, then the lifeline. The first line of output is `up` and the session's authority: PEM, in
    base64.
    """
    words = (str(len(rules)), str(len(tar)), _SECONDS if remote else "")
    script = installation.text(Path(__file__).with_name("credential_proxy.sh"))
    entrypoint, *rest = clean("/bin/bash", "-c", script, "bash", *words)
    return (
        *("docker", "run", "--name", name, "--pull", "never", "--interactive", "--rm", "--sig-proxy=false"),
        *("--network", target),
        *("--user", "0:0", "--read-only", "--tmpfs", _FOLDER),
        # All four go with the first process's root: without the last three it could not drop the first.
        *docker_flags.unprivileged(),
        *(word for capability in CAPABILITIES for word in ("--cap-add", capability)),
        *("--pids-limit", str(PIDS), *docker_flags.memory(MEMORY)),
        *("--ulimit", "core=0", "--ulimit", "nofile=16384:16384"),
        "--no-healthcheck",
        *("--log-driver", "json-file", "--log-opt", "max-size=10m", "--log-opt", "max-file=3"),
        *docker_flags.label_flags(owned),
        *docker_flags.proxy_variables(),
        *("--entrypoint", entrypoint, image, *rest),
    )
