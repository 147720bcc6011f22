"""One ssh connection that carries all docker commands of a session on an engine behind `ssh://`.

Docker itself opens connections for each command. This one forwards the engine's socket to a socket of this machine, and
ends when nobody holds a pipe any more that the launcher and its watchdog have: when both are dead, and not before.
"""

import contextlib
import os
import re
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from claude_bottle import PREFIX
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.errors import EngineError
from claude_bottle.host import console, own_file, stage_dir
from claude_bottle.host.owner import Owner
from claude_bottle.host.stage_dir import StageDir
from claude_bottle.process import command, endpoint, stream
from claude_bottle.process.command import Client, Result
from claude_bottle.process.deadline import spoken
from claude_bottle.process.endpoint import FORWARDED, UNIX

Argv = tuple[str, ...]

NAME = "link"  # of its folder, in the place of a session's; no session has this one
_PAUSE = 1.0  # seconds between two attempts to open it again
_LONGEST = 103  # bytes of a socket's path on macOS; Linux takes four more
_OPENING = 30.0  # seconds until the connection is there, after which docker's own is tried
_ANSWER = 20.0  # seconds for the engine to answer through it; ssh notices a cut in less
_URL = re.compile(r"ssh://(?:([\w.+-]+)@)?([\w.-]+|\[[0-9A-Fa-f:.%\w]+\])(?::(\d+))?(/[\w./@+-]*)?", re.ASCII)
_SOCKET = "docker.sock"
_PLAIN = re.compile(r"/[\w./@+-]*", re.ASCII)  # a path that ssh neither splits nor expands
_THERE = "/var/run/docker.sock"
_USUAL = (_THERE, "/run/docker.sock")  # the same
_ELSEWHERE = "docker there leads to another socket"
_PING = b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n"
# "up" comes after the socket, with the engine that docker's own ssh:// leads to: a command there, which heeds the
# settings of that login. At the end of stdin it ends the connection: else that waits for the last client.
_REMOTE = (
    "exec sh -c 'echo up $(docker context inspect --format {{.Endpoints.docker.Host}} </dev/null 2>/dev/null); "
    "cat; kill $PPID'"
)
# The folder, and the link to it if there is one, stay until nobody holds the pipe any more, also if ssh has ended:
# else another user of this machine could make one of that name, with a socket, and be taken for the engine. Without the
# file this one never worked, and the folder goes at once unless it is that of one which did: `again`.
_HELD = "held"
_LOCAL = f"""\
link=$1 again=$2
shift 2
"$@"
if [ -e "$0/{_HELD}" ]; then cat > /dev/null; elif [ "$again" ]; then exit; fi
rm -rf -- "$0" "$link"
"""
_UNUSED = ("DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")  # would be for another way


class Forward:
    """A connection to an ssh endpoint; `held` is the descriptor of the pipe that keeps it open."""

    def __init__(self, url: str, env: Mapping[str, str], owner: Owner) -> None:
        """Prepare it; nothing is started yet."""
        self._url, self._env, self._owner = url, env, owner
        self._folder, self._link = _place(env)
        self._there = ""  # the socket there, if it is not the usual one
        self._life, self.held = os.pipe()
        self._client: Client | None = None
        self._restoring = threading.Lock()
        self.cuts = 0  # how often it was cut
        self.since: float | None = None  # when the first cut was noticed, by the monotonic clock

    def environ(self, env: Mapping[str, str]) -> dict[str, str]:
        """Return an environment whose docker commands go through it, and are known to lead elsewhere."""
        kept = {name: value for name, value in env.items() if name not in _UNUSED}
        return {**kept, "DOCKER_HOST": f"{UNIX}{self._folder / _SOCKET}", FORWARDED: self._url}

    def open(self) -> str:
        """Open it, again if it has been cut; return why it cannot be opened, nothing if it is open."""
        why = self._open()
        # The login's settings are known only now. A path in the URL counts more.
        if why == _ELSEWHERE:
            why = self._open()
        return why

    def _open(self) -> str:
        if self._client:
            self._client.kill_group()
        try:
            self._make()
            argv = _wrapped(self._url, self._folder, self._link, self._there, again=self.cuts > 0)
            client = self._client = command.start(argv, self._env, self._life)
        except EngineError as error:
            self._discard()
            return str(error)
        except OSError as error:
            return escape_control_chars(f"{self._folder}: {error.strerror}")
        opened = False
        try:
            result = client.ready(b"", _OPENING)
            elsewhere = self._leads_elsewhere(result)
            opened = result.ok and not elsewhere and self.answers() and self._hold()
        finally:
            if not opened:  # or the user has pressed Ctrl-C
                client.kill_group()
                self._discard()
        if opened or elsewhere:
            return elsewhere
        said = result.stderr.strip().splitlines() or ["no engine answers at its other end"]
        return escape_control_chars(said[-1])

    def _leads_elsewhere(self, result: Result) -> str:
        """Return why the engine that this one leads to is not that of docker's own way; _ELSEWHERE if it can be."""
        word, _, host = result.stdout.decode(errors="replace").strip().partition(" ")
        path = host.removeprefix(UNIX)
        usual = (self._there,) if self._there else _USUAL
        if word != "up" or "://" not in host or self._named or path in usual:  # a login may print what it likes
            return ""
        if self._there or path == host or not _PLAIN.fullmatch(path):
            return escape_control_chars(f"docker there leads to {host}")
        self._there = path
        return _ELSEWHERE

    @property
    def _named(self) -> bool:
        """Return whether the URL has a path."""
        match = _URL.fullmatch(self._url)
        return bool(match and match[4] not in (None, "/"))

    def answers(self) -> bool:
        """Return whether an engine answers through it."""
        return _answers(self._folder / _SOCKET)

    def restore(self, seconds: float = 0.0, settle: Callable[[float], None] = lambda _: None) -> str | None:
        """Open it again if it has been cut, trying for so many `seconds`; return why that fails.

        Once it is open again, `settle` is called with the time, of the monotonic clock, at which the cut was noticed.
        """
        with self._restoring:  # whichever thread notices first
            if self.answers():
                return None
            self.cuts += 1
            limit = f", for at most {spoken(seconds)}" if seconds else ""
            console.say(f"the link to the engine was lost: opening it again{limit}")
            since = time.monotonic()
            self.since = self.since or since
            while why := self.open():
                if time.monotonic() > since + seconds or stream.heed(console.say):
                    return why
                time.sleep(_PAUSE)
            settle(since)
            return None

    def close(self) -> None:
        """Let go of it: it ends as soon as the watchdog has let go of it as well."""
        if self._client and self._client.ended_within(0):  # it is cut, and nobody else removes the folder
            self._remove()
        for descriptor in (self._life, self.held):
            os.close(descriptor)

    def _make(self) -> None:
        """Make the folder, or take that of before the cut; raises OSError if there is one that is not this user's."""
        with contextlib.suppress(FileNotFoundError):
            if self.cuts and own_file.owns_folder(self._folder):
                for name in (_SOCKET, _HELD):
                    (self._folder / name).unlink(missing_ok=True)
                return
        self._folder.mkdir(mode=0o700)
        StageDir(self._folder).write("owner", str(self._owner).encode())
        if self._link:
            with contextlib.suppress(OSError):  # without it only `cleanup` does not find the folder
                self._link.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._link.symlink_to(self._folder)

    def _hold(self) -> bool:
        """Have the folder stay after a cut; return whether that could be done."""
        with contextlib.suppress(OSError):
            StageDir(self._folder).write(_HELD, b"")
            return True
        return False

    def _discard(self) -> None:
        """Remove the folder if it never was in use."""
        if not self.cuts:
            self._remove()

    def _remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._link:
            with contextlib.suppress(OSError):
                self._link.unlink(missing_ok=True)


