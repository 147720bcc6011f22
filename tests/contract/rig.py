"""Make what a sidecar needs around it: an inner network, an outer one, and an internet of ours on that."""

import contextlib
import ipaddress
import json
import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from claude_bottle.bottle import home
from tests.contract.wire import Proxy
from tests.world import standin
from tests.world.shell import WorldError, attempt, run

OUTER, INNER = "198.51.100.192/27", "10.214.0.0/16"
PORT, NOBODY, SECONDS = 8888, 65534, 60.0
HARDENED = (
    "--pull", "never", "--user", f"{NOBODY}:{NOBODY}", "--read-only", "--cap-drop", "ALL",
    "--security-opt", "no-new-privileges", "--sysctl", "net.ipv4.ip_forward=0",
    "--sysctl", "net.ipv6.conf.all.disable_ipv6=1", "--pids-limit", "256", "--memory", "256m", "--memory-swap", "256m",
    "--no-healthcheck", "--mount", "type=volume,dst=/config",
)  # fmt: skip
COMMAND = ("run", "--config", "/config/pipelock.yaml", "--mode", "strict", "--listen")

Event = dict[str, Any]


def row(name: str, *values: object) -> object:
    """Name one row of a table."""
    return pytest.param(*values, id=name.replace(" ", "-"))


def until(found: Callable[[], bool], what: str) -> None:
    """Ask again and again until the answer is yes; fail after SECONDS."""
    deadline = time.monotonic() + SECONDS
    while not found():
        assert time.monotonic() < deadline, f"not within {SECONDS:.0f} s: {what}"
        time.sleep(0.03)


@dataclass(frozen=True)
class Sidecar:
    """One container of the image under test, and its addresses within its two networks."""

    name: str
    image: str
    inner: str = "127.0.0.1"
    outer: str = "127.0.0.1"

    @property
    def proxy(self) -> Proxy:
        return Proxy(self.inner, PORT)

    @property
    def command(self) -> tuple[str, ...]:
        return (*COMMAND, f"{self.inner}:{PORT}")

    def put(self, config: bytes) -> None:
        """Copy a configuration in, as the product does."""
        run("docker", "cp", "-", f"{self.name}:/config", stdin=home.archive([file(config)], NOBODY))

    def healthy(self, *options: str) -> bool:
        return attempt("docker", "exec", self.name, "/pipelock", "healthcheck", *options).returncode == 0

    def state(self) -> tuple[bool, int]:
        """Return whether it runs, and its exit code."""
        running, code = run("docker", "inspect", "-f", "{{.State.Running}} {{.State.ExitCode}}", self.name).split()
        return running == "true", int(code)

    def remarks(self) -> str:
        """Return its stderr."""
        return attempt("docker", "logs", self.name).stderr.decode()

    def events(self, **wanted: object) -> list[Event]:
        """Return the events that have these fields."""
        lines = run("docker", "logs", self.name).split("\n")
        events: list[Event] = [json.loads(line) for line in lines if line]
        return [event for event in events if wanted.items() <= event.items()]

    def event(self, **wanted: object) -> Event:
        """Wait for an event that has these fields; return the last one."""
        until(lambda: bool(self.events(**wanted)), f"an event with {wanted}")
        return self.events(**wanted)[-1]


def file(config: bytes) -> home.Entry:
    return home.Entry("pipelock.yaml", config)


@dataclass(frozen=True)
class Rig:
    """Two networks and the internet on the outer one; `undo` removes what was made, last first."""

    image: str
    name: str = field(default_factory=lambda: f"claude-bottle-contract-{secrets.token_hex(4)}")
    undo: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    inner: list[str] = field(default_factory=list)
    outer: list[str] = field(default_factory=list)

    def up(self, zone: dict[str, list[str] | list[list[str]]]) -> None:
        """Make both networks and the internet; its address stands for `here` in the zone."""
        self.inner.extend(self.network("inner", INNER, "--internal"))
        # Not --internal: newer engines resolve no names through such a one. Without the host's address nothing leaves.
        self.outer.extend(self.network("outer", OUTER, "--opt", "com.docker.network.bridge.inhibit_ipv4=true"))
        text = json.dumps(zone).replace('"here"', json.dumps(self.internet))
        source = Path(__file__).with_name("internet.py").read_text(encoding="utf-8")
        name = f"{self.name}-internet"
        self.undo.callback(attempt, "docker", "rm", "--force", "--volumes", name)
        run("docker", "run", "--detach", "--name", name, "--network", f"{self.name}-outer", "--ip", self.internet,
            "--entrypoint", "python3", standin.build(), "-c", source, text, "22", "80", "443")  # fmt: skip
        until(lambda: "ready" in self.seen(), "the internet is up")

    @property
    def internet(self) -> str:
        return self.outer[1]

    def network(self, kind: str, within: str, *options: str) -> list[str]:
        """Make a network on a free /29; return its addresses, the gateway's first. Waits while other runs have all."""
        name, subnets = f"{self.name}-{kind}", list(ipaddress.IPv4Network(within).subnets(new_prefix=29))
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            subnet = random.choice(subnets)
            made = attempt("docker", "network", "create", *options, "--subnet", str(subnet), name)
            if made.returncode == 0:
                self.undo.callback(attempt, "docker", "network", "rm", name)
                return [str(address) for address in subnet.hosts()]
            if b"overlap" not in made.stderr:
                break
        raise WorldError(f"no network for the contract within {within}: {made.stderr.decode().strip()}")

    def sidecar(self, number: int, config: bytes, hosts: Mapping[str, str] | None = None) -> Sidecar:
        """Start a sidecar the way the product does, with addresses for some names, and wait until it is healthy."""
        made = Sidecar(f"{self.name}-{number}", self.image, self.inner[1 + number], self.outer[1 + number])
        self.undo.callback(attempt, "docker", "rm", "--force", "--volumes", made.name)
        given = (f"--add-host={name}:{address}" for name, address in (hosts or {}).items())
        run("docker", "create", "--name", made.name, "--network", f"{self.name}-outer", "--ip", made.outer,
            "--dns", self.internet, *given, *HARDENED, self.image, *made.command)  # fmt: skip
        made.put(config)
        run("docker", "network", "connect", "--ip", made.inner, "--alias", "pipelock", f"{self.name}-inner", made.name)
        run("docker", "start", made.name)
        address = f"{made.inner}:{PORT}"
        until(lambda: made.healthy("--addr", address) or not made.state()[0], "the sidecar is up or has ended")
        assert made.state()[0], made.remarks()
        return made

    @contextlib.contextmanager
    def started(self, what: str, config: bytes | None) -> Iterator[Sidecar]:
        """Start a sidecar without networks, with this file or none."""
        made = Sidecar(f"{self.name}-{what}", self.image)
        try:
            run("docker", "create", "--name", made.name, "--network", "none", *HARDENED, self.image, *made.command)
            if config is not None:
                made.put(config)
            run("docker", "start", made.name)
            yield made
        finally:
            attempt("docker", "rm", "--force", "--volumes", made.name)

    def from_outside(self, sidecar: Sidecar) -> str:
        """Try to reach a sidecar's outer address from the internet; return what came of it."""
        program = f"import socket; socket.create_connection(('{sidecar.outer}', {PORT}), 2); print('open')"
        tried = attempt("docker", "exec", f"{self.name}-internet", "python3", "-c", program)
        return (tried.stdout + tried.stderr).decode().strip()

    def seen(self) -> list[str]:
        """Return what the internet saw: `name <name>` for a question, `tcp <port>` for a connection."""
        return run("docker", "logs", f"{self.name}-internet").splitlines()
