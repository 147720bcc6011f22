"""A session's requests as its two logs record them: events, tallies, the report at the end. Pure.

The sidecar's log is pipelock's, with a line for each tunnel; the credential proxy's has one for each request inside
the tunnels that it ends. Both have one JSON object a line, in which host, method and path are whatever the agent
requested, up to 200 KB long.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

from claude_bottle import REFUSED
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.documents.yaml_edit import scalar
from claude_bottle.egress.allowlist import API, HTTPS, Host, parse_further, parse_host

ALLOWED, BLOCKED, UNRESOLVED, FAILED = "allowed", "blocked", "unresolved", "failed"
_OTHERS = "others"  # what is beyond the limit, counted together; no host, as what is counted first has no space
_DISTINCT = 1000  # hosts, or requests, that are counted one by one: a flood of names must not fill the memory
_SHOWN = 10  # of them, named in a report
_LONGEST = 259  # characters of a host; no name with a port is longer
_METHOD = 20  # characters of a method
_PATH = 500  # characters of a path
_OFFERED = 120  # characters of a method and a path that are offered to be allowed
_REASON = 200  # characters of a reason
_DIGITS = 8  # of the number of a request; a bit is kept for each
# What is offered to be allowed is one path as it is: none that ends in "/", which would open all below it.
_ONE_PATH = re.compile(rf"{re.escape(API)} ([A-Z]+ (?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+)")
_SUFFIXES = (("GB", 10**9), ("MB", 10**6), ("kB", 1000))


@dataclass(frozen=True)
class Inner:
    """A request inside a tunnel that the credential proxy ends, in printable ASCII; `sent` is in bytes.

    `messages` is true if it counts against the bottle's limit of requests; `status` is 0 if there was none.
    """

    method: str
    path: str
    status: int
    sent: int
    messages: bool

    def __str__(self) -> str:
        """Return method, path and status."""
        return " ".join((self.method, self.path, *([str(self.status)] if self.status else [])))


@dataclass(frozen=True)
class Event:
    """The outcome of one request, in printable ASCII: of a tunnel or, if it has an `inner`, of a request inside.

    `unlisted` if it was refused for want of its host, or its path, on the list.
    """

    time: str
    verdict: str
    host: str
    reason: str
    request: str
    unlisted: bool = False
    inner: Inner | None = None

    def __str__(self) -> str:
        """Return the line of `logs`."""
        told = "  ".join((*([str(self.inner)] if self.inner else []), self.reason))
        return f"{self.time:<20}  {self.verdict:<10}  {self.host:<32}  {told}".rstrip()

    @property
    def name(self) -> str:
        """Return what it counts under if it was not allowed: its host, and what the proxy refused to do there."""
        refused = self.inner if self.verdict == BLOCKED else None
        return f"{self.host} {refused.method} {refused.path}" if refused else self.host


def parse(line: bytes) -> Event | None:
    """Parse one line of either log; None if it is not about a request of the agent's."""
    data = _data(line)
    return _request(data) if data.get("event") == "request" else _tunnel(_texts(data))


def _request(data: Mapping[str, object]) -> Event | None:
    """Return the event of a line of the credential proxy's."""
    fields, verdict = _texts(data), data.get("verdict")
    if verdict not in (ALLOWED, BLOCKED, FAILED):
        return None
    inner = Inner(
        method=_word(fields.get("method") or "-", _METHOD),
        path=_word(fields.get("path", "").partition("?")[0] or "-", _PATH),
        status=_number(data.get("status"), 999),
        sent=_number(data.get("sent")),
        messages=data.get("messages") is True,
    )
    return Event(
        time=_time(fields),
        verdict=str(verdict),
        host=_named(fields.get("host", "-")),
        reason=_ascii(fields.get("reason", ""), _REASON),
        request=fields.get("request_id", ""),
        unlisted=verdict == BLOCKED and data.get("unlisted") is True,
        inner=inner,
    )


def _tunnel(fields: Mapping[str, str]) -> Event | None:
    """Return the event of a line of the sidecar's."""
    verdict = _verdict(fields)
    if verdict is None or _host(fields) == REFUSED:
        return None
    return Event(
        time=_time(fields),
        verdict=verdict,
        host=_host(fields),
        reason=_ascii(_reason(fields), _REASON),
        request=fields.get("request_id", ""),
        unlisted=verdict == BLOCKED and fields.get("scanner") == "allowlist",
    )


def reloaded(line: bytes) -> str | None:
    """Return the SHA-256 of the configuration that a line reports as in force now; None if it reports none."""
    fields = _texts(_data(line))
    done = fields.get("event") == "config_reload" and fields.get("status") == "success"
    return fields.get("config_hash") if done else None


