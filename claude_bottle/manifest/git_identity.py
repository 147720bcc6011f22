"""Who commits in a bottle: git's user.name and user.email."""

from collections.abc import Mapping
from dataclasses import dataclass

from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.manifest.validation import Value
from claude_bottle.process import command

# The user's own settings alone: those of the current directory may be somebody else's. NUL between name and value.
ASK = ("git", "-C", "/", "config", "--global", "--includes", "--null", "--get-regexp", r"^user\.(name|email)$")


@dataclass(frozen=True)
class Identity:
    """A name and an address, each None if unknown."""

    name: str | None = None
    email: str | None = None

    def __str__(self) -> str:
        """Return it as git shows it."""
        return " ".join([*([self.name] if self.name else []), *([f"<{self.email}>"] if self.email else [])])

    def completed(self, other: "Identity") -> "Identity":
        """Return this one with what it lacks from the `other`."""
        return Identity(self.name or other.name, self.email or other.email)

    def config(self) -> bytes:
        """Return the git configuration that sets it; empty if nothing is known."""
        pairs = [(key, value) for key, value in (("name", self.name), ("email", self.email)) if value]
        lines = "".join(f"\t{key} = {_quoted(value)}\n" for key, value in pairs)
        return f"[user]\n{lines}".encode() if lines else b""


def read_identity(section: Value) -> Identity:
    """Check the manifest's `git:`."""
    section.keys(("name", "email"))
    return Identity(*(_text(section.get(key)) for key in ("name", "email")))


def parsed(output: bytes) -> Identity:
    """Parse git's answer to ASK; the last of several settings counts."""
    lines = output.decode("utf-8", "replace").split("\0")
    found = {key: value.strip() for key, _, value in (line.partition("\n") for line in lines)}
    fit = {key: value for key, value in found.items() if value and escape_control_chars(value) == value}
    return Identity(fit.get("user.name"), fit.get("user.email"))


def completed_by_host(known: Identity, env: Mapping[str, str]) -> Identity:
    """Return what is `known`, completed by the host's git, which runs with `env` as its environment."""
    return known if known.name and known.email else known.completed(parsed(command.output(ASK, env)))


def _text(value: Value | None) -> str | None:
    text = value.text() if value else None
    if value and text is not None and (not text.strip() or escape_control_chars(text) != text):
        value.fail("must not be empty or contain control characters")
    return text


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