@contextlib.contextmanager
def opened(env: Mapping[str, str], owner: Owner) -> Iterator[Forward | None]:
    """Yield an open connection, None if docker's commands do not lead to an ssh endpoint, or it cannot be opened.

    The latter is printed. Raises EngineError if there is no docker command.
    """
    url = endpoint.read(env).url
    if not can_be_forwarded(url):
        yield None
        return
    made = Forward(url, env, owner)
    try:
        if why := made.open():
            console.say(f"each docker command opens its own ssh connection, which takes longer: {why}")
        yield None if why else made
    finally:
        made.close()


def can_be_forwarded(url: str) -> bool:
    """Return whether an endpoint is one that ssh can forward; docker itself explains what is wrong with others."""
    return bool(_URL.fullmatch(url))


def shown(url: str, env: Mapping[str, str]) -> tuple[str, Argv]:
    """Return the DOCKER_HOST of an endpoint's forward, and the command that opens it, as a dry run shows them."""
    folder, link = _place(env)
    return f"{UNIX}{folder / _SOCKET}", _wrapped(url, folder, link)


def way(env: Mapping[str, str]) -> Mapping[str, str]:
    """Return an environment whose docker commands lead to the engine also if its forward has ended."""
    if FORWARDED not in env or _answers(Path(env["DOCKER_HOST"].removeprefix(UNIX))):
        return env
    return {**env, "DOCKER_HOST": env[FORWARDED]}


def _place(env: Mapping[str, str]) -> tuple[Path, Path | None]:
    """Return an unused folder in which a socket has a path that is short enough, and the link to it if it needs one.

    `cleanup` looks for it in the temporary directory, and where the links of stage dirs lead.
    """
    name = f"{PREFIX}-{NAME}-{secrets.token_hex(4)}"
    folder = Path(tempfile.gettempdir()).absolute() / name
    path = str(folder / _SOCKET)
    if len(os.fsencode(path)) <= _LONGEST and _PLAIN.fullmatch(path):
        return folder, None
    return Path("/tmp") / name, stage_dir.links(env) / name  # noqa: S108  (made with mode 700, or not at all)


def _wrapped(url: str, folder: Path, link: Path | None, socket_there: str = "", *, again: bool = False) -> Argv:
    match = _URL.fullmatch(url)
    assert match  # noqa: S101  (it can be forwarded)
    user, host, port, there = match.groups()
    path = there if there not in (None, "/") else socket_there or _THERE
    return (
        *("/bin/sh", "-c", _LOCAL, str(folder), str(link or folder), "again" if again else ""),
        # Not over a connection that others share, as it is to end. Nor does it fail for a forward of the user's own:
        # whether this one works is asked through it.
        *("ssh", "-T", "-o", "ControlPath=none", "-o", "ConnectTimeout=10", "-o", "ExitOnForwardFailure=no"),
        *("-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
        *("-L", f"{folder / _SOCKET}:{path}"),
        *(("-l", user) if user else ()),
        *(("-p", port) if port else ()),
        *("--", host.strip("[]"), _REMOTE),
    )


def _answers(path: Path) -> bool:
    """Return whether an engine answers at a socket in a folder of this user's."""
    try:
        if not own_file.owns_folder(path.parent):
            return False
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_ANSWER)
            connection.connect(str(path))
            connection.sendall(_PING)
            return connection.recv(5) == b"HTTP/"
    except OSError:
        return False
