"""Run git on the host: on a repository, with nothing that it could start by itself, and never without an end."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from claude_bottle.documents.escaping import harmless
from claude_bottle.errors import RepositoryError
from claude_bottle.process import command, stream, wording
from claude_bottle.process.command import Result
from claude_bottle.repository.clone import SETTINGS

_TIMEOUT = 600.0  # seconds for one command: a million objects take a while
_MOST = 1 << 30  # bytes that a command may print
_NONE: Mapping[str, str] = {}
WARY = {"GIT_ALLOC_LIMIT": str(1 << 29)}  # bytes that git may take at once: a small delta can ask for any amount
# Of git's many variables those that say whose configuration counts; the others would lead it to another repository,
# to another index, or to a program.
_KEPT = ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_CEILING_DIRECTORIES", "GIT_EXEC_PATH")


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which git is run: the user's, but for what leads it astray."""
    kept = {name: value for name, value in env.items() if not name.startswith("GIT_") or name in _KEPT}
    return kept | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_GRAFT_FILE": "/nonexistent"}


def nobodys(env: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which git sees no configuration but that of its repository, and is wary."""
    # Versions before 2.32 know no GIT_CONFIG_GLOBAL, but look for a home.
    nowhere = {"HOME": "/nonexistent", "XDG_CONFIG_HOME": "/nonexistent", "GIT_CONFIG_GLOBAL": "/dev/null"}
    kept = {name: env[name] for name in ("PATH", "TMPDIR") if name in env}
    return environment(kept) | WARY | nowhere | {"GIT_CONFIG_NOSYSTEM": "1", "GIT_ATTR_NOSYSTEM": "1"}


@dataclass(frozen=True)
class Git:
    """Git in one repository; `env` is its whole environment."""

    path: Path
    env: Mapping[str, str] = field(repr=False)
    what: str = "looking at the repository"  # what takes long, where it does

    def argv(self, *words: str) -> tuple[str, ...]:
        """Return a command with what keeps it from starting anything."""
        return ("git", "-C", str(self.path), *SETTINGS, *words)

    def run(
        self, *words: str, stdin: bytes = b"", timeout: float = _TIMEOUT, more: Mapping[str, str] = _NONE
    ) -> Result:
        """Run a command to its end, with `more` in its environment; EngineError where there is no git."""
        env = {**self.env, **more}
        return stream.converse(
            command.start(self.argv(*words), env), what=self.what, seconds=timeout, head=stdin, limit=_MOST
        )

    def text(self, *words: str, stdin: bytes = b"", more: Mapping[str, str] = _NONE) -> str:
        """Return what a command prints, without the newline at its end; RepositoryError where it fails."""
        result = self.run(*words, stdin=stdin, more=more)
        if not result.ok:
            raise RepositoryError(f"{self.path}: {reason(result)}")
        return text(result.stdout)


def text(data: bytes) -> str:
    """Return what git printed as text, in which bytes that are no UTF-8 survive."""
    return data.decode(errors="surrogateescape").removesuffix("\n")


def reason(result: Result) -> str:
    """Return what git said of its failure, in one line."""
    if wording.says(wording.ANOTHERS, result.stderr):
        # The last line that git prints is the command, with the path as git knows and quotes it.
        allow = harmless(result.stderr.strip().rpartition("\n")[2].strip())
        return f"it belongs to another user, so git does not read it; if you trust it: `{allow}`"
    return wording.gist("git", result.stderr) or f"exit status {result.returncode}"
