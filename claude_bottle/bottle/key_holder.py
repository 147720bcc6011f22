"""The key-holder: a container without any network that has a session's ssh keys and uses them for its bottle."""

import re

from claude_bottle.bottle import docker_flags
from claude_bottle.bottle.plan import Plan
from claude_bottle.manifest.ssh_hosts import FOLDER, SOCKET, Key, known_hosts
from claude_bottle.process import container

Argv = tuple[str, ...]

USER = container.AGENT  # ssh-agent answers its own user alone
MEMORY = 64 * 1024 * 1024  # bytes; 3 MB were seen
PIDS = 32
_KNOWN_HOSTS = "/tmp/known_hosts"  # noqa: S108  (a tmpfs of the container's own)
# What the kernel says of it, on the first line, which ssh-agent's own ends: NAME=TEXT; with "|" for each new line.
_FACTS = """
for file in /proc/self/{status,mountinfo,net/route,net/if_inet6} \\
    /sys/fs/cgroup/{memory/memory.{,memsw.}limit_in_bytes,pids/pids.max,{memory,memory.swap,pids}.max}; do
    [[ -r $file ]] && text=$(< "$file") && printf '%s=%s;' "${file##*/}" "${text//$'\\n'/|}"
done
"""
# -P: without it ssh-agent loads PKCS#11 libraries on a client's word (CVE-2023-38408); every path begins with "/", so
# none matches. It says where it listens, which is the container's first line, and takes the container along when it
# ends: a bottle can have it killed for its memory.
_SERVE = f'printf %s "$1" > {_KNOWN_HOSTS} || exit; {{ ssh-agent -D -P none -a {SOCKET}; kill $$; }} & '
# What -P does not cover, OpenSSH's own FIDO provider, is a program of its own; so is what loads PKCS#11 libraries.
_NO_HELPERS = {"SSH_SK_HELPER": "/bin/false", "SSH_PKCS11_HELPER": "/bin/false"}
_ENVIRONMENT = {"SSH_AUTH_SOCK": SOCKET, **_NO_HELPERS}
# Not on the engine's disk. Whoever the engine's users are mapped to can use it; nobody else has it mounted.
_IN_MEMORY = ("--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=1m,mode=1777")
_TAKE = 'umask 077; mkdir "$1" && cat > "$1/$2"'
_UNLOCK = 'ssh-add "$@"; code=$?; rm -f -- "${@: -1}"; exit $code'


def volume(plan: Plan) -> Argv:
    """Return the command that makes the volume for the agent's socket."""
    return ("docker", "volume", "create", *_IN_MEMORY, *docker_flags.labels(plan, "key-volume"), plan.key_volume)


def run(plan: Plan) -> Argv:
    """Return the command that runs the key-holder until its stdin, its lifeline, ends."""
    return (
        *("docker", "run", "--name", plan.key_holder, "--pull", "never"),
        *("--interactive", "--rm", "--init", "--sig-proxy=false"),
        # Nothing reaches it but the socket, and from it nothing goes anywhere.
        *("--network", "none"),
        *("--user", USER, "--read-only", "--tmpfs", "/tmp:size=1m,mode=0700,uid=1000,gid=1000"),  # noqa: S108
        *docker_flags.unprivileged(),
        *("--pids-limit", str(PIDS), *docker_flags.memory(MEMORY), "--ulimit", "core=0"),
        "--no-healthcheck",
        *("--log-driver", "none"),
        *("--mount", _mount(plan)),
        *docker_flags.labels(plan, "key-holder"),
        *docker_flags.proxy_variables(),
        *variables(plan),
        *(word for name, value in _NO_HELPERS.items() for word in ("--env", f"{name}={value}")),
        # The base image, as for lock and gate: what a bottle's own Dockerfile brings does not see the keys.
        *(
            "--entrypoint",
            "bash",
            plan.base.tag,
            "-c",
            _FACTS + _SERVE + docker_flags.lifeline(plan),
            "bash",
            known_hosts(plan.agent.bottle.ssh),
        ),
    )


def mounted(plan: Plan) -> Argv:
    """Return the flags that give the bottle the socket: it can connect to it, and neither remove nor replace it."""
    if not plan.keys:
        return ()
    return ("--mount", f"{_mount(plan)},readonly,volume-nocopy", *variables(plan))


def variables(plan: Plan) -> Argv:
    """Return the flags that tell ssh and ssh-add where the socket is."""
    return ("--env", f"SSH_AUTH_SOCK={SOCKET}") if plan.keys else ()


def add(plan: Plan, key: Key) -> Argv:
    """Return the command that reads a private key from stdin, for its hosts alone; an encrypted one is put aside."""
    take = ("/bin/bash", "-c", _TAKE, "bash", _folder(key), _file(key))
    program = take if key.file.encrypted else ("/usr/bin/ssh-add", *_constrained(key), "-")
    return container.execute(plan.key_holder, *program, env=_ENVIRONMENT)


def unlock(plan: Plan, key: Key) -> Argv:
    """Return the command that asks for an encrypted key's passphrase, on a terminal, and removes what was taken."""
    terminal = ("--tty", *docker_flags.DETACH, "--workdir", _folder(key))
    shell = ("/bin/bash", "-c", _UNLOCK, "bash", *_constrained(key), _file(key))
    return container.execute(plan.key_holder, *shell, env=_ENVIRONMENT, flags=terminal)


def _constrained(key: Key) -> Argv:
    places = (word for host in key.hosts for word in ("-h", f"{host.user}@{host.alias}"))
    return ("-q", "-H", _KNOWN_HOSTS, *places)


def _mount(plan: Plan) -> str:
    # Labelled here too: a client in flight makes anew what teardown has just removed.
    return f"type=volume,src={plan.key_volume},dst={FOLDER},{docker_flags.volume_labels(plan, 'key-volume')}"


def _folder(key: Key) -> str:
    return f"/tmp/{key.step}"  # noqa: S108  (a tmpfs of the container's own)


def _file(key: Key) -> str:
    """Return a name for the file that ssh-add shows when it asks."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", key.file.path.name).lstrip("-.") or "key"
