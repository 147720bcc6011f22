"""The test world: what the internet would give a session, made here from Debian's packages and nothing else.

`python3 -m tests.world up` makes it, with the Python of the machine; tests get it from the fixture `world`.
"""

import fcntl
import json
import os
import re
import secrets
import shutil
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.world import api, base, certificates, engine, git, standin
from tests.world.shell import WorldError, run, say

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Request:
    """One request that the stand-in for Anthropic's API got."""

    time: float
    client: str
    connection: int
    """The number of the connection that it came on: two requests with one number shared it."""
    host: str
    method: str
    path: str
    token: str
    headers: tuple[tuple[str, str], ...]
    """Every header as it arrived, in order, duplicates too."""
    size: int
    sha256: str
    """Of the body, without its framing."""
    prompt: str
    """The user's last words in the conversation; empty in what is not a conversation."""
    results: tuple[str, ...]
    """The results of the tools that Claude Code ran for this prompt so far."""
    runs: bool
    """Whether Claude Code offered its Bash tool; its small requests on the side do not."""

    def header(self, name: str) -> tuple[str, ...]:
        """Return all values of a header, in order."""
        return tuple(value for given, value in self.headers if given.lower() == name.lower())


@dataclass(frozen=True)
class World:
    """A test world that is up."""

    ca: Path
    base_image: str
    pipelock_image: str
    network: str = api.NETWORK

    def environ(self, agents: Path) -> dict[str, str]:
        """Return the settings that put a session into this world, with a new made-up token."""
        return {
            "CLAUDE_BOTTLE_AGENTS": str(agents),
            "CLAUDE_BOTTLE_BASE_IMAGE": self.base_image,
            "CLAUDE_BOTTLE_EGRESS_NETWORK": self.network,
            "CLAUDE_BOTTLE_OAUTH_TOKEN": f"sk-ant-oat01-made-up-{secrets.token_hex(16)}",
            "CLAUDE_BOTTLE_PIPELOCK_IMAGE": self.pipelock_image,
        }

    def copy_agents(self, folder: Path) -> Path:
        """Copy the repository's agents to `folder`, their bottles trusting this world's authority; return it."""
        shutil.copytree(REPOSITORY / "agents", folder)
        for bottle in (folder / "bottles").glob("*.yaml"):
            self.trust(bottle)
        return folder

    def trust(self, bottle: Path) -> None:
        """Add this world's authority to a bottle's manifest."""
        manifest = bottle.read_text()
        if re.search(r"^ca_certs:", manifest, re.MULTILINE):
            raise WorldError(f"{bottle} has ca_certs already")
        bottle.write_text(f"{manifest.rstrip()}\nca_certs: [{json.dumps(str(self.ca))}]\n")

    def requests(self, marker: str) -> tuple[Request, ...]:
        """Return the requests so far that have `marker` in their prompt or as their token."""
        lines = run("docker", "logs", api.CONTAINER).splitlines()
        return tuple(request for request in map(parse, lines) if request and _has(request, marker))

    def wait(self, marker: str, wanted: Callable[[Request], bool] = lambda _: True, seconds: float = 300) -> Request:
        """Wait for a request with `marker`, as of `requests`, that is `wanted`; fail after `seconds`."""
        follow = ("docker", "logs", "--follow", api.CONTAINER)
        with subprocess.Popen(follow, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as logs:
            timer = threading.Timer(seconds, logs.kill)
            timer.start()
            try:
                for request in map(parse, logs.stdout or ()):
                    if request and _has(request, marker) and wanted(request):
                        return request
            finally:
                timer.cancel()
                logs.kill()
        raise AssertionError(f"the stand-in for Anthropic's API got no such request with {marker!r} in {seconds} s")

    def release(self, name: str) -> None:
        """Let the answers go on that wait at `HOLD: <name>`."""
        run("docker", "exec", api.CONTAINER, "touch", f"/tmp/released-{name}")


def up() -> World:
    """Make what is missing of the test world, one process at a time."""
    with (certificates.cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        engine.ensure()
        base.ensure()
        tls = certificates.ensure((*api.HOSTS, api.EXTRA_HOST, *git.HOSTS))
        api.ensure(tls)
        git.ensure(tls)
        pipelock_image = os.environ.get("CLAUDE_BOTTLE_PIPELOCK_IMAGE") or standin.build()
        say(f"the sidecar's image is {pipelock_image}")
        return World(tls / certificates.CA, os.environ.get("CLAUDE_BOTTLE_BASE_IMAGE") or base.IMAGE, pipelock_image)


def down() -> None:
    """Remove the containers and the network."""
    git.remove()
    api.remove()


def parse(line: str) -> Request | None:
    """Read a line of the stand-in's log; those that are no request are nothing."""
    if not line.startswith("{"):
        return None
    fields = json.loads(line)
    headers = tuple((name, value) for name, value in fields["headers"])
    return Request(**fields | {"headers": headers, "results": tuple(fields["results"])})


def _has(request: Request, marker: str) -> bool:
    return marker in request.prompt or marker == request.token
