"""Run docker's command line and a few other programs; the only module that starts processes."""

import contextlib
import os
import select
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, cast

from claude_bottle.errors import EngineError
from claude_bottle.process import wording

NO_ANSWER = "no answer within"
_TIMED_OUT = 124  # as timeout(1) has it
_LONGEST_LINE = 1 << 22  # bytes
_OTHERS = 5.0  # seconds for a program that is not docker
_CHUNK = 1 << 16  # bytes read at once
_SIGTERM, _SIGKILL = 15, 9
# A limit that cannot be set is lower already, or one that this system does not have.
_LIMITED = 'ulimit -v "$1" 2>/dev/null; ulimit -t "$2" 2>/dev/null; shift 2; exec "$@"'


@dataclass(frozen=True)
class Result:
    """How a docker command ended."""

    returncode: int
    stdout: bytes = b""
    stderr: str = ""
    seconds: float = 0.0  # how long it took

    @property
    def ok(self) -> bool:
        """Return whether the command succeeded."""
        return self.returncode == 0

    @property
    def answered(self) -> bool:
        """Return whether an engine surely answered: the command succeeded, or its failure is the engine's own."""
        return self.ok or wording.says(wording.ANSWER, self.stderr)

    @property
    def absent(self) -> bool:
        """Return whether the command failed and says that its object does not exist.

        Without an engine's answer this is not to be trusted: see `Engine.checked`.
        """
        return not self.ok and wording.says(wording.ABSENT, self.stderr)

    @property
    def timed_out(self) -> bool:
        """Return whether the command was terminated because it took too long."""
        return self.returncode == _TIMED_OUT

    @property
    def reason(self) -> str:
        """Return docker's own explanation, in one line."""
        return wording.gist("docker", self.stderr) or f"exit status {self.returncode}"


