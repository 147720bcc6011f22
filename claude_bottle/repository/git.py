"""Run git on the host: on one repository, without hooks or helpers, and always with a time limit."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.errors import RepositoryError
from claude_bottle.process import command, stream, wording
from claude_bottle.process.command import Result
from claude_bottle.process.deadline import Deadline
from claude_bottle.process.stream import Sink
from claude_bottle.repository.clone import SETTINGS

_TIMEOUT = 600.0  # seconds for one command: a million objects take a while
_ANSWER = 1 << 20  # bytes of output that is kept whole
_LISTED = 1 << 30  # bytes of output handled as it comes
_LONGEST = 1 << 16  # bytes of a record; no system accepts a path this long
_MEMORY = 2 << 30  # bytes of address space for each command on data from a bottle
_CPU = 600  # seconds for each of them
# To stay within that: one thread, and only a part of each pack mapped at a time.
_SPARING = ("pack.threads=1", "core.packedGitLimit=256m", "core.packedGitWindowSize=32m")
_NONE: Mapping[str, str] = {}
WARY = {"GIT_ALLOC_LIMIT": str(1 << 29)}  # bytes per allocation: a small delta can request any amount
# The GIT_ variables that choose the configuration and git itself are kept; the others could redirect git to another
# repository or index, or run a program.
_KEPT = ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_CEILING_DIRECTORIES", "GIT_EXEC_PATH")


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for git: the user's, without variables that redirect it."""
    kept = {name: value for name, value in env.items() if not name.startswith("GIT_") or name in _KEPT}
    return kept | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_GRAFT_FILE": "/nonexistent"}


def nobodys(env: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which git reads only its repository's configuration, with limited allocations."""
    # Versions before 2.32 ignore GIT_CONFIG_GLOBAL, but respect HOME.
    nowhere = {"HOME": "/nonexistent", "XDG_CONFIG_HOME": "/nonexistent", "GIT_CONFIG_GLOBAL": "/dev/null"}
    kept = {name: env[name] for name in ("PATH", "TMPDIR") if name in env}
    return environment(kept) | WARY | nowhere | {"GIT_CONFIG_NOSYSTEM": "1", "GIT_ATTR_NOSYSTEM": "1"}


@dataclass(frozen=True)
class Git:
    """Git in one repository; `env` is its whole environment, and no command outlasts the deadline.

    `bounded` limits the memory and CPU time of each command: for data from a bottle.
    """

    path: Path
    env: Mapping[str, str] = field(repr=False)
    what: str = "looking at the repository"  # for the progress line of a slow command
    deadline: Deadline = field(default_factory=Deadline, repr=False, compare=False)
    bounded: bool = False

    def argv(self, *words: str) -> tuple[str, ...]:
        """Return a git command with SETTINGS."""
        if not self.bounded:
            return ("git", "-C", str(self.path), *SETTINGS, *words)
        sparing = (word for setting in _SPARING for word in ("-c", setting))
        return command.limited(("git", "-C", str(self.path), *SETTINGS, *sparing, *words), memory=_MEMORY, seconds=_CPU)

    def run(
        self,
        *words: str,
        stdin: bytes = b"",
        source: IO[bytes] | None = None,
        into: Sink | None = None,
        limit: int = _ANSWER,
        timeout: float = _TIMEOUT,
        more: Mapping[str, str] = _NONE,
    ) -> Result:
        """Run a command to its end, with `more` in its environment, for at most `timeout` seconds.

        Its stdin is `stdin`, or the file `source`; its output, at most `limit` bytes, goes `into` a file, else into the
        result. Raises EngineError if there is no git (if `bounded`, the result is exit status 127 instead),
        RepositoryError if time is up, the user gives up or the output is larger.
        """
        seconds = self.deadline.left(timeout)
        client = command.start(self.argv(*words), {**self.env, **more})
        return stream.pump(client, what=self.what, seconds=seconds, head=stdin, source=source, into=into, limit=limit)

    def each(
        self,
        *words: str,
        take: Callable[[bytes], None],
        end: bytes = b"\n",
        timeout: float = _TIMEOUT,
        more: Mapping[str, str] = _NONE,
    ) -> Result:
        """Run a command as `run` does, and call `take` with each record of its output, which is not kept.

        A record ends with the byte `end` and is cut after _LONGEST bytes. An exception from `take` ends the command.
        """
        return self.run(*words, into=_Records(take, end), limit=_LISTED, timeout=timeout, more=more)

    def text(self, *words: str, stdin: bytes = b"", more: Mapping[str, str] = _NONE) -> str:
        """Return a command's output without its last newline; raises RepositoryError if it fails."""
        result = self.run(*words, stdin=stdin, more=more)
        if not result.ok:
            raise RepositoryError(f"{self.path}: {reason(result)}")
        return text(result.stdout)


class _Records:
    """Splits a stream into records; an unfinished last one is dropped."""

    def __init__(self, take: Callable[[bytes], None], end: bytes) -> None:
        self._take, self._end, self._begun = take, end, b""

    def write(self, data: memoryview, /) -> int:
        for number, part in enumerate(bytes(data).split(self._end)):
            if number:
                self._take(self._begun)
                self._begun = b""
            self._begun = (self._begun + part)[:_LONGEST]
        return len(data)


def text(data: bytes) -> str:
    """Decode git's output, one newline at its end removed; invalid UTF-8 becomes surrogates."""
    return data.decode(errors="surrogateescape").removesuffix("\n")


def reason(result: Result) -> str:
    """Return git's error message in one line, else its exit status."""
    if wording.says(wording.ANOTHERS, result.stderr):
        # The last line that git prints is the command, with the path as git knows and quotes it.
        allow = escape_control_chars(result.stderr.strip().rpartition("\n")[2].strip())
        return f"it belongs to another user, so git does not read it; if you trust it: `{allow}`"
    return wording.gist("git", result.stderr) or f"exit status {result.returncode}"
