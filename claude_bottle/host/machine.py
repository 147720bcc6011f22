"""The machine and the user that start a session: read once, passed on as a value."""

import os
import secrets
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from claude_bottle.host import installation, proof
from claude_bottle.host.owner import Owner

TOKEN_VARIABLE = "CLAUDE_BOTTLE_OAUTH_TOKEN"  # noqa: S105  (a name, no secret)
TOKEN_SHAPE = r"sk-ant-[a-z]+[0-9]+-[A-Za-z0-9_-]{8,}"  # noqa: S105  (the same)
_QUOTES = ("'", '"', "`", "\u2018", "\u2019", "\u201c", "\u201d")
_API_KEYS = ("sk-ant-api", "sk-ant-admin")


@dataclass(frozen=True)
class Machine:
    """Who starts a session, and where; `environ` may hold secrets and is left out of the repr."""

    environ: Mapping[str, str] = field(repr=False)
    home: Path
    interactive: bool  # stdin is a terminal
    owner: Owner  # this process
    key: bytes = field(default=b"", repr=False)  # of this user's proofs; nothing before the first start
    token_source: str = TOKEN_VARIABLE  # where the OAuth token comes from, for people
    engine: str = ""  # the docker context that was chosen by its name, or found; nothing if docker's own settings count

    def setting(self, name: str) -> str | None:
        """Return the value of CLAUDE_BOTTLE_<name>, None if it is unset or empty."""
        return self.environ.get(f"CLAUDE_BOTTLE_{name}") or None

    def is_on(self, name: str) -> bool:
        """Return whether CLAUDE_BOTTLE_<name> is set to anything but 0."""
        return self.setting(name) not in (None, "0")

    @property
    def agents(self) -> Path:
        """Return the manifests' folder: the setting's, else that of the checkout or the installation."""
        chosen = self.setting("AGENTS")
        return self.path(chosen) if chosen else installation.manifests(self.environ, self.home)

    def path(self, text: str) -> Path:
        """Return the path that a setting names; `~` is the user's home, `~other` nobody's."""
        first, _, rest = text.partition("/")
        return self.home / rest if first == "~" else Path(text)

    @property
    def key_file(self) -> Path:
        """Return the path of the key, there or not."""
        return proof.key_file(self.environ.get("XDG_STATE_HOME"), self.home)

    @property
    def has_token(self) -> bool:
        """Return whether there is an OAuth token."""
        return bool(self.environ.get(TOKEN_VARIABLE))

    @property
    def token_problem(self) -> str | None:
        """Return why the API would refuse the OAuth token, as far as its text shows; it never shows the token."""
        token = self.environ.get(TOKEN_VARIABLE, "")
        if token[:1] in _QUOTES or token[-1:] in _QUOTES:
            return f"{TOKEN_VARIABLE} has quotes around the token: leave them out"
        if any(character.isspace() or unicodedata.category(character) == "Cc" for character in token):
            return f"{TOKEN_VARIABLE} contains white space or control characters: set it to the token alone"
        if token.startswith(_API_KEYS):
            return f"{TOKEN_VARIABLE} is an API key, not a subscription's token: create one with `claude setup-token`"
        return None


class MadeUp(Mapping[str, str]):
    """An environment in which every variable is set, to a value that is nobody's; the token's has a token's shape."""

    def __init__(self) -> None:
        """Choose the values."""
        self._random = secrets.token_hex(16)

    def __getitem__(self, name: str) -> str:
        """Return the value of any variable."""
        return f"{'sk-ant-oat01-' if name == TOKEN_VARIABLE else ''}made-up-{self._random}"

    def __iter__(self) -> Iterator[str]:
        """Yield no name: there are too many."""
        return iter(())

    def __len__(self) -> int:
        """Return how many names are yielded."""
        return 0


def machine_fault(error: OSError) -> str:
    """Return what the machine refused, and why."""
    what = str(error.filename) if error.filename else ""
    if not what and isinstance(error, FileNotFoundError):
        try:
            Path.cwd()
        except OSError:
            what = "the current directory"
    return f"{what}: {error.strerror or error}" if what else str(error.strerror or error)


def read_machine(owner: Owner) -> Machine:
    """Read environment, home, terminal and key of this process, which is the owner of what it makes."""
    machine = Machine(
        environ=dict(os.environ),
        home=Path(os.path.expanduser("~")),  # noqa: PTH111  (Path.home() raises if there is none)
        interactive=os.isatty(0),
        owner=owner,
    )
    return replace(machine, key=proof.read_key(machine.key_file))
