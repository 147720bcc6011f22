"""The words of docker, its engine, git and ssh-add that the product acts on, in one table.

An exit status says that a command failed, but not why. No other module compares what another program prints on stderr.
A phrase is a fragment of a sentence, as short as possible without matching another sentence; case is ignored.
"""

from dataclasses import dataclass
from typing import Literal

from claude_bottle.documents.escaping import escape_control_chars

Speaker = Literal["docker", "dockerd", "runc", "git", "ssh-add"]  # docker's client, its engine, what starts containers
Named = Literal["docker", "git"]  # whose sentences are quoted to the user


@dataclass(frozen=True)
class Phrase:
    """A fragment of a sentence, the program that prints it, and the versions of that program in which it was seen.

    `recorded` marks a phrase that the contract test (tests/integration/test_wording.py) cannot provoke: only other
    versions or kernels print it.
    """

    text: str
    by: Speaker
    seen: tuple[str, ...]
    recorded: bool = False


@dataclass(frozen=True)
class Wording:
    """One cause of failure, and every phrase for it."""

    name: str
    phrases: tuple[Phrase, ...]

    @property
    def recorded(self) -> bool:
        """Return whether the contract test provokes none of its phrases."""
        return all(phrase.recorded for phrase in self.phrases)


def says(wording: Wording, text: str) -> bool:
    """Return whether one of a wording's phrases is part of `text`."""
    folded = text.casefold()
    return any(phrase.text.casefold() in folded for phrase in wording.phrases)


ABSENT = Wording(
    "an object does not exist",
    (
        Phrase("no such container", "dockerd", ("20.10.24", "26.1.5", "28.5.2")),
        Phrase("no such image", "dockerd", ("20.10.24",)),
        Phrase("no such volume", "dockerd", ("20.10.24", "26.1.5", "28.5.2", "29.7.2")),
        Phrase("not found", "dockerd", ("20.10.24", "26.1.5", "28.5.2", "29.7.2")),  # a network
        Phrase("no such object", "docker", ("26.1.5", "28.2.2", "28.5.2", "29.7.2")),  # to `docker inspect`
        Phrase("no such container", "docker", ("20.10",), recorded=True),
        Phrase("no such network", "docker", ("20.10",), recorded=True),
        Phrase("no such volume", "docker", ("20.10",), recorded=True),
    ),
)
# What clients say if there is no engine is not here: each version words it differently, and one query tells.
ANSWER = Wording(
    "the engine itself has refused",
    (Phrase("error response from daemon", "docker", ("20.10.24", "26.1.5", "28.2.2", "28.5.2", "29.7.2")),),
)
REMOVAL_UNDER_WAY = Wording(
    "another client is removing it", (Phrase("is already in progress", "dockerd", ("20.10.24",)),)
)
IMAGE_IN_USE = Wording(
    "a container, another image or another tag needs an image",
    (Phrase("conflict: unable to", "dockerd", ("20.10.24",)),),
)
SUBNET_TAKEN = Wording(
    "another network has the subnet, or the bridge's name",
    (
        Phrase("pool overlaps", "dockerd", ("20.10.24", "26.1.5", "28.5.2", "29.7.2")),
        Phrase("conflicts with network", "dockerd", ("20.10.24", "28.5.2")),
    ),
)
MADE_MEANWHILE = Wording(
    "another client has made it",
    (Phrase("already exists", "dockerd", ("20.10.24",)), *SUBNET_TAKEN.phrases),
)
NO_BR_NETFILTER = Wording(
    "the engine's kernel lacks br_netfilter",
    (Phrase("restrict inter-container communication", "dockerd", ("20.10",), recorded=True),),
)
NO_IPV6 = Wording(
    "the engine's kernel was booted with ipv6.disable=1",  # and so has no such setting
    (Phrase("disable_ipv6", "runc", ("1.1.5",)),),
)
NO_TARGET = Wording(
    "the container whose network was to be joined has ended or is gone",
    (
        Phrase("non running container", "dockerd", ("20.10.24",)),
        Phrase("no such container", "dockerd", ("20.10.24",)),
    ),
)
CONTAINER_ENDED = Wording(
    "the container to run something in has ended", (Phrase("is not running", "dockerd", ("20.10.24",)),)
)
KEY_FORMAT = Wording(
    "an ed25519 key is not in OpenSSH's own format",  # OpenSSH reads others since 9.6
    (Phrase("invalid format", "ssh-add", ("9.2p1",)),),
)
EMPTY_BUNDLE = Wording("a bundle has no commit in it", (Phrase("refusing to create empty bundle", "git", ("2.39.5",)),))
LOCKED = Wording(
    "another git is at work on the same branch or file",
    (Phrase("cannot lock", "git", ("2.39.5",)), Phrase("unable to create", "git", ("2.39.5",))),
)
CHECKED_OUT = Wording(
    "a branch is checked out, and so cannot be fetched into",
    (Phrase("refusing to fetch", "git", ("2.39.5",)),),
)
ANOTHERS = Wording(
    "a repository belongs to another user",  # CVE-2022-24765
    (Phrase("dubious ownership", "git", ("2.39.5",)), Phrase("unsafe repository", "git", ("2.35.2",), recorded=True)),
)

TABLE = (
    *(ABSENT, ANSWER, REMOVAL_UNDER_WAY, SUBNET_TAKEN, MADE_MEANWHILE, NO_BR_NETFILTER, NO_IPV6, NO_TARGET),
    *(IMAGE_IN_USE, CONTAINER_ENDED, KEY_FORMAT, EMPTY_BUNDLE, LOCKED, CHECKED_OUT, ANOTHERS),
)

# How lines begin that are no explanation, and the prefixes of those that are.
_BESIDES: dict[Named, tuple[str, ...]] = {"docker": ("See 'docker", "Run 'docker", "exit status "), "git": ("hint:",)}
_OPENINGS: dict[Named, tuple[str, ...]] = {
    "docker": ("docker: ", "Error response from daemon: "),
    "git": ("fatal: ", "error: "),
}


def gist(by: Named, said: str) -> str:
    """Return a program's explanation of its failure, in one line: its last two lines that explain, escaped."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(_BESIDES[by])]
    short = escape_control_chars(" ".join(lines[-2:]))
    for opening in _OPENINGS[by]:
        short = short.removeprefix(opening)
    return short
