"""The relay of ports: both ends against real sockets, and the launcher's end against whatever a bottle may send."""

import ast
import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from claude_bottle.process import relay
from claude_bottle.process.relay import DATA, END, MORE, MOST, OPEN, READY, REFUSED, RESET, WINDOW, Malformed, frame
from tests.support.systems import NEEDS_IPV6

SOURCE = Path(relay.__file__)
GUARD = 60  # seconds until a test gives up waiting
MIB = 1 << 20
HELLO = frame(READY, 0, b"claude-bottle relay 1")


def count(number: int) -> bytes:
    return number.to_bytes(4, "big")


@dataclass
class Forwarded:
    """A port that is forwarded, by the launcher's end in a thread and the bottle's as a process of its own."""

    port: int
    end: relay.Listening
    bottle: "subprocess.Popen[bytes]"
    said: list[str] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), GUARD)


@contextlib.contextmanager
def forwarded(inner: int) -> Iterator[Forwarded]:
    argv = (sys.executable, "-I", "-S", "-c", f"{SOURCE.read_text()}\nmain({inner})")
    with (
        socket.create_server(("127.0.0.1", 0), backlog=128) as listener,
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as bottle,
    ):
        assert bottle.stdin
        assert bottle.stdout
        said = list[str]()
        end = relay.Listening(bottle.stdout.fileno(), bottle.stdin.fileno(), listener, said.append)
        made = Forwarded(listener.getsockname()[1], end, bottle, said)

        def run() -> None:
            try:
                while True:
                    end.turn()
            except EOFError:
                pass
            except BaseException as error:  # shown by the test
                made.errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield made
        finally:
            bottle.terminate()
            thread.join(GUARD)
            end.close()
    assert made.errors == []


@contextlib.contextmanager
def served(serve: Callable[[socket.socket], None], host: str = "127.0.0.1") -> Iterator[int]:
    """Serve each connection in a thread of its own."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET

    def one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            serve(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server((host, 0), family=family, backlog=128) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        with contextlib.suppress(OSError):  # ends accept() where the system has it so
            listener.shutdown(socket.SHUT_RDWR)


def echo(connection: socket.socket) -> None:
    while data := connection.recv(1 << 16):
        connection.sendall(data)


def received(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def echoed(connection: socket.socket, data: bytes) -> bytes:
    """Send data and the end of it, and return all that comes back meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        back = pool.submit(received, connection)
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return back.result(GUARD)


def test_a_megabyte_each_way_on_fifty_connections_and_no_fifty_first() -> None:
    with served(echo) as inner, forwarded(inner) as port, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(port.connect()) for _ in range(MOST)]
        for each in connections:
            each.sendall(b"x")
            assert each.recv(1) == b"x"  # it has been accepted
        with pytest.raises(ConnectionResetError), port.connect() as one_more:
            one_more.recv(1)
        data = [os.urandom(MIB) for _ in connections]
        with ThreadPoolExecutor(MOST) as pool:
            assert list(pool.map(echoed, connections, data)) == data
        assert port.said == ["a connection was refused: 50 at once are the most"]
        with port.connect() as again:  # there is room again
            assert echoed(again, b"again") == b"again"


def test_a_reader_that_has_stopped_holds_up_nobody_and_nothing_without_bounds() -> None:
    def flood(connection: socket.socket) -> None:
        if connection.recv(1) == b"f":
            while True:
                connection.sendall(b"f" * MIB)
        connection.sendall(b"well")

    with served(flood) as inner, forwarded(inner) as port, contextlib.ExitStack() as stack:
        stalled = [stack.enter_context(port.connect()) for _ in range(5)]
        for each in stalled:
            each.sendall(b"f")
        for _ in range(20):
            with port.connect() as other:
                assert echoed(other, b"w") == b"well"
        held = [len(stream.pending) for stream in port.end.streams.values()]
        assert max(held) <= WINDOW
        for each in stalled:  # each goes on where it was
            assert set(each.recv(MIB)) == {ord("f")}