class Tally:
    """Counts events, each request once: some engines repeat lines when a followed log is rotated.

    `messages` are the requests that count against the bottle's limit, `sent` the bytes that all requests inside the
    ended tunnels sent.
    """

    def __init__(self, ended: Iterable[str] = ()) -> None:
        """Start with nothing counted; `ended` are the hosts whose tunnels the credential proxy ends, as `str(Host)`.

        A tunnel to one of them is not counted if it was let through, as each request inside it is.
        """
        self.allowed = self.messages = self.sent = 0
        self._ended = frozenset(map(_named, ended))
        self._hosts: dict[str, dict[str, int]] = {BLOCKED: {}, UNRESOLVED: {}, FAILED: {}}
        self._unlisted: set[str] = set()
        self._seen = (bytearray(), bytearray())  # of tunnels, and of requests inside: each log numbers its own

    def add(self, line: bytes) -> Event | None:
        """Count one line of either log; return its event, None if there is nothing to count."""
        event = parse(line)
        if event is None or self._opens_an_ended_tunnel(event) or not self._is_new(event):
            return None
        if event.inner:
            self.messages += event.inner.messages
            self.sent += event.inner.sent
        if event.verdict == ALLOWED:
            self.allowed += 1
        else:
            hosts = self._hosts[event.verdict]
            name = event.name if event.name in hosts or len(hosts) < _DISTINCT else _OTHERS
            hosts[name] = hosts.get(name, 0) + 1
            self._unlisted |= {name} if event.unlisted else set()
        return event

    def add_all(self, lines: Iterable[bytes]) -> "Tally":
        """Count lines; return this tally."""
        for line in lines:
            self.add(line)
        return self

    @property
    def refused(self) -> Mapping[str, int]:
        """Return how often each host, or request inside an ended tunnel, was refused."""
        return self._hosts[BLOCKED]

    @property
    def unresolved(self) -> Mapping[str, int]:
        """Return how often each name was looked up in vain."""
        return self._hosts[UNRESOLVED]

    @property
    def failed(self) -> Mapping[str, int]:
        """Return how often each host was allowed and could not be reached."""
        return self._hosts[FAILED]

    @property
    def blocked(self) -> int:
        """Return how many requests were refused."""
        return sum(self.refused.values())

    @property
    def allowable(self) -> tuple[Host, ...]:
        """Return the hosts that were refused only because no manifest names them, the most refused first."""
        found = []
        for name in _by_count(self.refused):
            try:
                # A name that looks like a pattern is the agent's idea.
                found += [parse_further(name)] if name in self._unlisted and not name.startswith("*.") else []
            except ValueError:
                continue  # no manifest may have it: an address, a name that could front for the API, anything else
        return tuple(found)

    @property
    def openable(self) -> tuple[str, ...]:
        """Return the requests to the API that were refused only because nothing names them, the most refused first.

        Each is a method and a path, such as "POST /v1/files".
        """
        found = (_ONE_PATH.fullmatch(name) for name in _by_count(self.refused) if name in self._unlisted)
        return tuple(match[1] for match in found if match and len(match[1]) <= _OFFERED)

    def _opens_an_ended_tunnel(self, event: Event) -> bool:
        return event.verdict == ALLOWED and event.inner is None and event.host in self._ended

    def _is_new(self, event: Event) -> bool:
        number = event.request.removeprefix("req-")
        if not (number.isdecimal() and len(number) <= _DIGITS):
            return True
        seen, (place, bit) = self._seen[event.inner is not None], divmod(int(number), 8)
        seen.extend(bytes(max(0, place + 1 - len(seen))))
        new = not seen[place] >> bit & 1
        seen[place] |= 1 << bit
        return new


class Refusals:
    """The first refusal of each host that the list does not have, up to `most` hosts; `full` after the last of them."""

    def __init__(self, most: int) -> None:
        """Start with no host seen."""
        self._most, self._seen = most, set[Host]()

    @property
    def full(self) -> bool:
        """Return whether there is no room for another host."""
        return len(self._seen) >= self._most

    def first(self, event: Event | None) -> Host | None:
        """Return the host that an event refuses for the first time; None if it does not, or if its host is no name.

        An agent can request what looks like a pattern, and a yes to that would open every name that it covers.
        """
        if event is None or not event.unlisted or event.inner or self.full:
            return None
        try:
            host = parse_host(event.host)
        except ValueError:
            return None
        if host.name.startswith("*.") or host in self._seen:
            return None
        self._seen.add(host)
        return host


