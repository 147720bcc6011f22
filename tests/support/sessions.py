"""Sessions of the real ./cli.py for the tests: started, watched, and searched for when they have ended."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pexpect
import pyte

from tests.world import REPOSITORY, World

CLI = REPOSITORY / "cli.py"
GUARD = 300  # seconds until a test gives up waiting; none comes near it
LONGEST = 1800  # the same for a whole session
PUPPET = Path(__file__).parent / "puppet"
RELAY = Path(__file__).parent / "programs" / "relay.py"
SESSION = "claude-bottle.session"
AS_BEFORE = b"terminal as before\r\n"
JOB_SHELL = ("bash", "--norc", "--noprofile", "-i")  # one that minds its jobs
PROMPT = "ready> "
# What a user's shell is to ./cli.py: it outlives it, and sees what became of its terminal. -echok is what no new
# terminal has, so that one that was reset would show.
SHELL = """
trap : INT
stty -echok
before=$(stty -g)
"$@"
code=$?
[ "$(stty -g)" = "$before" ] && echo "terminal as before"
exit $code
"""


@dataclass(frozen=True)
class Ended:
    """How a run of ./cli.py ended, and what it said."""

    code: int
    out: bytes
    err: str


def docker(*words: str, stdin: bytes = b"") -> str:
    """Run the machine's docker client; return its stdout."""
    return subprocess.run(("docker", *words), input=stdin, capture_output=True, check=True).stdout.decode()


