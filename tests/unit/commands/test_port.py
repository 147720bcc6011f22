"""A forwarded port: its words, and its ends, against a fake docker."""

import signal
import socket

import pytest

from claude_bottle.commands import port
from claude_bottle.commands.port import Ports
from claude_bottle.errors import UsageError
from tests.support.labels import LIST, row
from tests.support.owners import OBSERVER
from tests.support.scene import Scene
from tests.support.systems import NEEDS_IPV6

EXEC = "exec --interactive --user 1000:1000 claude-bottle-demo-1"
RUNNING = "State.Running}} claude-bottle-demo-1"


def free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number: int = server.getsockname()[1]
        return number


@pytest.mark.parametrize(
    ("text", "ports"),
    [("3000", (3000, 3000)), ("3000:8080", (3000, 8080)), ("1:65535", (1, 65535)), ("00080", (80, 80))],
)
def test_a_port_may_have_another_number_here(text: str, ports: tuple[int, int]) -> None:
    assert port.parse(text) == Ports(*ports)


@pytest.mark.parametrize(
    "text", ["", "0", "65536", "3000:", ":3000", "1:2:3", "-1", "3000:x", "٣", "1e3", "9" * 5000, "127.0.0.1:80"]
)
def test_what_is_no_port_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="is no port: expected one from 1 to 65535, or two such as 3000:8080"):
        port.parse(text)


@pytest.mark.parametrize(
    ("family", "address"),
    [
        pytest.param(socket.AF_INET, "127.0.0.1", id="IPv4"),
        # where browsers look first for what is under localhost
        pytest.param(socket.AF_INET6, "::1", id="IPv6", marks=NEEDS_IPV6),
    ],
)
def test_a_port_that_is_taken_is_one_line_and_nothing_runs_in_the_bottle(
    scene: Scene, family: socket.AddressFamily, address: str
) -> None:
    scene.rule(LIST, stdout=row("demo-1", OBSERVER))
    with socket.create_server((address, 0), family=family) as server:
        taken = server.getsockname()[1]
        code, out, err = scene.run("port", "demo", f"3000:{taken}")
    why = f"port {taken} of this machine is taken; try another: ./cli.py port demo-1 3000:8080"
    assert (code, out, err) == (71, "", f"claude-bottle: {why}\n")
    assert not [event for event in scene.log if event.starts("exec")]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"code": 126, "stderr": "Error response from daemon: No such container: x\n"}, "No such container: x"),
        ({"stdout": "Welcome\n"}, ""),
        ({"code": 1, "stderr": "".join(f"\x1b]0;{n}\x07 line\n" for n in range(2000))}, ""),
    ],
    ids=["absent", "rubbish", "flood"],
)
def test_a_bottle_without_a_relay_is_one_line(scene: Scene, answer: dict[str, object], message: str) -> None:
    scene.rule(LIST, stdout=row("demo-1", OBSERVER))
    scene.rule(EXEC, **answer)
    code, out, err = scene.run("port", "demo", f"3000:{free()}")
    assert (code, out, err.count("\n"), "\x1b" in err) == (70, "", 1, False), err
    assert message in err


def test_the_end_of_a_session_and_that_of_a_relay_are_told_apart(scene: Scene) -> None:
    hello = "\x01\0\0\0\0\0\x15claude-bottle relay 1"
    for running, time, code, message in (
        ("false", "", 0, "demo-1 has ended, and port {} is closed"),
        ("true", "", 70, "the relay in the bottle has ended: exit status 137"),
        ("true", "99999999", 70, "the relay in the bottle has ended: exit status 137"),
        ("true", "1", 0, "demo-1 has ended, and port {} is closed"),  # its limit: the work is being brought back
    ):
        scene._rules.clear()
        scene.rule(LIST, stdout=row("demo-1", OBSERVER, time=time))
        scene.rule(EXEC, stdout=hello, code=137)
        scene.rule(RUNNING, stdout=f"{running}\n")
        number = free()
        patches: dict[str, object] = {"commands.port._GRACE": 0.5}
        ended = scene.run("port", "demo", f"3000:{number}", patches=patches)
        assert ended[0] == code, ended
        assert ended[1] == f"http://demo-1.localhost:{number}\n"
        assert ended[2] == f"claude-bottle: {message.format(number)}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_closes_the_port_and_says_so_last(scene: Scene, number: signal.Signals) -> None:
    scene.rule(LIST, stdout=row("demo-1", OBSERVER))
    scene.rule(EXEC, stdout="\x01\0\0\0\0\0\x15claude-bottle relay 1", stays="relay")
    local = free()
    child = scene.launch("port", "demo", f"3000:{local}")
    assert child.stdout
    assert child.stdout.readline() == f"http://demo-1.localhost:{local}\n"
    child.send_signal(number)
    code, _, err = scene.end(child)
    assert (code, err) == (128 + number, f"claude-bottle: port {local} is closed; demo-1 goes on\n")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", local))
