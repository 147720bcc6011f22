"""The agent's container, which is the bottle itself, and claude in it."""

from claude_bottle.bottle import docker_flags, home, job, key_holder
from claude_bottle.bottle.plan import PROXY_PORT, Plan
from claude_bottle.process import container
from claude_bottle.repository.clone import WORKDIR

Argv = tuple[str, ...]

_IMAGE_CA = "/etc/ssl/certs/ca-certificates.crt"
_TRUST_NAMES = (
    *("SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "PIP_CERT"),
    *("CARGO_HTTP_CAINFO", "AWS_CA_BUNDLE", "DENO_CERT", "BUNDLE_SSL_CA_CERT", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"),
    *("NIX_SSL_CERT_FILE", "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", "HEX_CACERTS_PATH"),
)
# Everything below the home comes in one stream. Where a bottle trusts more than its image does, one file has all of it:
# the image's own list is root's, and nothing runs as root in a bottle.
_FILL = f"/usr/bin/tar --extract --file - --directory {container.HOME}"
_TRUST = f"/bin/cat {_IMAGE_CA} {container.HOME}/{home.MORE_CA} > {container.HOME}/{home.CA}"
# x: $( ) would strip trailing newlines.
_WITH_PROMPT = f'p=$(/bin/cat ~/{home.PROMPT}; echo x); exec "$@" -- "${{p%x}}"'


def run(plan: Plan) -> Argv:
    """Return the command that runs the bottle; its stdin is its lifeline.

    Its first processes, docker's init and the shell that reads the lifeline, are out of the agent's reach: they have a
    user of their own, and everything else is exec'ed as the agent.
    """
    limits = plan.agent.bottle.limits
    first, *words = container.clean("/bin/bash", "-c")
    return (
        *("docker", "run", "--name", plan.name, "--pull", "never"),
        # --init reaps the zombies that tools leave; --rm: a restart would lose the lock; without the last, a signal
        # to the client goes to the bottle.
        *("--interactive", "--rm", "--init", "--sig-proxy=false"),
        *("--network", plan.name, "--ip", str(plan.bottle_address)),
        # The lock closes Docker's DNS; these keep an unlocked bottle from asking the host's resolver (CVE-2024-29018).
        *("--add-host", f"pipelock:{plan.sidecar_address}"),
        *("--dns", "0.0.0.0", "--dns-opt", "timeout:1", "--dns-opt", "attempts:1"),
        *docker_flags.without_ipv6(plan),
        *("--user", container.GUARD, "--workdir", WORKDIR),
        *docker_flags.unprivileged(),
        *("--pids-limit", str(limits.pids), *docker_flags.memory(limits.memory)),
        # Not --cpus, which is an error above the engine's count.
        *("--cpu-period", "100000", "--cpu-quota", str(int(limits.cpus * 100_000))),
        # A core dump would hold the token.
        *("--ulimit", "core=0"),
        "--no-healthcheck",
        # Nothing of the bottle is to stay on the engine's disk.
        *("--log-driver", "none"),
        *docker_flags.labels(plan, "agent"),
        *docker_flags.proxy_variables(f"http://pipelock:{PROXY_PORT}"),
        *key_holder.mounted(plan),
        *trust_variables(plan),
        *("--entrypoint", first, plan.image.tag, *words, f"echo up; {docker_flags.lifeline(plan)}"),
    )


def fill(plan: Plan) -> Argv:
    """Return the command that fills the agent's home from the tar stream on its stdin."""
    return container.execute(plan.name, "/bin/bash", "-c", f"{_FILL} && {_TRUST}" if plan.certificates else _FILL)


def trust_variables(plan: Plan) -> Argv:
    """Return the flags that name the file of all trusted certificates, to whoever asks the environment for one."""
    names = _TRUST_NAMES if plan.certificates else ()
    return tuple(word for name in names for word in ("--env", f"{name}={container.HOME}/{home.CA}"))


def claude(plan: Plan) -> Argv:
    """Return the command that runs claude in the bottle, its secrets given by name alone."""
    literal = [f"{v.name}={v.literal}" for v in plan.agent.bottle.env if v.literal is not None]
    return (
        *("docker", "exec", "--interactive", "--user", container.AGENT),
        *(("--tty", *docker_flags.DETACH) if plan.run.terminal else ()),
        *(word for pair in (*plan.env_names, *literal) for word in ("--env", pair)),
        plan.name,
        *(job.stoppable(_program(plan)) if plan.run.terminal else _program(plan)),
    )


def _program(plan: Plan) -> Argv:
    if plan.run.login:
        return ("claude", "setup-token")
    headless = () if plan.run.terminal else ("--print",)
    claude = ("claude", "--dangerously-skip-permissions", *headless, *plan.run.arguments)
    return claude if plan.prompt is None else ("/bin/bash", "-c", _WITH_PROMPT, "bash", *claude)
