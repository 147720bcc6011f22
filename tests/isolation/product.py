"""The product's side of the battery: sessions of ./cli.py start on the battery's machine, and what surrounds them."""

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from claude_bottle.host.machine import TOKEN_VARIABLE
from tests.isolation.machine import GUARD, Machine, until
from tests.isolation.places import TRAPS, Place
from tests.world import REPOSITORY, World
from tests.world.api import EXTRA_HOST, HOSTS

CLI = REPOSITORY / "cli.py"
INSIDE = Path(__file__).with_name("inside")
EGRESS = "claude-bottle-egress"
BOTTLE = "claude-bottle-"
AGENTS = ("genie", "neighbour", "crowded", "flooded", "unsigned")
KEY = "BATTERY_KEY"  # a variable of the host
PIDS, MEMORY = 256, 768 << 20  # the bottles' limits


def manifests(world: World, machine: Machine) -> dict[str, str]:
    """Write the manifests of the agents; return the environment of their sessions."""
    folder = machine.folder / "agents"
    (folder / "bottles").mkdir(parents=True)
    shutil.copytree(INSIDE, folder / "inside", ignore=shutil.ignore_patterns("__pycache__"))
    bottle = {
        "egress": {"allow": list(TRAPS)},
        "credentials": [
            {"host": EXTRA_HOST, "header": {"Authorization": f"Bearer ${{{KEY}}}"}, "paths": ["/acme/site/", "/one"]}
        ],
        "limits": {"cpus": 1, "memory": f"{MEMORY >> 20}m", "pids": PIDS},
        "image": {"dockerfile": "../inside/Dockerfile"},
        "ca_certs": [str(world.ca)],
    }
    (folder / "bottles" / "battery.yaml").write_text(json.dumps(bottle))
    for agent in AGENTS:
        (folder / f"{agent}.yaml").write_text('{"bottle": "battery"}')
    environ = {**os.environ, **machine.env, **world.environ(folder), KEY: f"made-up-{secrets.token_hex(16)}"}
    del environ["CLAUDE_BOTTLE_EGRESS_NETWORK"]  # the product's own is under test
    return environ


def credentials(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the tokens that the sessions' credential proxies set, by host."""
    return {HOSTS[0]: environ[TOKEN_VARIABLE], EXTRA_HOST: environ[KEY]}


@dataclass(frozen=True)
class Session:
    """A session that runs: its launcher, its container, and what it has printed."""

    machine: Machine
    agent: str
    launcher: subprocess.Popen[bytes]
    bottle: str

    @property
    def sidecar(self) -> str:
        """Return the name of its sidecar."""
        return f"{self.bottle}-sidecar"

    @property
    def gate(self) -> str:
        """Return the name of its credential proxy's container."""
        return f"{self.bottle}-gate"

    def results(self) -> int:
        """Return how many tools claude has used so far."""
        return _results(self.machine, self.agent) or 0

    def output(self) -> str:
        """Return what the launcher and claude have printed."""
        return _output(self.machine, self.agent).read_text(errors="replace")

    def release(self) -> None:
        """Let claude's answer go on that waits at `HOLD: <machine>-<agent>`."""
        _released(self.machine, self.agent).touch()

    def shell(self, *words: str) -> tuple[str, ...]:
        """Return the docker command that runs bash as the agent."""
        return ("exec", "--interactive", "--user", "1000:1000", self.bottle, "bash", *words)


@contextmanager
def session(machine: Machine, environ: dict[str, str], agent: str, prompt: str) -> Iterator[Session]:
    """Run a session whose prompt has `<machine>-<agent>` and something that keeps it; end it if it has not ended."""
    argv = (str(CLI), "start", agent, "--yes", "--print", prompt)
    with _output(machine, agent).open("wb") as out:
        launcher = subprocess.Popen(
            argv, env=environ, cwd=machine.folder, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        until(lambda: _results(machine, agent) is not None or launcher.poll() is not None, f"{agent}'s claude asks")
        assert launcher.poll() is None, f"{agent} has ended:\n{_output(machine, agent).read_text(errors='replace')}"
        names = machine.docker("ps", "--filter", "label=claude-bottle.role=agent", "--format", "{{.Names}}").split()
        bottle = next(name for name in names if name.startswith(f"{BOTTLE}{agent}-"))
        yield Session(machine, agent, launcher, bottle)
    finally:
        launcher.terminate()
        launcher.wait(GUARD)
        _released(machine, agent).unlink(missing_ok=True)


def _results(machine: Machine, agent: str) -> int | None:
    """Return how many results of tools claude has sent; None before its first question."""
    own = [one for one in machine.asked() if one["runs"] and f"{machine.name}-{agent}" in one["prompt"]]
    return len(own[-1]["results"]) if own else None


def _output(machine: Machine, agent: str) -> Path:
    return machine.folder / f"{agent}.out"


def _released(machine: Machine, agent: str) -> Path:
    return Path(f"/tmp/released-{machine.name}-{agent}")


@contextmanager
def port(machine: Machine, environ: dict[str, str], session: Session, number: int) -> Iterator[subprocess.Popen[str]]:
    """Have `./cli.py port` run for a session, in the machine's own network; yield it once it can be used."""
    argv = ("nsenter", f"--net=/proc/{machine.pid}/ns/net", str(CLI), "port", session.bottle.removeprefix(BOTTLE))
    pipe = subprocess.PIPE
    with subprocess.Popen((*argv, str(number)), env=environ, text=True, stdout=pipe, stderr=pipe) as run:
        try:
            assert run.stdout
            assert f":{number}\n" in run.stdout.readline()
            yield run
        finally:
            run.terminate()


def place(machine: Machine, genie: Session, neighbour: Session, third: str) -> Place:
    """Return the addresses as seen from the genie's bottle."""
    subnets = [
        IPv4Network(json.loads(machine.docker("network", "inspect", name))[0]["IPAM"]["Config"][0]["Subnet"])
        for name in (genie.bottle, EGRESS)
    ]
    return Place(
        gateway=str(subnets[0][1]),
        broadcast=str(subnets[0].broadcast_address),
        bridge6=machine.bridge6(genie.bottle),
        sidecar=machine.address(genie.sidecar, genie.bottle),
        sidecar_outer=machine.address(genie.sidecar, EGRESS),
        outer_gateway=str(subnets[1][1]),
        other_sidecar=machine.address(neighbour.sidecar, neighbour.bottle),
        other_sidecar_outer=machine.address(neighbour.sidecar, EGRESS),
        neighbour=machine.address(neighbour.bottle, neighbour.bottle),
        neighbour_name=neighbour.bottle,
        third=third,
    )
