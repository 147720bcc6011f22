"""One ssh connection for a session, with an ssh that forwards to nothing but an answer."""

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from claude_bottle.process import forward
from claude_bottle.process.endpoint import FORWARDED
from tests.support.matrix import watchdogs
from tests.support.scene import STEPS, TRUSTING, USUAL, Event, Scene

SSH = Path(__file__).parents[2] / "support" / "programs" / "fake_ssh.py"
URL = "ssh://ada@build-1:2222"
START = ("start", "demo", "--yes")
GUARD = 60
FALLEN_BACK = "claude-bottle: each docker command opens its own ssh connection, which takes longer: "

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds the watchdog in /proc")


class Far:
    """A scene whose engine is behind ssh."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        ssh = scene.docker.with_name("ssh")
        ssh.write_text(f"#!{sys.executable} -IS\n{SSH.read_text()}")
        ssh.chmod(0o755)
        scene.environ |= {"PATH": f"{scene.docker.parent}:/usr/bin:/bin", "DOCKER_HOST": URL, "DOCKER_CONTEXT": "x"}
        scene.environ |= {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/x"}

    @property
    def connections(self) -> list[int]:
        """The pids of the connections so far."""
        return [line["pid"] for line in self._lines()]

    @property
    def forwards(self) -> list[str]:
        """What each connection so far forwards."""
        return [line["argv"][line["argv"].index("-L") + 1] for line in self._lines()]

    @property
    def argv(self) -> list[str]:
        [line] = self._lines()
        return list(line["argv"])

    def _lines(self) -> list[dict[str, Any]]:
        log = self.scene.folder / "ssh-log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def folders(self) -> list[Path]:
        return [path for path in self.scene.tmp.iterdir() if path.name.startswith("claude-bottle-link-")]

    def end(self, child: "subprocess.Popen[str]") -> tuple[int, str, str]:
        """Wait for the launcher's end, and for that of all else."""
        with child:
            out, err = child.communicate()
        assert "Traceback" not in err, err
        self.until_gone(child)
        return child.returncode, out, err

    def until_gone(self, child: "subprocess.Popen[str]") -> None:
        until(lambda: not watchdogs(child.pid))
        until(lambda: list(self.scene.tmp.iterdir()) == [])
        until(lambda: not any(map(alive, self.connections)))

    def run(self, *words: str, **environ: str) -> tuple[int, str, str]:
        return self.end(self.scene.launch(*words, patches=TRUSTING, **environ))


