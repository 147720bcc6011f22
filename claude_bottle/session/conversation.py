"""Claude's own transcript of a conversation: received from a bottle, judged by its shape, its secrets struck out."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from claude_bottle.bottle.plan import Conversation
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.errors import RepositoryError
from claude_bottle.host.machine import TOKEN_VARIABLE, Machine
from claude_bottle.manifest.agent import Agent
from claude_bottle.process import command, stream
from claude_bottle.process.container import HOME, PYTHON, execute
from claude_bottle.process.deadline import Deadline
from claude_bottle.session.records import MIB, MOST, TRANSCRIPT

BUDGET = 60.0  # seconds; the work has a budget of its own, and comes first
STRUCK = b"[struck out]"  # in the place of a secret, the same in text as in JSON
SHORTEST = 8  # bytes of a secret that is struck out: a shorter one may be any word
_HEADER = 4096  # bytes of the exporter's first line
_WHY = 200  # characters of its reason
_LARGEST = 1 << 16  # bytes of a secret: what is heard beyond what is kept, as a strike makes room
_ID = re.compile("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SPOKEN = ("user", "assistant")


@dataclass(frozen=True)
class Source:
    """A running bottle whose conversation is wanted."""

    session: str
    container: str
    env: Mapping[str, str] = field(repr=False)
    started: Callable[[int], None]  # called with the pid of the docker client
    strike: "Strike"  # for what the bottle says in its place


def receive(source: Source) -> Conversation:
    """Return the newest conversation in a bottle; what a bottle sends beyond the limit is not read.

    Raises RepositoryError with the reason if there is none, or none in time; EngineError without docker.
    """
    most, deadline = MOST[TRANSCRIPT], Deadline(BUDGET)
    argv = execute(source.container, *PYTHON, HOME, str(most))
    seconds = deadline.left()
    client = command.start(argv, source.env)
    source.started(client.pid)
    limit = most + _HEADER
    try:
        what = "keeping the conversation"
        result = stream.pump(client, what=what, seconds=seconds, head=program(), limit=limit)
    except stream.TooMuch:
        raise RepositoryError(f"it is larger than {most / MIB:g} MiB") from None
    if not result.ok:
        raise RepositoryError(replace(result, stderr=source.strike.text(result.stderr)).reason)
    return parse(source.session, result.stdout, source.strike)


def parse(session: str, said: bytes, strike: "Strike") -> Conversation:
    """Return the conversation of an exporter's output, a bottle's word; raises RepositoryError if it is none.

    Secrets are struck out of the error alone.
    """
    line, _, data = said.partition(b"\n")
    try:
        header = json.loads(line) if len(line) < _HEADER else None
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise RepositoryError("the bottle's answer cannot be read")
    if isinstance(why := header.get("why"), str):
        raise RepositoryError(escape_control_chars(strike.text(why)[:_WHY]))
    found = header.get("id")
    if not (isinstance(found, str) and _ID.fullmatch(found) and header.get("size") == len(data)):
        raise RepositoryError("the bottle's answer is not whole")
    return Conversation(session, found, data)


def problem(conversation: Conversation) -> str:
    """Return why no Claude could go on with a conversation, as far as its shape shows; nothing if it may be one."""
    if not _ID.fullmatch(conversation.id):
        return "its id is not known"
    known = spoken = False
    for number, line in enumerate(conversation.data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            return f"line {number} is no JSON object"
        known = known or found.get("sessionId") == conversation.id
        spoken = spoken or (found.get("type") in _SPOKEN and isinstance(found.get("message"), dict))
    if not known:
        return f"no line has the sessionId {conversation.id}"
    return "" if spoken else "nobody has said anything in it"


def secrets(machine: Machine, agent: Agent) -> tuple[str, ...]:
    """Return the values that a session's manifest takes from this machine as secrets, and the token."""
    bottle, environ = agent.bottle, machine.environ
    names = [variable.source for variable in bottle.env if variable.source]
    names += [TOKEN_VARIABLE, *(source for each in bottle.credentials for source in each.sources)]
    headers = [header.value(environ) for each in bottle.credentials for header in each.headers]
    return tuple(dict.fromkeys([*(environ.get(name, "") for name in names), *headers]))


class Strike:
    """Strikes secrets out of what a bottle wrote: as they stand, and escaped as in a JSON string."""

    def __init__(self, values: Iterable[str]) -> None:
        """Take the secrets; those of fewer than SHORTEST bytes are left alone."""
        forms = set[bytes]()
        for value in values:
            plain = value.encode(errors="surrogateescape")
            if len(plain) >= SHORTEST:
                forms |= {plain, *(_escaped(value, ascii_only=ascii_only) for ascii_only in (False, True))}
        self.longest = max(map(len, forms), default=0)
        # The longest first: one may begin with another.
        ordered = sorted(forms, key=lambda form: (-len(form), form))
        self._pattern = re.compile(b"|".join(map(re.escape, ordered))) if ordered else None
        self.count = 0

    def out(self, data: bytes) -> bytes:
        """Return data without the secrets, and count them."""
        if not self._pattern:
            return data
        data, count = self._pattern.subn(STRUCK, data)
        self.count += count
        return data

    def text(self, text: str) -> str:
        """Return a text without the secrets, and count them."""
        return self.out(text.encode(errors="surrogatepass")).decode(errors="replace")

    def out_of_beginning(self, data: bytes) -> bytes:
        """Return the beginning of longer data without the secrets, and without its end, where half of one may be."""
        end = max(0, len(data) - self.longest)
        if self._pattern:  # one that begins before that end is struck out whole
            begun = (match.end() for match in self._pattern.finditer(data) if match.start() < end)
            end = max(end, max(begun, default=0))
        return self.out(data[:end])


class Heard:
    """What a program writes, as far as it is kept: its beginning."""

    def __init__(self, most: int) -> None:
        """Keep at most so many bytes, once secrets are struck out."""
        self._most = most
        self._data, self._more = bytearray(), False

    def add(self, data: bytes) -> None:
        """Take what it writes next."""
        room = self._most + _LARGEST - len(self._data)
        self._data += data[:room]
        self._more = self._more or len(data) > room

    def struck(self, strike: Strike) -> tuple[bytes, bool]:
        """Return it without secrets, and whether that is not all of it."""
        data = bytes(self._data)
        data = strike.out_of_beginning(data) if self._more else strike.out(data)
        return data[: self._most], self._more or len(data) > self._most


def _escaped(value: str, *, ascii_only: bool) -> bytes:
    return json.dumps(value, ensure_ascii=ascii_only)[1:-1].encode(errors="surrogateescape")


def program() -> bytes:
    """Return the exporter's source; it fits into a pipe's buffer."""
    return Path(__file__).with_name("conversation_exporter.py").read_bytes()
