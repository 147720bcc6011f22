"""A session's requests as the sidecar's log records them: events, tallies, the report at the end. Pure.

The log is pipelock's: one JSON object a line, in which a host is whatever the agent requested, up to 200 KB long.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from claude_bottle import REFUSED
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.documents.yaml_edit import scalar
from claude_bottle.egress.allowlist import HTTPS, Host, parse_further

ALLOWED, BLOCKED, UNRESOLVED, FAILED = "allowed", "blocked", "unresolved", "failed"
_OTHERS = "other hosts"  # hosts beyond the limit, counted together
_DISTINCT = 1000  # hosts that are counted one by one: a flood of names must not fill the memory
_SHOWN = 10  # hosts named in a report
_LONGEST = 259  # characters of a host; no name with a port is longer
_REASON = 200  # characters of a reason
_DIGITS = 8  # of the number of a request; a bit is kept for each


@dataclass(frozen=True)
class Event:
    """The outcome of one request, in printable ASCII; `unlisted` if it was refused for want of its host on the list."""

    time: str
    verdict: str
    host: str
    reason: str
    request: str
    unlisted: bool = False

    def __str__(self) -> str:
        """Return the line of `logs`."""
        return f"{self.time:<20}  {self.verdict:<10}  {self.host:<32}  {self.reason}".rstrip()


def parse(line: bytes) -> Event | None:
    """Parse one line of the sidecar's log; None if it is not about a request of the agent's."""
    fields = _fields(line)
    verdict = _verdict(fields)
    if verdict is None or _host(fields) == REFUSED:
        return None
    return Event(
        time=_ascii(fields.get("time", "-"), len("2026-01-01T00:00:00Z")),
        verdict=verdict,
        host=_host(fields),
        reason=_ascii(_reason(fields), _REASON),
        request=fields.get("request_id", ""),
        unlisted=verdict == BLOCKED and fields.get("scanner") == "allowlist",
    )


def reloaded(line: bytes) -> str | None:
    """Return the SHA-256 of the configuration that a line reports as in force now; None if it reports none."""
    fields = _fields(line)
    done = fields.get("event") == "config_reload" and fields.get("status") == "success"
    return fields.get("config_hash") if done else None


class Tally:
    """Counts events, each request once: some engines repeat lines when a followed log is rotated."""

    def __init__(self) -> None:
        """Start with nothing counted."""
        self.allowed = 0
        self._hosts: dict[str, dict[str, int]] = {BLOCKED: {}, UNRESOLVED: {}, FAILED: {}}
        self._unlisted: set[str] = set()
        self._seen = bytearray()

    def add(self, line: bytes) -> Event | None:
        """Count one line of the log; return its event, None if there is nothing to count."""
        event = parse(line)
        if event is None or not self._is_new(event.request):
            return None
        if event.verdict == ALLOWED:
            self.allowed += 1
        else:
            hosts = self._hosts[event.verdict]
            name = event.host if event.host in hosts or len(hosts) < _DISTINCT else _OTHERS
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
        """Return how often each host was refused."""
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
                found += [parse_further(name)] if name in self._unlisted else []
            except ValueError:
                continue  # no manifest may have it: an address, a name that could front for the API, anything else
        return tuple(found)

    def _is_new(self, request: str) -> bool:
        number = request.removeprefix("req-")
        if not (number.isdecimal() and len(number) <= _DIGITS):
            return True
        place, bit = divmod(int(number), 8)
        self._seen.extend(bytes(max(0, place + 1 - len(self._seen))))
        new = not self._seen[place] >> bit & 1
        self._seen[place] |= 1 << bit
        return new


def report(tally: Tally, bottle: object) -> str:
    """Return the egress report of a session's end; `bottle` is the path of its bottle's manifest."""
    groups = {"refused": tally.refused, "no such name": tally.unresolved, "failed": tally.failed}
    told = [f"{name}: {_counted(hosts)}" for name, hosts in groups.items() if hosts]
    text = f"egress  {'; '.join([_many(tally.allowed, 'request') + ' allowed', *told])}\n"
    offered = tally.allowable[:_SHOWN]
    if offered:
        hosts = ", ".join(scalar(str(host)) for host in offered)
        text += f"        to allow, in {escape_control_chars(str(bottle))}:\negress:\n  allow: [{hosts}]\n"
    return text


def _counted(hosts: Mapping[str, int]) -> str:
    names = _by_count(hosts)
    told = [f"{_cut(name, 80)} {_many(hosts[name], 'time')}" for name in names[:_SHOWN]]
    rest = len(names) - _SHOWN
    return ", ".join([*told, *([f"{_many(rest, 'more host')}"] if rest > 0 else [])])


def _by_count(hosts: Mapping[str, int]) -> list[str]:
    return sorted(hosts, key=lambda name: (name == _OTHERS, -hosts[name], name))


def _many(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _fields(line: bytes) -> dict[str, str]:
    try:
        data = json.loads(line.decode(errors="replace"))
    except (ValueError, RecursionError):
        return {}
    return {key: value for key, value in data.items() if isinstance(value, str)} if isinstance(data, dict) else {}


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
        return _ascii(f"{scheme}://{rest.partition('/')[0]}", _LONGEST)
    name, colon, port = target.rpartition(":")
    if not colon or not port.isdecimal():
        name, port = target, str(HTTPS)
    name = name.lower().removesuffix(".")
    return _ascii(name if port == str(HTTPS) else f"{name}:{port}", _LONGEST)


def _ascii(text: str, longest: int) -> str:
    """Return foreign text as printable ASCII, cut if it is too long."""
    plain = text[: longest + 1].encode("ascii", "backslashreplace").decode("ascii")
    return _cut(escape_control_chars(plain), longest)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
