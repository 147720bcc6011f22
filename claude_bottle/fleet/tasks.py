"""A task's container: the launcher on a node, with that node's socket and no network; its labels are its record."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from claude_bottle import PREFIX
from claude_bottle.bottle import docker_flags
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.errors import DockerError, UsageError
from claude_bottle.host import proof
from claude_bottle.host.machine import Machine
from claude_bottle.host.owner import TASK
from claude_bottle.process.engine import Engine
from claude_bottle.repository import quarantine
from claude_bottle.repository.clone import Work

Argv = tuple[str, ...]

OUT = "/out"
GRACE = 720  # seconds for a task that is asked to end: its work has ten minutes to come back
_PATIENCE = 120  # seconds for the payload to come
_PIDS = 256
_MEMORY = (512 << 20) + 3 * quarantine.BUNDLE  # bytes; the work of an agent lies in the tmpfs, as large as it may be
_UNPACKED = 3  # times its size is what a payload takes: packed, unpacked and the work
_NETWORKS = ("EGRESS_NETWORK", "SUBNET")
_LABEL = f"{PREFIX}.task"
_KEYS = ("task", "task-agent", "task-work", "task-proof")
_RUN = f"""
umask 077
mkfifo /tmp/task /tmp/secrets /tmp/go
exec 5<> /tmp/go
read -r -t {_PATIENCE} -u 5 _ || {{ echo "claude-bottle: no payload came within {_PATIENCE} s" >&2; exit 70; }}
exec claude-bottle-launcher run --secrets-fd 3 --out {OUT} < /tmp/task 3< /tmp/secrets 5<&-
"""
# Neither is ever on a disk, or in an environment. $1: the bytes of the secrets, which come first.
_GIVE = """
until [ -p /tmp/go ]; do sleep 0.05; done
echo go > /tmp/go
exec 4> /tmp/task
head --bytes "$1" > /tmp/secrets
exec cat >&4
"""


@dataclass(frozen=True)
class Task:
    """A task on an engine; `code` is None as long as it runs."""

    id: str
    agent: str
    work: str  # `Work.label`; empty without a repository
    proof: str
    created: str  # as docker has it
    code: int | None

    @property
    def container(self) -> str:
        """Return the name of its container."""
        return f"{TASK}{self.id}"

    def is_proven(self, key: bytes) -> bool:
        """Return whether the user who has `key` submitted it, for this repository."""
        return proof.is_proof(self.proof, key, self.id, self.work)

    def as_json(self) -> dict[str, object]:
        """Return it for scripts."""
        return {"task": self.id, "agent": self.agent, "created": self.created, "exit": self.code}


def create(task: str, agent: str, work: Work | None, image: str, size: int, machine: Machine) -> Argv:
    """Return the command that creates a task's container, for a payload of `size` bytes.

    The user's settings for the engine's networks go along as variables.
    """
    label = work.label if work else ""
    values = dict(zip(_KEYS, (task, agent, label, proof.proof(machine.key, task, label)), strict=True))
    variables = {"HOME": "/tmp", "TMPDIR": "/tmp", "CLAUDE_BOTTLE_REMOTE": "1"}  # noqa: S108  (a tmpfs of its own)
    variables |= {f"CLAUDE_BOTTLE_{name}": value for name in _NETWORKS if (value := machine.setting(name))}
    return (
        *("docker", "create", "--name", f"{TASK}{task}", "--hostname", f"{TASK}{task}", "--pull", "never", "--init"),
        *("--network", "none", "--userns", "host", "--user", "0:0", "--read-only", *docker_flags.unprivileged()),
        *("--pids-limit", str(_PIDS), *docker_flags.memory(_MEMORY + _UNPACKED * size), "--stop-timeout", str(GRACE)),
        *("--tmpfs", "/tmp:mode=0700", "--mount", f"type=volume,dst={OUT}", "--no-healthcheck"),  # noqa: S108
        # Whoever may use the engine is root on its machine anyway.
        *("--mount", "type=bind,src=/var/run/docker.sock,dst=/var/run/docker.sock"),
        *("--log-driver", "json-file", "--log-opt", "max-size=20m", "--log-opt", "max-file=2"),
        *docker_flags.label_flags(f"{PREFIX}.{name}={value}" for name, value in values.items()),
        *docker_flags.proxy_variables(),
        *(word for name, value in variables.items() for word in ("--env", f"{name}={value}")),
        *("--entrypoint", "/bin/bash", image, "-c", _RUN),
    )


def give(task: str, secrets: int) -> Argv:
    """Return the command that takes a task's secrets, of so many bytes, and its payload on stdin."""
    return ("docker", "exec", "--interactive", f"{TASK}{task}", "/bin/bash", "-c", _GIVE, "bash", str(secrets))


def listed(env: Mapping[str, str]) -> tuple[Task, ...]:
    """Return the tasks on an engine, the oldest first; raises EngineError or DockerError."""
    labels = (f'{{{{json (.Label "{PREFIX}.{key}")}}}}' for key in _KEYS)
    engine = Engine(env)
    shown = "\t".join((*labels, "{{json .CreatedAt}}", "{{json .Status}}"))
    result = engine.ask("ps", "--all", "--no-trunc", "--filter", f"label={_LABEL}", "--format", shown)
    if not result.ok:
        raise DockerError(f"cannot list the engine's tasks: {result.reason}")
    return tuple(sorted(_parsed(result.stdout), key=lambda task: task.created))


def _parsed(output: bytes) -> Iterator[Task]:
    for line in output.decode(errors="replace").splitlines():
        try:
            task, agent, work, proven, created, status = (str(json.loads(field)) for field in line.split("\t"))
        except ValueError:  # nothing that docker's template prints
            continue
        yield Task(task, agent, work, proven, created, _code(status))


def _code(status: str) -> int | None:
    """Return the exit code in docker's words for a container's state, such as "Exited (0) 2 minutes ago"."""
    if status.startswith("Up"):
        return None
    inside = status.partition("(")[2].partition(")")[0]
    return int(inside) if inside.isdecimal() else DockerError.exit_code  # it was never started


def find(tasks: Iterable[Task], name: str) -> Task:
    """Return the task whose id begins so; raises UsageError if none does, or more than one."""
    tasks = tuple(tasks)
    found = [task for task in tasks if name and task.id.startswith(name)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(escape_control_chars(task.id) for task in found or tasks) or "none"
    raise UsageError(f'{"ambiguous" if found else "no"} task "{escape_control_chars(name)}"; tasks: {names}')