class Bench:
    """One test's place: an agent of its own, an environment, a temporary directory, and what came of its sessions."""

    def __init__(self, world: World, agents: Path, folder: Path) -> None:
        self.world, self.agents, self.folder = world, agents, folder
        self.name = f"t-{secrets.token_hex(6)}"
        self.stage = folder / "stage"
        self.stage.mkdir()
        kept = {name: os.environ[name] for name in os.environ if name in ("PATH", "HOME") or name.startswith("DOCKER_")}
        self.environ = {**kept, "TERM": "xterm-256color", "LANG": "C.UTF-8", "TMPDIR": str(self.stage)}
        self.environ["XDG_STATE_HOME"] = str(folder / "state")
        self.environ |= world.environ(agents)
        self.token = self.environ["CLAUDE_BOTTLE_OAUTH_TOKEN"]
        self.write()

    def write(self, bottle: dict[str, object] | None = None, **agent: object) -> None:
        """Write the agent's manifest and its bottle's, which trusts the test world."""
        (self.agents / f"{self.name}.yaml").write_text(_yaml({"bottle": self.name, **agent}))
        path = self.agents / "bottles" / f"{self.name}.yaml"
        path.write_text(_yaml(bottle or {"env": {}}))
        self.world.trust(path)

    def puppet(self, prompt: str = "") -> None:
        """Give the agent a bottle whose claude is puppet/claude.py."""
        shutil.copytree(PUPPET, self.agents / "puppet")
        self.write({"image": {"dockerfile": "../puppet/Dockerfile"}}, **({"prompt": prompt} if prompt else {}))

    def program(self, name: str, script: str, place: str = "bin") -> str:
        """Make a program; return a PATH that has it before all others."""
        folder = self.folder / place
        folder.mkdir()
        (folder / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / name).chmod(0o755)
        return f"{folder}:{self.environ['PATH']}"

    def wrap(self, cases: str) -> str:
        """Put the machine's docker behind a shell's `case` on its arguments; return the PATH that has it."""
        return self.program("docker", f'PATH={self.environ["PATH"]}\ncase "$*" in\n{cases}\nesac\nexec docker "$@"')

    def start(self, *words: str, **env: str) -> Ended:
        """Run `./cli.py start` to its end, without a terminal and with nothing on stdin."""
        return self.run((str(CLI), "start", self.name, *words), env)

    def run(self, argv: tuple[str, ...], env: dict[str, str], stdin: bytes = b"", cwd: str | None = None) -> Ended:
        """Run a command to its end, with `env` on top of the test's own environment."""
        done = subprocess.run(
            argv, input=stdin, capture_output=True, check=False, timeout=600, env=self.environ | env, cwd=cwd
        )
        return Ended(done.returncode, done.stdout, done.stderr.decode())

    @contextlib.contextmanager
    def running(self, *words: str, **env: str) -> Iterator["Running"]:
        """Run `./cli.py start` without a terminal; a test that fails meanwhile ends it."""
        run = Running((str(CLI), "start", self.name, *words), self.environ | env)
        try:
            yield run
        finally:
            run.process.terminate()
            run.end()

    def ask(self, question: str, *words: str, **env: str) -> str:
        """Return what a session answers with --print; it must have gone well."""
        ended = self.start("--yes", "--print", question, *words, **env)
        assert ended.code == 0, ended
        return ended.out.decode()

    @contextlib.contextmanager
    def terminal(self, *words: str, screen: bool = True, **env: str) -> Iterator["Terminal"]:
        """Run `./cli.py start` on a terminal of its own; a test that fails meanwhile ends it."""
        with self.on_terminal("start", self.name, *words, screen=screen, **env) as terminal:
            yield terminal

    @contextlib.contextmanager
    def on_terminal(self, *words: str, screen: bool = True, **env: str) -> Iterator["Terminal"]:
        """Run any command of ./cli.py so."""
        terminal = Terminal((str(CLI), *words), self.environ | env, screen=screen)
        try:
            yield terminal
        finally:
            with contextlib.suppress(OSError, IndexError):  # it has ended
                os.kill(terminal.launcher(), signal.SIGTERM)
            if not terminal.child.closed:
                with contextlib.suppress(pexpect.TIMEOUT):
                    terminal.child.expect(pexpect.EOF)
                terminal.child.close(force=True)

    @contextlib.contextmanager
    def job_shell(self) -> Iterator["Terminal"]:
        """Run an interactive shell on a terminal of its own, which runs what is typed; it ends with its jobs."""
        terminal = Terminal((), self.environ | {"PS1": PROMPT}, screen=True, shell=JOB_SHELL)
        try:
            yield terminal
        finally:
            terminal.child.close(force=True)

    def held(self, guard: float = GUARD) -> str:
        """Wait until the session's claude waits at `HOLD: <the agent's name>`; return the session's id."""
        self.world.wait(self.token, lambda request: request.runs and f"HOLD: {self.name}" in request.prompt, guard)
        self.settled()
        return self.sessions()[0]

    def settled(self) -> None:
        """Wait until the probe's container is gone: claude starts before it is removed."""
        end = time.monotonic() + GUARD
        while any(one.endswith("-probe") for one in self._labelled("ps", "--all")):
            assert time.monotonic() < end, "the probe is still there"
            time.sleep(0.05)

    def await_file(self, path: Path) -> None:
        """Wait until a program has made a file."""
        end = time.monotonic() + GUARD
        while not path.exists():
            assert time.monotonic() < end, f"nobody made {path}"
            time.sleep(0.01)

    def sessions(self) -> list[str]:
        """Return the ids of the sessions that have a container now."""
        return sorted({one.partition(" ")[0] for one in self._labelled("ps", "--all")})

    def objects(self) -> list[str]:
        """Return what the engine has of the agent's sessions, each as "<kind> <session> <name>"."""
        return self.objects_of(f"{self.name}-")

    def objects_of(self, session: str) -> list[str]:
        """Return the same of all sessions whose id begins so."""
        kinds = (("ps", "--all"), ("network", "ls"), ("volume", "ls"))
        return [f"{kind[0]} {one}" for kind in kinds for one in self._labelled(*kind, session=session)]

    def left_at_last(self) -> list[str]:
        """Return what is left, given a moment: a reaper of another session may name this one to docker."""
        end = time.monotonic() + GUARD
        while (left := self.left()) and time.monotonic() < end:
            time.sleep(0.2)
        return left

    def left(self) -> list[str]:
        """Return all that is there of the agent's sessions: on the engine, processes, files of the stage."""
        # Another test's search of the engine's disk has names of files in its arguments, also those of these sessions.
        named = [line for line in command_lines() if self.name.encode() in line and b"\0/hunt/words\0" not in line]
        clients = [line.replace(b"\0", b" ").decode(errors="replace") for line in named]
        return [*self.objects(), *clients, *map(str, self.stage.rglob("*"))]

    def await_nothing(self) -> None:
        """Wait until nothing is left of the agent's sessions."""
        end = time.monotonic() + GUARD
        while left := self.left():
            assert time.monotonic() < end, left

    def remove_left(self) -> None:
        """Remove it: the next test is not to suffer."""
        for kind, remove in (("ps", "rm"), ("network", "network rm"), ("volume", "volume rm")):
            force = ("--force",) if remove == "rm" else ()
            words = (kind, *(("--all",) if kind == "ps" else ("ls",)))
            for one in self._labelled(*words):
                subprocess.run(("docker", *remove.split(), *force, one.partition(" ")[2]), check=False)

    def _labelled(self, *words: str, session: str = "") -> list[str]:
        """Return "<session> <name>" of all of one kind of the agent's sessions, or of those whose id begins so."""
        name = "Names" if words[0] == "ps" else "Name"
        shown = f'{{{{.Label "{SESSION}"}}}} {{{{.{name}}}}}'
        lines = docker(*words, "--filter", f"label={SESSION}", "--format", shown).splitlines()
        return [line for line in lines if line.startswith(session or f"{self.name}-")]


