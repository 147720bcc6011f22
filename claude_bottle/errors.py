"""The kinds of error that end a command, each with its exit code (the table in the README)."""

from typing import ClassVar


class BottleError(Exception):
    """Ends the command: `cli.py` prints the message on stderr and exits with `exit_code`."""

    exit_code: ClassVar[int]


class UsageError(BottleError):
    """The command line names something that is not there."""

    exit_code = 2


class ManifestError(BottleError):
    """One or more faults in a manifest or a setting; the message has one line for each."""

    exit_code = 64


class RefusedError(BottleError):
    """The user said no at the preflight, or could not be asked."""

    exit_code = 65


class IsolationError(BottleError):
    """A bottle is not, or cannot be, as isolated as promised."""

    exit_code = 66


class EngineError(BottleError):
    """Docker or git is missing; Docker is unreachable or too old."""

    exit_code = 69


class DockerError(BottleError):
    """A docker command failed; the message carries what docker said."""

    exit_code = 70


class MachineError(BottleError):
    """The machine refuses something: a disk is full, a folder is gone; any OSError that nothing else explains."""

    exit_code = 71


class RepositoryError(BottleError):
    """A repository cannot be taken in, or a bottle's work did not come back to it."""

    exit_code = 74


class LeftBehindError(BottleError):
    """Something of a session could not be removed."""

    exit_code = 75


class TokenError(BottleError):
    """There is no OAuth token to hand to claude."""

    exit_code = 78
