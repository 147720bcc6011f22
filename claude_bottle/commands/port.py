"""Forward a port of this machine's loopback to a server in a session's bottle, whose network stays closed.

All connections go through one `docker exec`, as everything else that enters a bottle: see `process/relay.py`.
"""

import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from claude_bottle.cleanup.stack import Teardown
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.errors import DockerError, MachineError, UsageError
from claude_bottle.host import console, installation
from claude_bottle.host.machine import Machine
from claude_bottle.process import command, container, relay
from claude_bottle.process.command import Client, Result
from claude_bottle.process.engine import Engine
from claude_bottle.session import engines
from claude_bottle.session.planning import client_environment
from claude_bottle.session.registry import Session

_LOADER = "import sys; exec(sys.stdin.buffer.read({})); main(int(sys.argv[1]))"
_HOST = "127.0.0.1"  # and nothing else of this machine
_WAITING = 128  # connections that the system holds until they are accepted or refused
_GRACE = 5.0  # seconds from the end of a process in a bottle to that of the bottle which caused it
_PAUSE = 0.2  # seconds between two looks at the bottle
_SAID = 1 << 12  # bytes of the client's stderr that are kept


@dataclass(frozen=True)
class Ports:
    """A TCP port in the bottle, and the one of this machine that leads there."""

    inner: int
    outer: int


def parse(text: str) -> Ports:
    """Return the ports of `3000` or `3000:8080`; raises UsageError."""
    parts = text.split(":")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and 0 < int(part[:6]) < 65536 for part in parts):
        shown = escape_control_chars(text)
        raise UsageError(f'"{shown}" is no port: expected one from 1 to 65535, or two such as 3000:8080')
    return Ports(int(parts[0]), int(parts[-1]))


def port(machine: Machine, name: str, ports: Ports, show: Callable[[str], None]) -> None:
    """Forward a port until the session ends, or until a signal; `show` is called with the URL once it can be used.

    Raises UsageError, MachineError if the port is taken, DockerError, EngineError, and SystemExit(128 + n) after
    signal n.
    """
    machine, session = engines.find(machine, name)
    env = client_environment(machine)
    shown = escape_control_chars(session.id)
    try:
        program = Path(relay.__file__).read_bytes()
        argv = _argv(session, len(program), ports.inner)
        with _listener(shown, ports) as listener, Teardown(stoppable=False), _started(argv, env) as client:
            end = _Forwarding(client, listener, lambda: show(f"http://{shown}.localhost:{ports.outer}"))
            end.run(program)
            _explain(session, Engine(env), end)
    except SystemExit:
        console.say(f"port {ports.outer} is closed; {shown} goes on")
        raise
    console.say(f"{shown} has ended, and port {ports.outer} is closed")


@contextlib.contextmanager
def _listener(session: str, ports: Ports) -> Iterator[socket.socket]:
    with contextlib.ExitStack() as held:
        try:
            listener = held.enter_context(socket.create_server((_HOST, ports.outer), backlog=_WAITING))
            held.enter_context(_held_beside(ports.outer))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            why = "is taken" if error.errno == errno.EADDRINUSE else "is not for this user"
            other = installation.command(f"port {session} {ports.inner}:{_other(ports)}")
            raise MachineError(f"port {ports.outer} of this machine {why}; try another: {other}") from None
        yield listener


def _held_beside(port: int) -> contextlib.AbstractContextManager[object]:
    """Hold the same port of ::1, without listening; raises OSError if another program has it.

    Browsers look there first for names under `localhost`, and would show that program as the bottle's.
    """
    with contextlib.ExitStack() as stack:
        try:
            beside = stack.enter_context(socket.socket(socket.AF_INET6))
            beside.bind(("::1", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise
            return contextlib.nullcontext()  # this machine has no such address
        return stack.pop_all()


def _other(ports: Ports) -> int:
    return next(each for each in (8080, 8081) if each != ports.outer)


def _argv(session: Session, program: int, port: int) -> tuple[str, ...]:
    """Return the command that runs the relay in the bottle; its stdin begins with its program, of so many bytes."""
    python = (*container.PYTHON[:-1], "-c", _LOADER.format(program), str(port))
    return container.execute(session.container, *python)


@contextlib.contextmanager
def _started(argv: tuple[str, ...], env: Mapping[str, str]) -> Iterator[Client]:
    client = command.start(argv, env)
    try:
        yield client
    finally:
        client.let_go()  # which ends the relay in the bottle
        if not client.ended_within(_GRACE):
            client.terminate()


class _Forwarding:
    """The launcher's end of a relay, until the other one ends."""

    def __init__(self, client: Client, listener: socket.socket, ready: Callable[[], None]) -> None:
        process = client.process
        assert process.stdin and process.stdout and process.stderr  # noqa: S101, PT018  (pipes: see command.start())
        self.client, self.greeted = client, False
        self._errors = process.stderr.fileno()
        os.set_blocking(self._errors, False)  # which a child of the client's may hold
        self._said = bytearray()  # the beginning of what comes there
        self._ready = ready
        self._end = relay.Listening(process.stdout.fileno(), process.stdin.fileno(), listener, console.say)

    def run(self, program: bytes) -> None:
        """Send the other end's program, and forward until it has ended; raises DockerError if it is no relay."""
        self._end.out += program
        others = [self._errors]
        try:
            while True:
                if self._end.turn(others) and not self._hear():
                    others = []
                if self._end.greeted and not self.greeted:
                    self.greeted = True
                    self._ready()
        except EOFError:
            return
        except relay.Malformed:
            raise DockerError("the bottle sent what no relay sends, and the port is closed") from None
        finally:
            self._end.close()

    @property
    def result(self) -> Result:
        """Return how the client ended, which is to be now."""
        if not self.client.ended_within(_GRACE):
            self.client.terminate()
        self._hear()
        return Result(self.client.process.returncode, b"", self._said.decode(errors="replace"))

    def _hear(self) -> bool:
        """Take what the client says on stderr; False at its end."""
        try:
            part = os.read(self._errors, _SAID)
        except BlockingIOError:
            return True
        self._said += part[: _SAID - len(self._said)]
        return bool(part)


def _explain(session: Session, engine: Engine, end: _Forwarding) -> None:
    """Raise the error for a relay that has ended, unless its session has."""
    result = end.result
    if not end.greeted:
        raise engine.explained(DockerError(f"the port cannot be forwarded: {result.reason}"))
    asked = ("inspect", "--format", "{{.State.Running}}", session.container)
    over = time.monotonic() + _GRACE
    # At its limit of time every process of the agent is ended, the relay too, and its work is still to be brought back.
    while session.left(session.age()) != 0 and engine.ask(*asked).stdout.strip() == b"true":
        if time.monotonic() > over:
            raise DockerError(f"the relay in the bottle has ended: {result.reason}")
        time.sleep(_PAUSE)