def test_each_direction_ends_by_itself() -> None:
    def last_word(connection: socket.socket) -> None:
        connection.sendall(b"%d" % len(received(connection)))

    def first_word(connection: socket.socket) -> None:
        connection.sendall(b"bye")
        connection.shutdown(socket.SHUT_WR)
        heard.append(received(connection))
        done.set()

    heard, done = list[bytes](), threading.Event()
    with served(last_word) as inner, forwarded(inner) as port, port.connect() as connection:
        assert echoed(connection, b"x" * MIB) == b"%d" % MIB
    with served(first_word) as inner, forwarded(inner) as port, port.connect() as connection:
        assert received(connection) == b"bye"
        connection.sendall(b"and you")
        connection.shutdown(socket.SHUT_WR)
        assert done.wait(GUARD)
        assert heard == [b"and you"]


def test_a_reset_passes_in_both_directions() -> None:
    def reset(connection: socket.socket) -> None:
        connection.recv(1)
        relay.abort(connection)

    def hear(connection: socket.socket) -> None:
        connection.sendall(b"x")
        try:
            connection.recv(1)
        except ConnectionResetError:
            heard.set()

    heard = threading.Event()
    with served(reset) as inner, forwarded(inner) as port, port.connect() as connection:
        connection.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with served(hear) as inner, forwarded(inner) as port:
        connection = port.connect()
        assert connection.recv(1) == b"x"
        relay.abort(connection)
        assert heard.wait(GUARD)


@NEEDS_IPV6
def test_a_server_of_ipv6_alone_is_reached() -> None:
    with served(echo, "::1") as inner, forwarded(inner) as port, port.connect() as connection:
        assert echoed(connection, b"six") == b"six"


def test_no_server_is_told_once_and_one_that_comes_is_reached() -> None:
    with served(echo) as inner:
        pass
    with forwarded(inner) as port:
        for _ in range(3):
            with pytest.raises(ConnectionResetError), port.connect() as connection:
                connection.recv(1)
        assert port.said == ["nothing listens on that port in the bottle, so far"]
        with socket.create_server(("127.0.0.1", inner)) as server, port.connect() as connection:
            connection.sendall(b"late")
            with server.accept()[0] as late:
                assert late.recv(4) == b"late"


def test_the_bottles_end_ends_with_the_launchers() -> None:
    with forwarded(9) as port:
        assert port.bottle.stdin
        port.bottle.stdin.close()
        assert port.bottle.wait(GUARD) == 0


def turns(end: relay.Listening) -> None:
    while True:
        end.turn()


@contextlib.contextmanager
def opposite(*sent: bytes, connections: int = 1) -> Iterator[tuple[relay.Listening, int, list[socket.socket]]]:
    """Give the launcher's end connections, if it is greeted, and then what the bottle sends; yield its sink as well."""
    source, bottle = os.pipe()
    heard, sink = os.pipe()
    said = list[str]()
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        for descriptor in (source, bottle, heard, sink):
            stack.callback(os.close, descriptor)
        end = relay.Listening(source, sink, listener, said.append)
        stack.callback(end.close)
        if sent[:1] == (HELLO,):
            os.write(bottle, HELLO)
            end.turn()
            made = []
            for _ in range(connections):
                made.append(stack.enter_context(socket.create_connection(listener.getsockname(), GUARD)))
                while len(end.streams) < len(made):
                    end.turn()
            os.write(bottle, b"".join(sent[1:]))
            yield end, heard, made
        else:
            os.write(bottle, b"".join(sent))
            yield end, heard, []


