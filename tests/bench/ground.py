"""Where the bench runs its sessions, and what removes all of it."""

import contextlib
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import FrameType
from typing import Self

from claude_bottle.host.machine import Machine
from claude_bottle.manifest import agent as manifest
from claude_bottle.manifest.agent import Agent
from claude_bottle.manifest.bottle import Bottle
from claude_bottle.process.liveness import this_process
from claude_bottle.session.planning import images
from tests.support.sessions import CLI, Bench
from tests.world import World

_CLOCK = Path(__file__).with_name("clock")
_PATIENCE = 300  # seconds for one session to start or to end
_ENDS = (signal.SIGTERM, signal.SIGHUP)


class Launch:
    """One `./cli.py start` in a session of its own: Ctrl-C reaches the bench alone, which then ends it."""

    def __init__(self, name: str, question: str, env: dict[str, str], *words: str) -> None:
        pipe = subprocess.PIPE
        argv = (str(CLI), "start", name, "--yes", "--print", question, *words)
        self.at = time.monotonic()
        self.process = subprocess.Popen(argv, env=env, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)

    def told(self) -> float | None:
        """Wait until claude tells when it started; None where it never does."""
        assert self.process.stdout
        ready, _, _ = select.select([self.process.stdout], [], [], _PATIENCE)
        line = self.process.stdout.readline() if ready else b""
        return float(line) if line else None

    def end(self) -> str:
        """Give it the end of its stdin and wait for its own; return the last line of a failure, else nothing."""
        _, err = self.process.communicate(timeout=_PATIENCE)
        lines = err.decode(errors="replace").strip().splitlines()
        return (lines or [f"exit status {self.process.returncode}"])[-1] if self.process.returncode else ""


class Ground(Bench):
    """An agent whose claude is clock/claude.pl; made to be a context manager, which leaves nothing."""

    def __init__(self, world: World, folder: Path) -> None:
        super().__init__(world, world.copy_agents(folder / "agents"), folder)
        shutil.copytree(_CLOCK, self.agents / "clock")
        # The default bottle but for its image: what it would trust of the test world, this claude has no use for.
        (self.agents / "bottles" / f"{self.name}.yaml").write_text("image: {dockerfile: ../clock/Dockerfile}\n")
        self.launches: list[Launch] = []
        self.image = images(self.machine, Bottle("", Path(), dockerfile=self.agents / "clock" / "Dockerfile"))[-1].tag
        self._kept = self._has_image()

    @property
    def machine(self) -> Machine:
        """Return this process as the one that starts sessions: while it lives, no session's clean-up takes them."""
        return Machine(self.environ, Path.home(), interactive=False, owner=this_process())

    @property
    def agent(self) -> Agent:
        return manifest.load_agent(self.agents, self.name, environ=self.environ, home=Path.home())

    def launch(self, question: str, *words: str) -> Launch:
        """Start a session whose claude is asked `question`: "now" or "hold"."""
        self.launches.append(Launch(self.name, question, self.environ, *words))
        return self.launches[-1]

    def command(self, *argv: str) -> None:
        """Run a command that is to succeed."""
        subprocess.run(argv, env=self.environ, stdin=subprocess.DEVNULL, capture_output=True, check=True)

    def __enter__(self) -> Self:
        for number in _ENDS:
            signal.signal(number, _end)
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGINT, *_ENDS):
            signal.signal(number, signal.SIG_IGN)
        living = [launch.process for launch in self.launches if launch.process.poll() is None]
        for process in living:
            process.terminate()
        for process in living:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=_PATIENCE)
        self._remove_all()
        if not self._kept:
            subprocess.run(("docker", "image", "rm", self.image), capture_output=True, check=False)

    def _remove_all(self) -> None:
        """Remove what is left until two listings in a row are empty: a client that was killed can still create."""
        empty = 0
        while empty < 2:
            empty = 0 if self.left() else empty + 1
            self.remove_left()
            time.sleep(0.5)

    def _has_image(self) -> bool:
        asked = ("docker", "image", "inspect", self.image)
        return subprocess.run(asked, capture_output=True, check=False).returncode == 0


def _end(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)