@dataclass
class Client:
    """A docker client that runs in a session of its own, so that the terminal's Ctrl-C does not reach it."""

    process: subprocess.Popen[bytes] = field(repr=False)
    argv: tuple[str, ...]
    parting: bytes = b""  # what its stdin gets before it is closed
    _feeder: threading.Thread | None = field(default=None, repr=False)
    _closing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def pid(self) -> int:
        """Return the client's process id."""
        return self.process.pid

    def wait(self, stdin: bytes = b"", timeout: float | None = None) -> Result:
        """Feed `stdin`, wait for the end and return the result; terminate the client after `timeout` seconds."""
        if self._feeder:
            self._feed(stdin, last=True)
        try:
            out, err = self.process.communicate(None if self._feeder else stdin, timeout)
        except subprocess.TimeoutExpired:
            self.terminate()
            self._close_output()
            return Result(_TIMED_OUT, b"", f"{NO_ANSWER} {timeout:.0f} s")
        return Result(self.process.returncode, out or b"", (err or b"").decode(errors="replace"))

    def ready(self, stdin: bytes, timeout: float) -> Result:
        """Feed `stdin` and keep it open; return at the first line on stdout, at the end, or after `timeout` seconds.

        In the last case the client is terminated, with whatever it started and did not detach.
        """
        if self.process.stdin:
            self._feed(stdin)
        out: IO[bytes] = self.process.stdout  # type: ignore[assignment]  # it is a pipe: see start()
        line, end = b"", time.monotonic() + timeout
        while b"\n" not in line and len(line) < _LONGEST_LINE:
            if not select.select([out], [], [], max(0.0, end - time.monotonic()))[0]:
                with contextlib.suppress(OSError):  # once the client is waited for, its group has no safe name
                    os.killpg(self.pid, _SIGTERM)
                self.terminate()
                self._close_output()
                return Result(_TIMED_OUT, b"", f"{NO_ANSWER} {timeout:.0f} s")
            if not (part := os.read(out.fileno(), _CHUNK)):
                break
            line += part
        if b"\n" not in line and len(line) < _LONGEST_LINE:  # it has ended in the middle of it
            return replace(self.wait(timeout=timeout), stdout=line)
        for pipe in (out, self.process.stderr):
            threading.Thread(target=_drain, args=(pipe,), daemon=True).start()
        return Result(0, b"".join(line.partition(b"\n")[:2]))

    def give(self, stdin: bytes, *, last: bool = False) -> None:
        """Feed its stdin, without waiting; unless this is the `last` of it, `wait` or `ready` feeds the rest."""
        self._feed(stdin, last=last)

    def _feed(self, stdin: bytes, *, last: bool = False) -> None:
        """Feed `stdin` in a thread, after what has been fed before, and close the pipe if it is the `last`."""
        before, pipe = self._feeder, self.process.stdin

        def feed() -> None:
            if before:
                before.join()
            with contextlib.suppress(OSError, ValueError):  # a process that does not read it has ended
                pipe.write(stdin)  # type: ignore[union-attr]  # it is a pipe: see start()
                pipe.flush()  # type: ignore[union-attr]
            if last:
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]

        if last:
            self.process.stdin = None  # which communicate() would close
        self._feeder = threading.Thread(target=feed, daemon=True)
        self._feeder.start()

    def let_go(self) -> None:
        """Close the container process's stdin, without waiting."""
        with self._closing:  # teardown may come while the monitor is at it
            self._close_stdin()

    def _close_stdin(self) -> None:
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.write(self.parting)
                self.process.stdin.close()
            self.process.stdin = None

    def close_stdin(self, grace: float = 2) -> None:
        """Close the container process's stdin and wait for the client; terminate it after `grace` seconds."""
        with self._closing:
            self._close_stdin()
            try:
                self.process.communicate(timeout=grace)  # unlike wait() it does not poll for the end every 50 ms
            except subprocess.TimeoutExpired:
                self.terminate(grace)
                self._close_output()

    def _close_output(self) -> None:
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    def terminate(self, grace: float = 2) -> None:
        """Terminate the client, by force after `grace` seconds; the engine still carries out its request."""
        self.process.terminate()
        if not self.ended_within(grace):
            self.process.kill()
            self.ended_within(grace)

    def kill_group(self) -> None:
        """Kill the client, if it has not ended, with whatever it started and did not detach."""
        if not self.ended_within(0):
            with contextlib.suppress(OSError):
                os.killpg(self.pid, _SIGKILL)
            self.process.wait()

    def ended_within(self, grace: float) -> bool:
        """Wait at most `grace` seconds for the client to exit; return whether it did."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(grace)
        return self.process.returncode is not None


def _drain(out: IO[bytes]) -> None:
    """Read what nobody reads: the engine holds a container up whose output its client does not take."""
    with contextlib.suppress(OSError, ValueError):
        while os.read(out.fileno(), 1 << 16):
            pass


def limited(argv: Sequence[str], *, memory: int, seconds: int) -> tuple[str, ...]:
    """Return the command that runs `argv` with `memory` bytes of address space and `seconds` of CPU time.

    Each of its processes has as much. If there is no such program, it exits with 127.
    """
    return ("/bin/sh", "-c", _LIMITED, "sh", str(memory >> 10), str(seconds), *argv)


def start(
    argv: Sequence[str],
    env: Mapping[str, str],
    stdin: int = subprocess.PIPE,
    *,
    shown: bool = False,
    mixed: bool = False,
    inherited: Sequence[int] = (),
) -> Client:
    """Start a docker command with `env` as its whole environment; `stdin` is a descriptor, instead of a pipe to feed.

    `shown` sends its output to this process's stderr, as progress, instead of collecting it; `mixed` collects its
    stderr with its stdout, in order; `inherited` are descriptors that it shares under their numbers. Raises EngineError
    if there is no docker command.
    """
    pipe = None if shown else subprocess.STDOUT if mixed else subprocess.PIPE
    out = 2 if shown else subprocess.PIPE
    process = _popen(argv, env, stdin=stdin, stdout=out, stderr=pipe, pass_fds=tuple(inherited))
    return Client(process, tuple(argv))


def run(argv: Sequence[str], env: Mapping[str, str], *, stdin: bytes = b"", timeout: float | None = None) -> Result:
    """Run a docker command to its end and collect its output."""
    return start(argv, env).wait(stdin, timeout)


def output(argv: Sequence[str], env: Mapping[str, str]) -> bytes:
    """Return the stdout of another program of this machine; nothing if it is missing, fails or does not end."""
    try:
        result = run(argv, env, timeout=_OTHERS)
    except EngineError:
        return b""
    return result.stdout if result.ok else b""


def lines(
    argv: Sequence[str],
    env: Mapping[str, str],
    longest: int = 1 << 22,
    stdin: bytes = b"",
    started: Callable[[int], None] = lambda _: None,
    ended: Callable[[int], None] = lambda _: None,
) -> Iterator[bytes]:
    """Yield each line of a docker command's stdout, split at LF alone and cut after `longest` bytes; stderr is dropped.

    `stdin` must fit into a pipe's buffer. The command is terminated when the iterator is closed. `started` is called
    with its pid, `ended` with its exit code.
    """
    null, pipe = subprocess.DEVNULL, subprocess.PIPE
    process = _popen(argv, env, stdin=pipe, stdout=pipe, stderr=null)
    started(process.pid)
    whole = True  # the last chunk ended its line
    try:
        with contextlib.suppress(OSError), process.stdin as given:  # type: ignore[union-attr]  # it is a pipe, too
            given.write(stdin)
        while chunk := process.stdout.readline(longest):  # type: ignore[union-attr]  # it is a pipe: see above
            if whole:
                yield chunk.removesuffix(b"\n")
            whole = chunk.endswith(b"\n")
        ended(process.wait())
    finally:
        Client(process, tuple(argv)).terminate()
        process.stdout.close()  # type: ignore[union-attr]


def merged(
    commands: Iterable[Sequence[str]],
    env: Mapping[str, str],
    longest: int = 1 << 22,
    ended: Callable[[int], None] = lambda _: None,
) -> Iterator[bytes]:
    """Yield each line of several docker commands that run side by side as `lines` does, in the order of arrival."""
    with contextlib.ExitStack() as stack:
        begun: dict[IO[bytes], tuple[Client, bytes]] = {}  # with the beginning of each one's next line
        for argv in commands:
            null, pipe = subprocess.DEVNULL, subprocess.PIPE
            process = _popen(argv, env, stdin=null, stdout=pipe, stderr=null, bufsize=0)
            client, out = Client(process, tuple(argv)), cast("IO[bytes]", process.stdout)
            stack.callback(out.close)
            stack.callback(client.terminate)
            begun[out] = (client, b"")
        while begun:
            for out in select.select(list(begun), [], [])[0]:
                client, head = begun[out]
                chunk = out.read(_CHUNK)
                *whole, rest = (head + chunk).split(b"\n")
                yield from (line[:longest] for line in whole)
                begun[out] = (client, rest[:longest])
                if not chunk:
                    yield from [rest] if rest else []
                    del begun[out]
                    ended(client.process.wait())


def unheard(argv: Sequence[str], env: Mapping[str, str]) -> Client:
    """Start another program of this machine with nothing on stdin, and drop its output; raises EngineError."""
    null = subprocess.DEVNULL
    return Client(_popen(argv, env, stdin=null, stdout=null, stderr=null), tuple(argv))


def attach(
    argv: Sequence[str], env: Mapping[str, str], *, silent: bool, heard: Callable[[bytes], None] | None = None
) -> int:
    """Run a docker command on this process's own stdout and stderr, and stdin unless `silent`; return its exit code.

    If given, `heard` is called with all that it writes on stdout, also once this process's own takes no more. Raises
    OSError then, at the command's end, unless it is only that nobody reads any more.
    """
    out = subprocess.PIPE if heard else None
    process = _popen(argv, env, stdin=subprocess.DEVNULL if silent else None, stdout=out)
    try:
        failed = _copy(process.stdout, heard) if heard and process.stdout else None
        code = process.wait()
        if failed and not isinstance(failed, BrokenPipeError):
            raise failed
        return code if code >= 0 else 128 - code
    finally:
        if process.poll() is None:
            Client(process, tuple(argv)).terminate()
        if process.stdout:
            process.stdout.close()


def _copy(pipe: IO[bytes], heard: Callable[[bytes], None]) -> OSError | None:
    """Copy a pipe to stdout, to its end; once that takes no more, to nowhere. Return why it did not."""
    failed: OSError | None = None
    while data := os.read(pipe.fileno(), _CHUNK):
        heard(data)
        try:
            while data and not failed:
                data = data[_written(1, data) :]
        except OSError as error:
            error.filename = error.filename or "stdout"
            failed = error
    return failed


def _written(descriptor: int, data: bytes) -> int:
    """Write, also where another program has made the descriptor non-blocking; return how much. Raises OSError."""
    while True:
        try:
            return os.write(descriptor, data)
        except BlockingIOError:
            select.select([], [descriptor], [])


def gather(argv: Sequence[str], env: Mapping[str, str], take: Callable[[int, bytes], None]) -> int:
    """Run a docker command with nothing on stdin; return its exit code.

    `take` is called with what it writes, as it comes, and whether that is on 1, its stdout, or 2, its stderr.
    """
    pipe = subprocess.PIPE
    process = _popen(argv, env, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, bufsize=0)
    open_ends = {end.fileno(): number for number, end in ((1, process.stdout), (2, process.stderr)) if end}
    try:
        while open_ends:
            for descriptor in select.select(list(open_ends), [], [])[0]:
                data = os.read(descriptor, _CHUNK)
                take(open_ends[descriptor], data)
                if not data:
                    del open_ends[descriptor]
        code = process.wait()
        return code if code >= 0 else 128 - code
    finally:
        Client(process, tuple(argv)).terminate()
        for end in (process.stdout, process.stderr):
            if end:
                end.close()


def detach(argv: Sequence[str], env: Mapping[str, str], inherited: Sequence[int] = ()) -> IO[bytes]:
    """Start a helper that outlives this process and its terminal; return the pipe that is its stdin.

    `inherited` are descriptors that it shares under their numbers.
    """
    null, shared = subprocess.DEVNULL, tuple(inherited)
    process = _popen(argv, env, stdin=subprocess.PIPE, stdout=null, stderr=null, bufsize=0, pass_fds=shared)
    process.returncode = 0  # nobody waits for it: avoids the warning that it still runs
    pipe: IO[bytes] = process.stdin  # type: ignore[assignment]  # it is a pipe: see above
    return pipe


def _popen(
    argv: Sequence[str], env: Mapping[str, str], **options: int | tuple[int, ...] | None
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(argv, env=dict(env), start_new_session=True, **options)  # type: ignore[call-overload, no-any-return]
    except FileNotFoundError:
        how = "install Docker (on Debian: apt install docker.io)" if argv[0] == "docker" else f"install {argv[0]}"
        raise EngineError(f"{argv[0]} is not on PATH: {how}") from None
    except OSError as error:
        raise EngineError(f"{argv[0]} cannot be run: {os.strerror(error.errno or 0)}") from None