@pytest.mark.parametrize(
    "sent",
    [
        (b"HTTP/1.1 200 OK\r\n\r\n",),
        (b"\0" * 64,),
        (frame(READY, 0, b"claude-bottle relay 2"),),
        (frame(READY, 1, b"claude-bottle relay 1"),),
        (frame(DATA, 1, b"x"),),
        (HELLO, HELLO),
        (HELLO, frame(OPEN, 1)),
        (HELLO, frame(OPEN, 2)),
        (HELLO, frame(READY, 1, b"claude-bottle relay 1")),
        (HELLO, frame(0, 1)),
        (HELLO, frame(8, 1)),
        (HELLO, frame(255, 1, b"x")),
        (HELLO, frame(DATA, 1)),
        (HELLO, frame(DATA, 1, b"x" * 16385)[:7]),
        (HELLO, frame(DATA, 0, b"x")),
        (HELLO, frame(DATA, 2, b"x")),
        (HELLO, frame(DATA, (1 << 32) - 1, b"x")),
        (HELLO, frame(END, 1, b"x")),
        (HELLO, frame(END, 2)),
        (HELLO, frame(END, 1), frame(END, 1)),
        (HELLO, frame(END, 1), frame(DATA, 1, b"x")),
        (HELLO, frame(END, 1), frame(REFUSED, 1)),
        (HELLO, frame(RESET, 1), frame(DATA, 1, b"x")),
        (HELLO, frame(RESET, 1), frame(END, 1)),
        (HELLO, frame(RESET, 2)),
        (HELLO, frame(RESET, 0)),
        (HELLO, frame(RESET, 1, b"x")),
        (HELLO, frame(REFUSED, 2)),
        (HELLO, frame(MORE, 1, count(1))),
        (HELLO, frame(MORE, 1, count(0))),
        (HELLO, frame(MORE, 1, count((1 << 32) - 1))),
        (HELLO, frame(MORE, 1, b"x")),
        (HELLO, frame(MORE, 2, count(1))),
    ],
)
def test_what_no_relay_sends_ends_it(sent: tuple[bytes, ...]) -> None:
    with opposite(*sent) as (end, _, _), pytest.raises(Malformed):
        turns(end)


def test_more_than_was_granted_ends_it() -> None:
    """The client reads nothing: what the system does not hold for it is the relay's, up to the window."""
    source, bottle = os.pipe()

    def flood() -> None:
        with contextlib.suppress(BrokenPipeError):
            while True:
                os.write(bottle, frame(DATA, 1, b"x" * 16384))

    with socket.create_server(("127.0.0.1", 0)) as listener, Path(os.devnull).open("wb") as null:
        end = relay.Listening(source, null.fileno(), listener, print)
        os.write(bottle, HELLO)
        end.turn()
        with socket.create_connection(listener.getsockname()):
            while not end.streams:
                end.turn()
            thread = threading.Thread(target=flood)
            thread.start()
            with pytest.raises(Malformed):
                turns(end)
            held = len(end.streams[1].pending)
            end.close()
        os.close(source)
        thread.join(GUARD)
        os.close(bottle)
    assert WINDOW // 2 < held <= WINDOW


def test_nothing_is_accepted_before_the_greeting() -> None:
    with opposite(HELLO[:-1]) as (end, _, _):
        end.turn()
        assert (end.greeted, end.streams) == (False, {})


def test_what_crosses_the_end_of_a_connection_is_no_fault() -> None:
    crossing = (frame(RESET, 1), frame(MORE, 1, count(5)), frame(RESET, 1))
    with opposite(HELLO, *crossing, frame(DATA, 2, b"well"), connections=2) as (end, _, (first, second)):
        end.turn()
        end.turn()
        assert second.recv(4) == b"well"
        with pytest.raises(ConnectionResetError):
            first.recv(1)
        assert list(end.streams) == [2]


def test_a_frame_may_come_byte_by_byte() -> None:
    source, bottle = os.pipe()
    heard, sink = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        end = relay.Listening(source, sink, listener, print)
        for byte in HELLO:
            assert not end.greeted
            os.write(bottle, bytes((byte,)))
            end.turn()
        assert end.greeted
        os.close(bottle)
        with pytest.raises(EOFError):
            end.turn()
    for descriptor in (source, heard, sink):
        os.close(descriptor)


def test_the_program_runs_on_an_old_python_and_imports_the_standard_library_alone() -> None:
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"), feature_version=(3, 9))
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {name for name in names if name} <= sys.stdlib_module_names | {"collections.abc"}