@contextlib.contextmanager
def forwarded(where: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Have another way to the engine; yield its DOCKER_HOST and the process that it leads through."""
    engine = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").replace("unix://", "unix:")
    argv = (sys.executable, "-I", str(RELAY), f"{where}={engine}")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as forwarder:
        assert forwarder.stdout
        try:
            yield forwarder.stdout.readline().strip(), forwarder
        finally:
            forwarder.kill()


class Running:
    """A `./cli.py start` that runs, without a terminal."""

    def __init__(self, argv: tuple[str, ...], env: dict[str, str]) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)
        self._timer = threading.Timer(LONGEST, self.process.kill)
        self._timer.start()
        self._said: list[str] = []

    def until(self, text: str) -> None:
        """Wait for a line on stderr that has `text`."""
        assert self.process.stderr
        for line in self.process.stderr:
            self._said.append(line.decode())
            if text in self._said[-1]:
                return
        raise AssertionError(f"no {text!r} in {self._said}")

    def end(self) -> Ended:
        """Wait for its end."""
        streams = (self.process.stdout, self.process.stderr)
        out, err = self.process.communicate() if not any(s and s.closed for s in streams) else (b"", b"")
        self._timer.cancel()
        return Ended(self.process.returncode, out, "".join(self._said) + err.decode())


class Terminal:
    """The user's side of a terminal in which a shell runs `./cli.py start`."""

    def __init__(
        self,
        argv: tuple[str, ...],
        env: dict[str, str],
        *,
        screen: bool,
        shell: tuple[str, ...] = ("bash", "-c", SHELL, "bash"),
    ) -> None:
        self.child: pexpect.spawn[bytes] = pexpect.spawn(
            shell[0], [*shell[1:], *argv], env=env, dimensions=(33, 101), timeout=GUARD
        )
        self.raw = bytearray()
        self.frames: list[str] = []
        self._screen = pyte.Screen(101, 33) if screen else None
        self._stream: Any = pyte.ByteStream(self._screen)

    def launcher(self) -> int:
        """Return the process id of ./cli.py."""
        return int(Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children").read_text().split()[0])

    def until(self, *texts: str) -> str:
        """Wait until the screen shows one of `texts`; return that."""
        while not (shown := [text for text in texts if self.frames and text in self.frames[-1]]):
            self._read(texts)
        return shown[0]

    def leave(self) -> None:
        """Have claude end by Ctrl-C: while it still works, the first one only interrupts it."""
        again, interrupted = "Press Ctrl-C again to exit", "Interrupted"
        self.type(b"\x03")
        if self.until(again, interrupted) == interrupted:
            self.type(b"\x03")
            self.until(again)
        self.type(b"\x03")

    def until_bytes(self, data: bytes) -> bytes:
        """Wait until the terminal got `data`; return what came before."""
        start = 0
        while (at := self.raw.find(data, start)) < 0:
            start = max(0, len(self.raw) - len(data))
            self._read(data)
        before = bytes(self.raw[:at])
        del self.raw[: at + len(data)]
        return before

    def gets(self, data: bytes, seconds: float) -> bool:
        """Tell whether the terminal gets `data` before so many seconds pass without a byte."""
        with contextlib.suppress(pexpect.TIMEOUT):
            while data not in self.raw:
                self._append(self.child.read_nonblocking(1 << 16, seconds))
        return data in self.raw

    def type(self, data: bytes) -> None:
        """Type something."""
        self.child.send(data)

    def resize(self, rows: int, columns: int) -> None:
        """Resize the terminal and its screen."""
        self.child.setwinsize(rows, columns)
        if self._screen:
            self._screen.resize(rows, columns)

    def code(self) -> int:
        """Wait for the end and return the exit code; the terminal must be as it was."""
        with contextlib.suppress(pexpect.EOF):
            while True:
                self._append(self.child.read_nonblocking(1 << 16, GUARD))
        self.child.close()
        assert self.raw.endswith(AS_BEFORE), self.raw[-2000:]
        assert self.child.exitstatus is not None
        return self.child.exitstatus

    def _read(self, wanted: object) -> None:
        try:
            self._append(self.child.read_nonblocking(1 << 16, GUARD))
        except (pexpect.EOF, pexpect.TIMEOUT) as error:
            shown = self.frames[-1] if self.frames else self.raw[-2000:]
            raise AssertionError(f"no {wanted!r} before {type(error).__name__}:\n{shown!s}") from None

    def _append(self, data: bytes) -> None:
        self.raw += data
        if self._screen:
            self._stream.feed(data)
            self.frames.append("\n".join(line.rstrip() for line in self._screen.display))


def command_lines() -> Iterator[bytes]:
    """Yield the arguments of every process of this machine but this one, NUL between them."""
    for path in (each / "cmdline" for each in Path("/proc").glob("[0-9]*")):
        if path.parent.name != str(os.getpid()):
            with contextlib.suppress(OSError):
                yield path.read_bytes()


def _yaml(pairs: dict[str, object]) -> str:
    """JSON is YAML; one key a line, so that another can be added."""
    return "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in pairs.items())
