"""A machine of the battery's own: a second Docker engine in namespaces with no way to the real network."""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.isolation.places import ANTHROPIC, BEYOND, BEYOND443, OUTSIDE, TRAPS
from tests.world import World, apt, certificates
from tests.world.api import EXTRA_HOST, HOSTS
from tests.world.shell import PATH, WorldError, attempt, need_root, run, which

SCRIPT = Path(__file__).with_name("machine.sh")
SPACE = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
GUARD = 300  # seconds until the battery gives up waiting; nothing comes near it
# CVE-2024-29018: from this release on, up to the next main release, and everything from 26 on
FIXED = ((23, 0, 11), (25, 0, 5))


def until(true: Callable[[], bool], what: str) -> None:
    """Wait until it is true."""
    end = time.monotonic() + GUARD
    while not true():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.05)


@contextmanager
def machine(world: World) -> Iterator["Machine"]:
    """Make the machine; at the end, end all that runs in it and remove all that is left of it. See machine.sh."""
    need_root("the leak battery makes namespaces and an engine of its own")
    for program, package in (("ip", "iproute2"), ("dockerd", "docker.io")):
        if not which(program):
            apt.install(package)
    folder = _place() / f"battery-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        _write(folder, world)
        argv = (*SPACE, "bash", str(SCRIPT), str(folder), sys.executable)
        # Its first process ends when its stdin does, and everything with it, also when this program is killed.
        with subprocess.Popen(
            argv, env=os.environ | {"PATH": PATH}, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        ) as first:  # fmt: skip
            made = Machine(folder, first.pid)
            assert first.stdout
            assert first.stdout.readline() == b"up\n", f"the machine does not come up:\n{made.log('machine')[-3000:]}"
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _place() -> Path:
    """Return a folder in which an engine can have its images; WorldError if every one lies on an overlay.

    There, newer engines (29.7.2 was seen) cannot unpack an image that removes a file of another layer.
    """
    root = Path(run("docker", "info", "--format", "{{.DockerRootDir}}").strip())
    folders = (certificates.cache(), Path("/var/tmp"), root)
    for folder in folders:
        if folder.is_dir() and run("stat", "--file-system", "--format", "%T", str(folder)).strip() != "overlayfs":
            return folder
    shown = ", ".join(map(str, folders))
    raise WorldError(f"not run: the battery's engine needs a file system that is no overlay, unlike {shown}")


def _write(folder: Path, world: World) -> None:
    """Write what the machine reads."""
    zone = {host: [ANTHROPIC] for host in (*HOSTS, EXTRA_HOST)} | TRAPS | {"*": [OUTSIDE]}
    (folder / "zone.json").write_text(json.dumps(zone))
    (folder / "beyond").write_text("".join(f"{one}/{128 if ':' in one else 32}\n" for one in BEYOND))
    (folder / "beyond443").write_text("".join(f"{one}\n" for one in BEYOND443))
    for name in (certificates.CERTIFICATE, certificates.KEY):
        shutil.copy(world.ca.parent / name, folder / name)


@dataclass(frozen=True)
class Machine:
    """The machine, while it is up."""

    folder: Path
    pid: int

    @property
    def name(self) -> str:
        """Return a name that no other run of the battery has."""
        return self.folder.name

    @property
    def env(self) -> dict[str, str]:
        """Return the environment of docker clients that talk to its engine."""
        return {"DOCKER_HOST": f"unix://{self.folder}/docker.sock", "PATH": PATH}

    def load(self, *images: str) -> None:
        """Bring images over from the engine that this machine has otherwise."""
        with subprocess.Popen(("docker", "save", *images), stdout=subprocess.PIPE) as save:
            load = ("docker", "load", "--quiet")
            subprocess.run(load, stdin=save.stdout, env=os.environ | self.env, check=True, capture_output=True)
        assert save.returncode == 0

    def docker(self, *words: str, stdin: bytes = b"") -> str:
        """Run a docker command on its engine; return its stdout."""
        return run("docker", *words, stdin=stdin, env=self.env)

    def docker_log(self, container: str) -> str:
        """Return what a container has printed."""
        done = attempt("docker", "logs", container, env=self.env)
        return (done.stdout + done.stderr).decode(errors="replace")

    def log(self, name: str) -> str:
        """Return what one of its receivers has written down so far."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def asked(self) -> list[dict[str, Any]]:
        """Return the requests that the stand-in for Anthropic's API got."""
        lines = self.log("api").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def network(self, container: str, network: str) -> dict[str, str]:
        """Return what the engine says of a container on a network."""
        inspected = json.loads(self.docker("inspect", container))[0]
        found: dict[str, str] = inspected["NetworkSettings"]["Networks"][network]
        return found

    def address(self, container: str, network: str) -> str:
        """Return a container's IPv4 address on a network."""
        return self.network(container, network)["IPAddress"]

    def bridge6(self, network: str) -> str:
        """Switch IPv6 on on a network's bridge, as some hosts do; return the host's link-local address there."""
        inspected = json.loads(self.docker("network", "inspect", network))[0]
        bridge = inspected["Options"].get("com.docker.network.bridge.name") or f"br-{inspected['Id'][:12]}"
        self._inside("sh", "-c", f"echo 0 >/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6")
        shown = json.loads(self._inside("ip", "-json", "address", "show", "dev", bridge))
        found = [address["local"] for link in shown for address in link["addr_info"] if address["scope"] == "link"]
        return str(found[0])

    def leaks_names(self) -> bool:
        """Tell whether the engine has CVE-2024-29018."""
        version = self.docker("version", "--format", "{{.Server.Version}}")
        numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
        return numbers < (26,) and not any(fixed <= numbers < (fixed[0] + 1,) for fixed in FIXED)

    def _inside(self, *argv: str) -> str:
        """Run a program in the machine's namespaces; return its stdout."""
        first = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()[0]
        return run("nsenter", "--target", first, "--mount", "--net", "--pid", "--", *argv)
