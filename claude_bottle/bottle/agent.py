"""The agent's container, which is the bottle itself, and claude in it."""

from claude_bottle.bottle import docker_flags, home, job, key_holder, passed_on, reach
from claude_bottle.bottle.plan import PLACEHOLDER, PROXY_PORT, TOKEN, Plan
from claude_bottle.process import container
from claude_bottle.repository.clone import WORKDIR

Argv = tuple[str, ...]

_HOSTNAME = "bottle"
# No "[::1]", which is what some want: httpx fails on it, whatever the host.
ITSELF = ("localhost", "127.0.0.1", "127.0.0.0/8", "::1", "0.0.0.0", _HOSTNAME)  # reached without the proxy
# Each read by a tool that does not look at the image's list, or not at what was added to it: docs/certificates.md.
_TRUST_NAMES = (
    *("SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "PIP_CERT"),
    *("CARGO_HTTP_CAINFO", "AWS_CA_BUNDLE", "DENO_CERT", "BUNDLE_SSL_CA_CERT", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"),
    *("NIX_SSL_CERT_FILE", "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", "HEX_CACERTS_PATH", "HTTPLIB2_CA_CERTS"),
    "PERL_LWP_SSL_CA_FILE",
)
# Java reads no variable for either, so without this one it reaches nothing. It prints it on stderr at each start.
_JAVA = (
    f"-Dhttps.proxyHost=pipelock -Dhttps.proxyPort={PROXY_PORT} "
    f"-Djavax.net.ssl.trustStore={container.HOME}/{home.JAVA_CA}"
)
# Everything below the home comes in one stream, the program that writes the files of trusted certificates with it.
_FILL = f'/usr/bin/head --bytes "$1" | /usr/bin/tar --extract --file - --directory {container.HOME}'
# Behind what the image has there. A start does not fail for it.
_MEMORY = f'{{ printf "\\n%s" "$3" >> {container.HOME}/{home.MEMORY} || :; }}'
_TRUST = f"/usr/bin/python3 -I -S -X utf8 {container.HOME}/{home.TRUST}"
# Beside the rest, which takes as long. If it fails, it prints nothing.
_SEARCH = 'search=$(/usr/bin/head --bytes "$2") && { printf %s "$search" | /usr/bin/python3 -I -S -X utf8 - & }'
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
        *("--network", plan.name, "--ip", str(plan.bottle_address), "--hostname", _HOSTNAME),
        # The lock closes Docker's DNS; these keep an unlocked bottle from asking the host's resolver (CVE-2024-29018).
        *("--add-host", f"pipelock:{plan.sidecar_address}"),
        *("--dns", "0.0.0.0", "--dns-opt", "timeout:1", "--dns-opt", "attempts:1"),
        *docker_flags.without_ipv6(plan),
        *("--user", container.GUARD, "--workdir", WORKDIR),
        *docker_flags.unprivileged(),
        *(() if limits.pids is None else ("--pids-limit", str(limits.pids))),
        *(() if limits.memory is None else docker_flags.memory(limits.memory)),
        # Not --cpus, which is an error above the engine's count.
        *(() if limits.cpus is None else ("--cpu-period", "100000", "--cpu-quota", str(int(limits.cpus * 100_000)))),
        # A core dump would hold the token.
        *("--ulimit", "core=0"),
        "--no-healthcheck",
        # Nothing of the bottle is to stay on the engine's disk.
        *("--log-driver", "none"),
        *docker_flags.labels(plan, "agent"),
        *proxy_variables(plan),
        *key_holder.mounted(plan),
        *trust_variables(),
        *("--entrypoint", first, plan.image.tag, *words, f"echo up; {docker_flags.guard(plan)}"),
    )


def fill(plan: Plan, search: int) -> Argv:
    """Return the command that fills the agent's home, and prints what a search of the bottle has found.

    stdin: a tar, the program of the search, of so many bytes, then the session's authority in base64.
    """
    script = f"{_FILL} && {_MEMORY} && {_SEARCH} && {_TRUST} && wait"
    words = (str(len(plan.home)), str(search), reach.memory(plan.session))
    return container.execute(plan.name, "/bin/bash", "-c", script, "bash", *words)


def reaper(plan: Plan) -> Argv:
    """Return the command that ends every process of the agent when its stdin does, or after 40 s without a line.

    Before the bottle's first process looks for them: it has another user, and cannot do that itself. An agent that ends
    this one loses what it has done if the link is cut, and no more. The end of a session's time, a TERM for all of the
    agent's processes, does not end it.
    """
    script = "trap '' TERM; echo up; while read -r -t 40 _; do :; done; kill -KILL -1"
    return container.execute(plan.name, "/bin/bash", "-c", script)


def processes(plan: Plan) -> Argv:
    """Return the command that lists the names of the bottle's processes: PAUSED is one once it holds files alone."""
    return ("docker", "top", plan.name, "-eo", "pid,comm")


def proxy_variables(plan: Plan) -> Argv:
    """Return the flags that lead every program to the sidecar, but to the bottle itself directly."""
    direct = (*ITSELF, str(plan.bottle_address))
    return docker_flags.proxy_variables(f"http://pipelock:{PROXY_PORT}", direct)


def trust_variables() -> Argv:
    """Return the flags that name the file of all trusted certificates, to whoever asks the environment for one."""
    pairs = [f"{name}={container.HOME}/{home.CA}" for name in _TRUST_NAMES]
    return tuple(word for pair in (*pairs, f"JAVA_TOOL_OPTIONS={_JAVA}") for word in ("--env", pair))


def claude(plan: Plan) -> Argv:
    """Return the command that runs claude in the bottle, its secrets given by name alone."""
    literal = {} if plan.run.login else {TOKEN: PLACEHOLDER}
    literal |= {v.name: v.literal for v in plan.agent.bottle.env if v.literal is not None}
    pairs = (*plan.env_names, *(f"{name}={value}" for name, value in literal.items()))
    return (
        *("docker", "exec", "--interactive", "--user", container.AGENT),
        *(("--tty", *docker_flags.DETACH) if plan.run.terminal else ()),
        *(word for pair in pairs for word in ("--env", pair)),
        plan.name,
        *passed_on.known(job.stoppable(_program(plan)) if plan.run.terminal else _program(plan)),
    )


def _program(plan: Plan) -> Argv:
    if plan.run.login:
        return ("claude", "setup-token")
    headless = () if plan.run.terminal else ("--print",)
    resumed = ("--resume", plan.run.resumed.id) if plan.run.resumed else ()
    claude = ("claude", "--dangerously-skip-permissions", *headless, *resumed, *plan.run.arguments)
    return claude if plan.prompt is None else ("/bin/bash", "-c", _WITH_PROMPT, "bash", *claude)
