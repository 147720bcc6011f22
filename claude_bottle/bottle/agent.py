"""The agent's container, which is the bottle itself, and claude in it."""

from claude_bottle.bottle import docker_flags, home, job, key_holder
from claude_bottle.bottle.plan import PROXY_PORT, Plan
from claude_bottle.repository.clone import WORKDIR

Argv = tuple[str, ...]

# x: $( ) would strip trailing newlines.
_WITH_PROMPT = f'p=$(cat ~/{home.PROMPT}; echo x); exec "$@" -- "${{p%x}}"'


def run(plan: Plan) -> Argv:
    """Return the command that runs the bottle; its stdin is the tar stream of its home, then its lifeline."""
    limits = plan.agent.bottle.limits
    fill = docker_flags.fed(plan.home, "tar --extract --file - --directory /home/agent")
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
        *("--user", "1000:1000", "--workdir", WORKDIR),
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
        *docker_flags.described(plan),
        *docker_flags.proxy_variables(f"http://pipelock:{PROXY_PORT}"),
        *key_holder.mounted(plan),
        *("--entrypoint", "bash", plan.image.tag, "-c", f"{fill} && {docker_flags.lifeline(plan)}"),
    )


def claude(plan: Plan) -> Argv:
    """Return the command that runs claude in the bottle, its secrets given by name alone."""
    literal = [f"{v.name}={v.literal}" for v in plan.agent.bottle.env if v.literal is not None]
    return (
        *("docker", "exec", "--interactive"),
        *(("--tty", *docker_flags.DETACH) if plan.run.terminal else ()),
        *(word for pair in (*plan.env_names, *literal) for word in ("--env", pair)),
        plan.name,
        *(job.stoppable(_program(plan)) if plan.run.terminal else _program(plan)),
    )


def _program(plan: Plan) -> Argv:
    headless = () if plan.run.terminal else ("--print",)
    claude = ("claude", "--dangerously-skip-permissions", *headless, *plan.run.arguments)
    return claude if plan.prompt is None else ("bash", "-c", _WITH_PROMPT, "bash", *claude)
