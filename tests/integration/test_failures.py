"""What goes wrong before claude runs: the exit code, what the user is told, and that nothing is left."""

import grp
import os
import random
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.support.sessions import CLI, Bench, docker


def test_no_docker(bench: Bench) -> None:
    programs = bench.folder / "programs"
    programs.mkdir()
    for name in ("cmp", "readlink"):  # what the launcher needs
        (programs / name).symlink_to(shutil.which(name) or "")
    ended = bench.start("--yes", PATH=str(programs))
    assert (ended.code, ended.out) == (69, b"")
    assert ended.err.startswith("claude-bottle: docker is not on PATH")


@pytest.mark.parametrize(
    ("environ", "code", "told"),
    [
        ({"DOCKER_HOST": "unix:///nonexistent"}, 69, "docker cannot be used: "),
        (
            {"DOCKER_HOST": "unix:///nonexistent", "CLAUDE_BOTTLE_EGRESS_NETWORK": "no-such-network"},
            69,
            "docker cannot be used: ",
        ),
        ({"CLAUDE_BOTTLE_EGRESS_NETWORK": "no-such-network"}, 64, "CLAUDE_BOTTLE_EGRESS_NETWORK: no-such-network: "),
        ({"CLAUDE_BOTTLE_SUBNET": "10.212.0.0/30"}, 64, "CLAUDE_BOTTLE_SUBNET: 10.212.0.0/30 is too small"),
    ],
)
def test_what_cannot_start_is_told_in_one_line(bench: Bench, environ: dict[str, str], code: int, told: str) -> None:
    ended = bench.start("--yes", **environ)
    assert (ended.code, ended.out, len(ended.err.splitlines())) == (code, b"", 1), ended
    assert told in ended.err


@pytest.mark.parametrize("host", ["unix:///nonexistent", "tcp://127.0.0.1:1"])
@pytest.mark.parametrize(
    "command", ["verify", "build", "list", "stop --all", "cleanup", "logs x", "shell x", "fetch x", "diff x"]
)
def test_without_an_engine_every_command_ends_with_the_same_code(bench: Bench, command: str, host: str) -> None:
    ended = bench.run((str(CLI), *command.split()), {"DOCKER_HOST": host})
    assert ended.code == 69, ended
    assert "docker cannot be used: " in ended.err + ended.out.decode(), ended


@pytest.mark.parametrize(
    ("mode", "hint"), [(0, "; this user may not use "), (0o060, "; this login is not in the group ")]
)
def test_who_may_not_use_the_socket_is_told_why(bench: Bench, mode: int, hint: str) -> None:
    """As a user who is not in its group; root is not above permissions here."""
    path = bench.folder / "docker.sock"
    powers = "-dac_override,-dac_read_search"
    humble = ("setpriv", f"--bounding-set={powers}", f"--inh-caps={powers}") if os.geteuid() == 0 else ()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        path.chmod(mode)
        if os.geteuid() == 0:
            os.chown(path, -1, next(group.gr_gid for group in grp.getgrall() if group.gr_gid))
        ended = bench.run((*humble, str(CLI), "start", bench.name, "--yes"), {"DOCKER_HOST": f"unix://{path}"})
    assert (ended.code, ended.out, len(ended.err.splitlines())) == (69, b"", 1), ended
    assert ended.err.startswith("claude-bottle: docker cannot be used: "), ended
    assert hint in ended.err, ended


@pytest.mark.parametrize(
    ("words", "token", "code", "told"),
    [(("--yes",), "", 78, "claude setup-token"), ((), "token", 65, "stdin is not a terminal; pass --yes")],
    ids=["token", "terminal"],
)
def test_what_is_missing_is_told_before_docker_is_called(
    bench: Bench, words: tuple[str, ...], token: str, code: int, told: str
) -> None:
    calls = bench.folder / "calls"
    path = bench.program("docker", f'echo "$@" >> {calls}; exit 1')
    ended = bench.start(*words, PATH=path, CLAUDE_BOTTLE_OAUTH_TOKEN=token)
    assert (ended.code, ended.out, len(ended.err.splitlines())) == (code, b"", 1), ended
    assert told in ended.err
    assert not calls.exists()


def test_failed_build_shows_dockers_error(bench: Bench) -> None:
    folder = bench.agents / "broken"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"ARG BASE_IMAGE\nFROM $BASE_IMAGE\nRUN echo no luck, {bench.name}; false\n")
    bench.write({"image": {"dockerfile": "../broken/Dockerfile"}})
    ended = bench.start("--yes", "--print", "hello")
    assert ended.code == 70, ended
    assert f"no luck, {bench.name}\n" in ended.err
    assert ended.err.splitlines()[-1] == "claude-bottle: bottle-image: docker build failed, see above"
    assert ended.out == b""


@pytest.fixture(params=[0, 3])
def dying_sidecar(bench: Bench, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of an image that dies, at once or a little later, telling why."""
    dying = f'ENTRYPOINT ["sh", "-c", "sleep {request.param}; echo last words of {bench.name} >&2; exit 3"]'
    tag = f"claude-bottle-test:{bench.name}"
    docker("build", "--tag", tag, "-", stdin=f"FROM {bench.world.base_image}\n{dying}\n".encode())
    yield tag
    docker("image", "rm", "--force", tag)


def test_sidecar_that_dies_has_its_last_words_shown(bench: Bench, dying_sidecar: str) -> None:
    """Whether the gate cannot be put up any more, or the self-test finds nobody."""
    failed = bench.start("--yes", "--print", "hello", CLAUDE_BOTTLE_PIPELOCK_IMAGE=dying_sidecar)
    assert failed.code == 70, failed
    assert f"last words of {bench.name}" in failed.err


@contextmanager
def taken(bench: Bench, subnet: str) -> Iterator[None]:
    """Have a docker network that has `subnet`."""
    name = f"{bench.name}-{subnet.replace('/', '-')}"
    docker("network", "create", "--internal", "--subnet", subnet, name)
    try:
        yield
    finally:
        docker("network", "rm", name)


def test_taken_address_ranges_are_passed_over_until_none_is_left(bench: Bench) -> None:
    bench.puppet("hello")
    net = f"10.212.{random.randrange(256)}"
    with ExitStack() as stack:
        # All of the 32 but the last: a start that hits it at once proves nothing, and is rare.
        for subnet in ("0/25", "128/26", "192/27", "224/28", "240/29"):
            stack.enter_context(taken(bench, f"{net}.{subnet}"))
        ended = bench.start("--yes", "-v", CLAUDE_BOTTLE_SUBNET=f"{net}.0/24")
        assert ended.code == 0, ended
        ended = bench.start("--yes", CLAUDE_BOTTLE_SUBNET=f"{net}.0/25")
        assert ended.code == 70, ended
        assert ended.err.splitlines()[-1].startswith(f"claude-bottle: no free /29 is left in {net}.0/25: ")