@pytest.fixture
def far(scene: Scene) -> Iterator[Far]:
    # In the test's own folder a socket's path is too long.
    with tempfile.TemporaryDirectory(prefix="cb-", dir="/tmp") as short:
        scene.tmp = Path(short)
        scene.environ["TMPDIR"] = short
        yield Far(scene)
        for pipe in (pipe for child in scene.children for pipe in (child.stdout, child.stderr) if pipe):
            pipe.close()


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + GUARD
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Return whether a process runs; one that nobody has waited for does not."""
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def cut(far: Far) -> None:
    """Have the connection end; its folder stays, so that nobody else can take its place."""
    os.kill(far.connections[-1], signal.SIGKILL)
    until(lambda: not alive(far.connections[-1]))
    assert len(far.folders()) == 1


def hosts(events: list[Event]) -> set[str]:
    return {event.more["env"].get("DOCKER_HOST", "")[:7] for event in events if event.kind == "start"}


def test_all_docker_commands_of_a_session_go_through_one_connection(far: Far) -> None:
    far.scene.rule(STEPS["claude"], fifo="claude", code=7)
    child = far.scene.launch(*START)
    with far.scene.held("claude"):
        [folder] = far.folders()
        owner = (folder / "owner").read_text()
        assert (folder.stat().st_mode & 0o777, f":{child.pid}:" in owner) == (0o700, True)
    assert far.end(child)[0] == 7
    assert len(far.connections) == 1
    assert far.argv[-3:] == ["--", "build-1", forward._REMOTE]
    assert far.argv[-7:-3] == ["-l", "ada", "-p", "2222"]
    assert f"{folder}/docker.sock:/var/run/docker.sock" in far.argv
    for event in (event for event in far.scene.calls if event.kind == "start"):
        env = event.more["env"]
        assert (env["DOCKER_HOST"], env[FORWARDED]) == (f"unix://{folder}/docker.sock", URL)
        assert not {"DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"} & env.keys()


def test_the_engine_behind_it_is_remote(far: Far) -> None:
    assert far.run(*START)[0] == 0
    starts = [event for event in far.scene.log if event.kind == "start"]
    [bottle] = [event for event in starts if event.starts(STEPS["bottle"])]
    assert "read -r -t 45" in bottle.argv[-1]
    assert [event for event in starts if event.starts("/proc/net/fib_trie")]


def test_it_ends_when_launcher_and_watchdog_are_dead_and_not_before(far: Far) -> None:
    far.scene.rule(STEPS["claude"], fifo="claude")
    far.scene.rule(" ".join(USUAL[0][1:]), fifo="removal")
    child = far.scene.launch(*START)
    with far.scene.held("claude"):
        child.kill()
        child.wait()
    with far.scene.held("removal"):  # by the watchdog
        assert [alive(pid) for pid in far.connections] == [True]
        assert len(far.folders()) == 1
    far.until_gone(child)
    late = [event for event in far.scene.calls if event.kind == "start" and event.more["parent"] != child.pid]
    assert hosts(late) == {"unix://"}


def test_it_ends_by_itself_when_both_are_killed(far: Far) -> None:
    far.scene.rule(STEPS["claude"], fifo="claude")
    child = far.scene.launch(*START)
    with far.scene.held("claude"):
        for pid in (*watchdogs(child.pid), child.pid):
            os.kill(pid, signal.SIGKILL)
        child.wait()
    until(lambda: not any(map(alive, far.connections)))
    until(lambda: far.folders() == [])


@pytest.mark.parametrize(("file", "why"), [("ssh-refuses", "not for you"), ("ssh-mute", "no engine answers at")])
def test_without_it_docker_opens_its_own(far: Far, file: str, why: str) -> None:
    (far.scene.folder / file).write_text("banner\nnot for you\n")
    code, _, err = far.run(*START)
    assert (code, err.count(FALLEN_BACK), f"{FALLEN_BACK}{why}" in err) == (0, 1, True), err
    assert hosts(far.scene.calls) == {URL[:7]}


def test_an_ssh_that_never_connects_is_not_left_behind(far: Far) -> None:
    (far.scene.folder / "ssh-hangs").touch()
    code, _, err = far.end(far.scene.launch(*START, patches=TRUSTING | {"process.forward._OPENING": 1}))
    assert (code, f"{FALLEN_BACK}no answer within 1 s" in err) == (0, True), err


def test_a_forward_of_the_user_s_own_that_fails_is_no_reason(far: Far) -> None:
    assert far.run(*START)[0] == 0
    assert "ExitOnForwardFailure=no" in far.argv  # their configuration may say otherwise


@pytest.mark.parametrize(
    ("there", "path"),
    [
        ("unix:///run/user/1000/docker.sock", "/run/user/1000/docker.sock"),
        ("unix:///run/docker.sock", "/var/run/docker.sock"),
        ("5 days", "/var/run/docker.sock"),
    ],
)
def test_it_leads_where_docker_s_own_way_does(far: Far, there: str, path: str) -> None:
    """That runs a command at the other end, which heeds the settings of the login."""
    (far.scene.folder / "ssh-there").write_text(there)
    code, _, err = far.run(*START)
    assert (code, FALLEN_BACK in err, hosts(far.scene.calls)) == (0, False, {"unix://"}), err
    assert far.forwards[-1].endswith(f"/docker.sock:{path}")
    assert len(far.connections) == (2 if "user" in there else 1)


@pytest.mark.parametrize("there", ["tcp://192.0.2.1:2375", "unix:///a:b"])
def test_where_it_cannot_lead_docker_goes_its_own_way(far: Far, there: str) -> None:
    (far.scene.folder / "ssh-there").write_text(there)
    code, _, err = far.run(*START)
    assert (code, f"{FALLEN_BACK}docker there leads to {there}\n" in err, len(far.connections)) == (0, True, 1), err
    assert hosts(far.scene.calls) == {URL[:7]}


def test_without_ssh_docker_says_what_it_needs(far: Far) -> None:
    far.scene.docker.with_name("ssh").unlink()
    far.scene.docker.with_name("rm").symlink_to("/bin/rm")
    code, _, err = far.run(*START, PATH=str(far.scene.docker.parent))
    [line] = [line for line in err.splitlines() if line.startswith(FALLEN_BACK)]
    assert (code, line.endswith("ssh: not found")) == (0, True), err


def test_ctrl_c_does_not_wait_for_it(far: Far) -> None:
    (far.scene.folder / "ssh-hangs").touch()
    child = far.scene.launch(*START)
    until(lambda: far.connections != [])
    child.send_signal(signal.SIGINT)
    assert far.end(child)[0] == 130
    assert far.scene.calls == []


def test_one_that_is_cut_is_opened_again_for_the_end(far: Far) -> None:
    far.scene.rule(STEPS["claude"], fifo="claude")
    child = far.scene.launch(*START)
    with far.scene.held("claude"):
        cut(far)
    code, _, err = far.end(child)
    assert (code, err.count("the link to the engine was lost: opening it again\n")) == (0, 1), err
    assert len(far.connections) == 2
    assert hosts(far.scene.calls) == {"unix://"}
    assert far.scene.undone == USUAL


def test_one_that_cannot_be_opened_again_keeps_its_folder_until_it_is_let_go(far: Far) -> None:
    far.scene.rule(STEPS["claude"], fifo="claude")
    child = far.scene.launch(*START)
    with far.scene.held("claude"):
        [folder] = far.folders()
        cut(far)
        inode = folder.stat().st_ino
        (far.scene.folder / "ssh-refuses").write_text("no\n")
        far.scene.rule(" ".join(USUAL[0][1:]), fifo="removal")
    with far.scene.held("removal"):
        assert (len(far.connections), folder.stat().st_ino) == (2, inode)
    code, _, err = far.end(child)
    assert (code, "left behind: link" in err) == (75, True), err


def test_a_socket_in_another_user_s_folder_is_not_asked(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    path = far.scene.tmp / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as pool:
        listener.bind(str(path))
        listener.listen()
        env = {FORWARDED: URL, "DOCKER_HOST": f"unix://{path}"}

        def engine() -> None:
            with listener.accept()[0] as connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

        answering = pool.submit(engine)
        assert forward.way(env) == env
        answering.result()
        monkeypatch.setattr(os, "getuid", lambda: 12345)
        assert forward.way(env)["DOCKER_HOST"] == URL


def test_a_claude_that_a_cut_ended_did_not_exit_by_itself(far: Far) -> None:
    far.scene.rule(STEPS["claude"], fifo="claude", code=1)
    child = far.scene.launch(*START)
    with far.scene.held("claude"):
        cut(far)
    code, _, err = far.end(child)
    assert (code, "the link to the engine was lost, which ended the session" in err) == (69, True), err


def test_after_a_cut_the_watchdog_goes_docker_s_own_way(far: Far) -> None:
    far.scene.rule(STEPS["claude"], fifo="claude")
    child = far.scene.launch(*START)
    with far.scene.held("claude"):
        until(lambda: any(event.starts("logs --follow") for event in far.scene.calls))
        cut(far)
        before = len(far.scene.calls)
        child.kill()
        child.wait()
    until(lambda: not watchdogs(child.pid))
    late = [event for event in far.scene.calls[before:] if event.more["parent"] != child.pid]
    assert hosts(late) == {URL[:7]}, late
    assert [event for event in late if event.starts(" ".join(USUAL[-1]))]


@pytest.mark.parametrize("name", ["a" * 60, "a:b", "50%"])
def test_the_socket_has_a_short_and_plain_path_whatever_the_temporary_directory_is(far: Far, name: str) -> None:
    long = far.scene.folder / name
    long.mkdir()
    links = far.scene.folder / ".local/state/claude-bottle/stage-dirs"
    far.scene.rule(STEPS["claude"], fifo="claude")
    child = far.scene.launch(*START, TMPDIR=str(long))
    with far.scene.held("claude"):
        [link] = links.iterdir()
        folder = link.readlink()
        assert (folder.parent, (folder / "docker.sock").exists()) == (Path("/tmp"), True)
    assert far.end(child)[0] == 0
    until(lambda: not folder.exists() and not os.path.lexists(link))


@pytest.mark.parametrize("short", [True, False])
def test_cleanup_removes_what_a_dead_one_left(far: Far, short: bool) -> None:
    place = far.scene.tmp if short else far.scene.folder / ("a" * 60)
    place.mkdir(exist_ok=True)
    far.scene.rule(STEPS["claude"], fifo="claude")
    child = far.scene.launch(*START, TMPDIR=str(place))
    with far.scene.held("claude"):
        argv = far.argv
        folder = Path(argv[argv.index("-L") + 1].partition("/docker.sock:")[0])
        wrapper = int(Path(f"/proc/{far.connections[0]}/stat").read_text().split()[3])
        for pid in (wrapper, *watchdogs(child.pid), child.pid):
            os.kill(pid, signal.SIGKILL)
        child.wait()
    until(lambda: not any(map(alive, far.connections)))
    assert folder.exists()
    cleaned = far.scene.launch("cleanup", patches=TRUSTING, TMPDIR=str(place))
    out, err = cleaned.communicate()
    assert f"removed stage dir {folder}\n" in out, err
    assert not folder.exists()


def test_a_dry_run_shows_it_first_and_opens_nothing(far: Far) -> None:
    code, out, err = far.run("start", "demo", "--dry-run")
    assert (code, far.connections, far.scene.calls) == (0, [], []), err
    first, second, *_ = out.splitlines()
    assert first.startswith("# link, which all others go through: DOCKER_HOST=unix:///")
    assert shlex.split(second)[-7:] == ["-l", "ada", "-p", "2222", "--", "build-1", forward._REMOTE]


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ssh://host", ["--", "host"]),
        ("ssh://Host.Example/", ["--", "Host.Example"]),
        ("ssh://me@[2001:db8::1]:22", ["-l", "me", "-p", "22", "--", "2001:db8::1"]),
        ("ssh://host/run/user/1000/docker.sock", ["--", "host"]),
    ],
)
def test_what_ssh_is_given(url: str, words: list[str], tmp_path: Path) -> None:
    assert forward.can_be_forwarded(url)
    host, argv = forward.shown(url, {"HOME": str(tmp_path)})
    assert list(argv[-len(words) - 1 : -1]) == words
    there = "/run/user/1000/docker.sock" if "1000" in url else "/var/run/docker.sock"
    assert f"{host.removeprefix('unix://')}:{there}" in argv


@pytest.mark.parametrize(
    "url",
    ["unix:///x", "tcp://h:1", "", "ssh://", "ssh://a:pw@h", "ssh://h?x", "ssh://h/a:b", "ssh://h/a b", "ssh://h\n"],
)
def test_what_docker_is_left_to_explain(url: str) -> None:
    assert not forward.can_be_forwarded(url)