def report(tally: Tally, bottle: object, requests: int | None = None) -> str:
    """Return the egress report of a session's end.

    `bottle` is the path of its bottle's manifest, `requests` its limit of messages.
    """
    groups = {"refused": tally.refused, "no such name": tally.unresolved, "failed": tally.failed}
    told = [f"{name}: {_counted(hosts)}" for name, hosts in groups.items() if hosts]
    text = f"egress  {'; '.join([_many(tally.allowed, 'request') + ' allowed', *told])}\n"
    if tally.messages or tally.sent:
        made = _many(tally.messages, "message") if requests is None else f"{tally.messages} of {requests} messages"
        text += f"        {made}, {_size(tally.sent)} up\n"
    lines = _section("egress", "allow", map(str, tally.allowable)) + _section("api", "paths", tally.openable)
    return f"{text}        to allow, in {escape_control_chars(str(bottle))}:\n{lines}" if lines else text


def _section(section: str, key: str, items: Iterable[str]) -> str:
    """Return the lines of a manifest with the first of `items`; nothing if there is none."""
    shown = ", ".join(map(scalar, islice(items, _SHOWN)))
    return f"{section}:\n  {key}: [{shown}]\n" if shown else ""


def _size(count: int) -> str:
    """Return a number of bytes in its largest unit, such as "1.2 MB"."""
    for unit, size in _SUFFIXES:
        if round(count / size, 1) >= 1:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _counted(hosts: Mapping[str, int]) -> str:
    names = _by_count(hosts)
    told = [f"{_cut(name, 80)} {_many(hosts[name], 'time')}" for name in names[:_SHOWN]]
    rest = len(names) - _SHOWN
    return ", ".join([*told, *([f"{rest} more"] if rest > 0 else [])])


def _by_count(hosts: Mapping[str, int]) -> list[str]:
    return sorted(hosts, key=lambda name: (name == _OTHERS, -hosts[name], name))


def _many(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _data(line: bytes) -> dict[str, object]:
    try:
        data = json.loads(line.decode(errors="replace"))
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _texts(data: Mapping[str, object]) -> dict[str, str]:
    return {key: value for key, value in data.items() if isinstance(value, str)}


def _number(value: object, most: int = (1 << 63) - 1) -> int:
    """Return a count; 0 if it is none. Lua writes a large one with a fraction or an exponent."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= most:
        return 0
    return int(value)


def _verdict(fields: Mapping[str, str]) -> str | None:
    event = fields.get("event")
    if event in ("tunnel_open", "forward_http"):
        return ALLOWED
    if event == "blocked":
        unknown = fields.get("scanner") == "ssrf" and "DNS resolution error" in fields.get("reason", "")
        return UNRESOLVED if unknown else BLOCKED
    # Its third category, timeout, is any tunnel whose client closes or waits without sending anything.
    if event == "sni_mismatch" and fields.get("category") in ("mismatch", "malformed_tls"):
        return BLOCKED
    return FAILED if event == "error" and "target" in fields else None


def _reason(fields: Mapping[str, str]) -> str:
    if fields.get("event") == "sni_mismatch":
        other = fields.get("category") == "mismatch"
        return f"the TLS inside is for {fields.get('sni_host', '')}" if other else "the TLS inside is malformed"
    return fields.get("reason") or fields.get("error", "")


def _host(fields: Mapping[str, str]) -> str:
    """Return `name`, `name:port` if the port is not 443, or `http://name` if it was not a CONNECT."""
    target = fields.get("target") or fields.get("connect_host", "")
    if not target:
        scheme, _, rest = fields.get("url", "").partition("://")
        return _word(f"{scheme}://{rest.partition('/')[0]}", _LONGEST)
    return _named(target)


def _named(target: str) -> str:
    """Return `name`, or `name:port` if the port is not 443."""
    name, colon, port = target.rpartition(":")
    if not colon or not port.isdecimal():
        name, port = target, str(HTTPS)
    name = name.lower().removesuffix(".")
    return _word(name if port == str(HTTPS) else f"{name}:{port}", _LONGEST)


def _time(fields: Mapping[str, str]) -> str:
    return _ascii(fields.get("time", "-"), len("2026-01-01T00:00:00Z"))


def _word(text: str, longest: int) -> str:
    """Return foreign text as `_ascii` does, without a space: it cannot pass for more than one field of a line."""
    return _ascii(text[: longest + 1].replace(" ", "\\x20"), longest)


def _ascii(text: str, longest: int) -> str:
    """Return foreign text as printable ASCII, cut if it is too long."""
    plain = text[: longest + 1].encode("ascii", "backslashreplace").decode("ascii")
    return _cut(escape_control_chars(plain), longest)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
