"""Stream data of any length into and out of a docker command or git, with progress and a time limit."""

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Protocol

from claude_bottle.errors import RepositoryError
from claude_bottle.host.console import Progress
from claude_bottle.process import command
from claude_bottle.process.command import NO_ANSWER, Client, Result

_BLOCK = 1 << 18  # bytes
_WORDS = 1 << 16  # bytes of a command's stderr that are kept
_TICK = 1.0  # seconds between two checks of the clock

Taken = Callable[[bytes], None]


class Sink(Protocol):
    """What takes a command's output: a file, or an object that keeps less of it."""

    def write(self, data: memoryview, /) -> int:
        """Take data; return how many bytes of it."""


@dataclass(frozen=True)
class Feed:
    """A command of this machine whose output is another's input; `stdin` is its own."""

    argv: tuple[str, ...]
    stdin: bytes


class _Patience:
    """How often the user has requested an abort during a teardown, and how many of these have been acknowledged."""

    asked = told = 0


def request_abort() -> None:
    """Note that the user wants to wait no longer: acknowledged at first, obeyed if repeated. For signal handlers."""
    _Patience.asked += 1


def aborts() -> int:
    """Return how often the user has requested an abort."""
    return _Patience.asked


def given_up() -> bool:
    """Return whether the user has asked again after they were told that this gives up."""
    return _Patience.asked > _Patience.told > 0


def heed(say: Callable[[str], None]) -> bool:
    """Return whether the user has given up; the first request is acknowledged."""
    if _Patience.asked and not _Patience.told:
        _Patience.told = _Patience.asked
        say("Ctrl-C again gives it up")
    return given_up()


class TooMuch(RepositoryError):
    """A command printed more than its limit."""


def pump(
    client: Client,
    *,
    what: str,
    seconds: float,
    head: bytes = b"",
    source: IO[bytes] | None = None,
    into: Sink | None = None,
    limit: int = 1 << 24,
) -> Result:
    """Give a client `head` and then all of the file or pipe `source`; terminate it after `seconds`.

    Its output, at most `limit` bytes, goes `into` a file or else into the result; raises TooMuch if there is more.
    `what` names it in the progress that is shown after a second.
    """
    out = bytearray()
    take = _whole(into) if into else out.extend
    talk = _Talk(client, head, source, _limited(take, limit), Progress(what))
    try:
        timed_out = talk.go(time.monotonic() + seconds)
    finally:
        talk.close()
    if timed_out:
        return Result(124, bytes(out), f"{NO_ANSWER} {seconds:.0f} s")
    return Result(client.process.returncode, bytes(out), talk.words.decode(errors="replace"))


def piped(client: Client, head: bytes, feed: Feed, env: Mapping[str, str], *, what: str, seconds: float) -> Result:
    """Give a client `head` and then all output of a command; the first fault counts."""
    feeder = command.start(feed.argv, env)
    said: list[bytes] = []
    with feeder.process as process:
        listener = threading.Thread(target=lambda: said.append(process.stderr.read()), daemon=True)  # type: ignore[union-attr]
        listener.start()
        with contextlib.suppress(OSError):
            process.stdin.write(feed.stdin)  # type: ignore[union-attr]  # they are pipes: see command.start()
            process.stdin.close()  # type: ignore[union-attr]
        try:
            result = pump(client, what=what, seconds=seconds, head=head, source=process.stdout)
        finally:
            if process.stdout:
                process.stdout.close()  # it ends, if it still writes
            if not feeder.ended_within(_TICK):
                feeder.terminate()
            listener.join()
    # A feeder that was cut off has nothing to report: the client says why.
    if process.returncode > 0 and b"".join(said).strip():
        return Result(process.returncode, b"", b"".join(said).decode(errors="replace"))
    return result


def follow(client: Client, stdin: bytes, take: Taken, tick: Callable[[], None]) -> Result:
    """Feed a client `stdin` and wait for its end; give `take` its stdout as it comes, and `tick` each second."""
    client.give(stdin, last=True)
    with client.process.stdout as out:  # type: ignore[union-attr]  # it is a pipe: see command.start()
        ended = False
        while not ended:
            ended = client.process.poll() is not None  # then the rest is read; another may hold the pipe open
            while select.select([out], [], [], 0 if ended else _TICK)[0]:
                if not (data := os.read(out.fileno(), _BLOCK)):
                    ended = True
                    break
                take(data)
                tick()
            tick()
    return Result(client.process.wait())


class _Talk:
    """Both directions of one client's pipes, none of which ever waits for the other."""

    def __init__(self, client: Client, head: bytes, source: IO[bytes] | None, take: Taken, told: Progress) -> None:
        self.client, self.process = client, client.process
        self.buffer, self.source, self.take, self.told = memoryview(head), source, take, told
        self.words = bytearray()
        self.open = [pipe for pipe in (self.process.stdout, self.process.stderr) if pipe]
        if self.process.stdin:
            os.set_blocking(self.process.stdin.fileno(), False)

    def go(self, deadline: float) -> bool:
        """Copy until both directions are done; return whether that took too long."""
        while self.open or self.process.stdin:
            if time.monotonic() > deadline:
                return True
            writing = [self.process.stdin] if self.process.stdin and (self.buffer or not self.source) else []
            wanted = [self.source] if self.source and self.process.stdin and not self.buffer else []
            readable, writable, _ = select.select([*self.open, *wanted], writing, [], _TICK)
            for pipe in readable:
                self._refill() if pipe is self.source else self._read(pipe)
            if writable:
                self._write()
            self.told.tick()
            self._be_patient()
            if not self.open and self.process.poll() is not None:
                return False  # whatever has not been written
        return not self.client.ended_within(max(1.0, deadline - time.monotonic()))

    def _be_patient(self) -> None:
        if heed(self.told.say):
            raise RepositoryError(f"given up while {self.told.what}")

    def close(self) -> None:
        """Terminate a client that still runs, and leave no pipe open."""
        if self.process.poll() is None:
            self.client.terminate()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
        self.told.close()

    def _read(self, pipe: IO[bytes]) -> None:
        data = os.read(pipe.fileno(), _BLOCK)
        if not data:
            self.open.remove(pipe)
        elif pipe is self.process.stdout:
            self.told.count += len(data)
            self.take(data)
        else:
            self.words += data
            del self.words[:-_WORDS]

    def _refill(self) -> None:
        assert self.source  # noqa: S101  (it has just been selected)
        data = os.read(self.source.fileno(), _BLOCK)
        self.buffer = memoryview(data)
        if not data:
            self.source = None

    def _write(self) -> None:
        stdin = self.process.stdin
        assert stdin  # noqa: S101  (it has just been selected)
        try:
            sent = os.write(stdin.fileno(), self.buffer) if self.buffer else 0
        except BlockingIOError:
            sent = 0
        except OSError:  # it has ended, or does not want more
            self.buffer, self.source, sent = memoryview(b""), None, 0
        self.buffer = self.buffer[sent:]
        self.told.count += sent
        if not self.buffer and not self.source:
            with contextlib.suppress(OSError):
                stdin.close()
            self.process.stdin = None


def _whole(file: Sink) -> Taken:
    def taking(data: bytes) -> None:
        left = memoryview(data)
        while left:  # an unbuffered file may take only a part: of a disk that fills up
            left = left[file.write(left) :]

    return taking


def _limited(take: Taken, limit: int) -> Taken:
    left = limit

    def taking(data: bytes) -> None:
        nonlocal left
        left -= len(data)
        if left < 0:
            raise TooMuch("it says too much")
        take(data)

    return taking
