"""Where `login` keeps the OAuth token: the system's keychain or a file; a record in the state folder says which."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.errors import BottleError, TokenError
from claude_bottle.host import installation, own_file
from claude_bottle.host.machine import TOKEN_VARIABLE, Machine
from claude_bottle.process import command
from claude_bottle.process.command import Result
from claude_bottle.session.planning import client_environment

Argv = tuple[str, ...]

_SECONDS = 10.0  # for a keychain's program to answer, at a start
PATIENCE = 120.0  # seconds for the user to unlock a keychain, at `login` and `logout`
_ACCOUNT, _SERVICE = "oauth-token", "claude-bottle"
_ITEM = ("-a", _ACCOUNT, "-s", _SERVICE)
_ATTRIBUTES = ("service", _SERVICE, "account", _ACCOUNT)
_LOGIN = installation.command("login")
SOURCE = "login"  # of the token, in the preflight
NO_TOKEN = (
    f"there is no OAuth token: run `{_LOGIN}`, or create one with `claude setup-token` and"
    f" `export {TOKEN_VARIABLE}=<the token>`"
)


@dataclass(frozen=True)
class Keychain:
    """A keychain of the system, through its own program; a token goes in over stdin and comes out on stdout.

    `absent` is the exit code of a program that has found nothing.
    """

    name: str
    title: str
    load: Argv
    store: Argv
    entry: str  # what `store` reads, with the token for {}
    remove: Argv
    absent: int

    def read(self, machine: Machine, seconds: float) -> str | None:
        """Return the token, None if there is none; raises TokenError if the keychain cannot be used."""
        result = self._run(machine, self.load, seconds)
        return result.stdout.decode("ascii", "replace").strip() or None

    def write(self, machine: Machine, token: str) -> None:
        """Keep the token, in place of an older one; raises TokenError."""
        self._run(machine, self.store, PATIENCE, self.entry.format(token).encode())

    def delete(self, machine: Machine) -> None:
        """Remove the token, if there is one; raises TokenError."""
        self._run(machine, self.remove, PATIENCE)

    def _run(self, machine: Machine, argv: Argv, seconds: float, stdin: bytes = b"") -> Result:
        try:
            result = command.run(argv, client_environment(machine), stdin=stdin, timeout=seconds)
        except BottleError as error:
            raise TokenError(f"{self.title} cannot be used: {error}") from None
        # secret-tool exits with 1 after a failure as well, and then says why.
        absent = result.returncode == self.absent and not (self.absent == 1 and result.stderr)
        if not (result.ok or absent):
            said = escape_control_chars(" ".join(result.stderr.split())) or f"exit status {result.returncode}"
            raise TokenError(f"{self.title} cannot be used: {argv[0]}: {said}")
        return result


@dataclass(frozen=True)
class PrivateFile:
    """A file in the state folder that only its user can read."""

    name = "file"
    path: Path

    @property
    def title(self) -> str:
        """Return what it is, for people."""
        return f"the file {escape_control_chars(str(self.path))}, for you alone to read"

    def read(self, _machine: Machine, _seconds: float) -> str | None:
        """Return the token, None if there is none; raises TokenError if others may read it, too."""
        try:
            return own_file.read(self.path, private=True).decode("ascii", "replace").strip() or None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TokenError(f"{escape_control_chars(str(self.path))}: {error.strerror}") from None

    def write(self, _machine: Machine, token: str) -> None:
        """Keep the token, in place of an older one; raises OSError."""
        own_file.write(self.path, token)

    def delete(self, _machine: Machine) -> None:
        """Remove the token, if there is one; raises OSError."""
        self.path.unlink(missing_ok=True)


Place = Keychain | PrivateFile

_KEYCHAINS = (
    # `security` quotes as a shell does, and a token has nothing to quote. -U: in place of an older one.
    Keychain(
        name="keychain",
        title="the macOS keychain",
        load=("security", "find-generic-password", *_ITEM, "-w"),
        store=("security", "-i"),
        entry=f"add-generic-password -U {' '.join(_ITEM)} -w {{}}\n",
        remove=("security", "delete-generic-password", *_ITEM),
        absent=44,  # errSecItemNotFound, as an exit code
    ),
    Keychain(
        name="secret-service",
        title="the Secret Service (GNOME Keyring, KWallet)",
        load=("secret-tool", "lookup", *_ATTRIBUTES),
        store=("secret-tool", "store", "--label", "claude-bottle: OAuth token of Claude", *_ATTRIBUTES),
        entry="{}",
        remove=("secret-tool", "clear", *_ATTRIBUTES),
        absent=1,
    ),
)


def places(machine: Machine) -> tuple[Place, ...]:
    """Return where a token can be kept on this machine: the keychains whose program is there, and a file."""
    path = machine.environ.get("PATH")
    found = (keychain for keychain in _KEYCHAINS if shutil.which(keychain.load[0], path=path))
    return (*found, _file(machine))


def recorded(machine: Machine) -> Place | None:
    """Return where `login` has put the token, None if nowhere; no keychain is queried."""
    try:
        name = own_file.read(_record(machine)).decode("ascii", "replace").strip()
    except OSError:
        return None
    return next((place for place in (*_KEYCHAINS, _file(machine)) if place.name == name), None)


def announced(machine: Machine) -> Machine:
    """Return the machine with the source that its token would have at a start; no keychain is queried."""
    return machine if machine.has_token or not recorded(machine) else replace(machine, token_source=SOURCE)


def resolved(machine: Machine) -> Machine:
    """Return the machine with the token that `login` has kept, unless its environment has one.

    Raises TokenError if there is none, or if the place where it is kept cannot be used.
    """
    if machine.has_token:
        return machine
    place = recorded(machine)
    if not place:
        raise TokenError(NO_TOKEN)
    try:
        token = place.read(machine, _SECONDS)
    except TokenError as error:
        raise TokenError(f"{error}; `{_LOGIN}` has put the token there. Or set {TOKEN_VARIABLE}") from None
    if not token:
        raise TokenError(f"the token is gone from {place.title}: run `{_LOGIN}` again")
    return replace(machine, environ={**machine.environ, TOKEN_VARIABLE: token}, token_source=SOURCE)


def keep(machine: Machine, place: Place, token: str) -> None:
    """Keep a token in a place and nowhere else; raises TokenError if it cannot be read back, or OSError."""
    before = recorded(machine)
    place.write(machine, token)
    # `security -i` succeeds whatever becomes of what it reads.
    if place.read(machine, PATIENCE) != token:
        raise TokenError(f"{place.title} has not kept the token")
    own_file.write(_record(machine), place.name)
    if before and before != place:
        before.delete(machine)


def forget(machine: Machine) -> Place | None:
    """Remove the token that `login` has kept; return where it was, None if there was none."""
    place = recorded(machine)
    if place:
        place.delete(machine)
    _record(machine).unlink(missing_ok=True)
    return place


def _file(machine: Machine) -> PrivateFile:
    return PrivateFile(machine.key_file.with_name("token"))


def _record(machine: Machine) -> Path:
    return machine.key_file.with_name("login")
