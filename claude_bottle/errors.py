"""The errors that end a command, each with its exit code, as listed in the README."""

from typing import ClassVar


class BottleError(Exception):
    """Base of all errors for the user: `cli.py` prints the message on stderr and exits with `exit_code`."""

    exit_code: ClassVar[int]


class UsageError(BottleError):
    """The command line is wrong: an unknown session, an invalid host, options that do not combine."""

    exit_code = 2


class ManifestError(BottleError):
    """One or more faults in manifests or settings; the message has one line per fault."""

    exit_code = 64


class RefusedError(BottleError):
    """The user declined at the preflight, or there is no terminal to prompt on; or a key was not unlocked.

    Or something has changed since the last yes, which the user has made a condition.
    """

    exit_code = 65


class IsolationError(BottleError):
    """A bottle is not, or cannot be, as isolated as promised."""

    exit_code = 66


class NoRecordError(BottleError):
    """There is no record of a session that was to be waited for."""

    exit_code = 68


class EngineError(BottleError):
    """Docker or git is missing; Docker is unreachable or too old."""

    exit_code = 69


class DockerError(BottleError):
    """A docker command failed, and the message has docker's own; or the stage dir cannot be written."""

    exit_code = 70


class MachineError(BottleError):
    """The machine refuses something: a disk is full, a folder is gone; any OSError that nothing else explains."""

    exit_code = 71


class RepositoryError(BottleError):
    """A repository cannot be cloned into a bottle, or a bottle's work cannot be fetched."""

    exit_code = 74


class LeftBehindError(BottleError):
    """Something a session created could not be removed."""

    exit_code = 75


class TokenError(BottleError):
    """There is no OAuth token for claude, something else in its place, or it cannot be kept."""

    exit_code = 78


class TimeUpError(BottleError):
    """A session has reached its limit of time, and was ended in order."""

    exit_code = 124
