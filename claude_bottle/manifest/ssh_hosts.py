"""The ssh hosts of a bottle: read from its manifest, written as configuration for the ssh inside the bottle."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from claude_bottle.documents.files import MIB
from claude_bottle.documents.files import read as read_file
from claude_bottle.egress import allowlist
from claude_bottle.manifest import known_hosts as knownhosts
from claude_bottle.manifest import private_key
from claude_bottle.manifest.private_key import KeyFile
from claude_bottle.manifest.validation import ManifestContext, Value, file_path

FOLDER = "/run/ssh-agent"  # the image's, its user's alone: a volume that is mounted there takes that over
SOCKET = f"{FOLDER}/sock"
_KEYS = ("host", "port", "user", "key", "known_host", "alias")
_PORT = 22
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_ALIAS = re.compile(r"[a-z0-9][a-z0-9._-]{0,249}")  # as it stands in ssh_config and known_hosts: no pattern, no list
_MOST_HOSTS = 100
_MOST_KNOWN = 16 * MIB  # of ~/.ssh/known_hosts
_LONGEST = 250  # characters of a name, which is a file's as well: NAME.pub
_PINNED = 'must be the host\'s public key, such as "ssh-ed25519 AAAA...", or what `ssh-keyscan` prints of it'


@dataclass(frozen=True)
class SshHost:
    """A host that a key may be used for.

    `alias` is its name for ssh in the bottle; `pins` are its own keys, each as `type base64` or with a marker of
    known_hosts in front, and there is at least one.
    """

    alias: str
    host: str
    port: int
    user: str
    key: KeyFile
    pins: tuple[str, ...]

    @property
    def reach(self) -> allowlist.Host:
        """Return what the sidecar must let through for it."""
        return allowlist.Host(self.host, self.port)


@dataclass(frozen=True)
class Key:
    """A private key, as its file has it but for blanks, and all hosts that it may be used for."""

    step: str  # the name of the step that hands it over
    file: KeyFile
    hosts: tuple[SshHost, ...]
    private: bytes = field(repr=False)


def read_hosts(section: Value, context: ManifestContext) -> tuple[SshHost, ...]:
    """Check the manifest's `ssh:`; the result is valid only if no fault was added."""
    found: list[SshHost] = []
    items = section.items()
    if len(items) > _MOST_HOSTS:
        section.fail(f"more than {_MOST_HOSTS} hosts")
        return ()
    for item in items:
        host = _host(item, context)
        if host and host.alias in (other.alias for other in found):
            item.fail(f'duplicate host "{host.alias}"; give one of them another name with "alias"')
        found += [host] if host else []
    return tuple(found)


def keys(hosts: Iterable[SshHost]) -> tuple[Key, ...]:
    """Read each private key once; an agent that is given a key twice keeps the second's hosts alone. Raises OSError."""
    groups: dict[str, list[SshHost]] = {}
    for host in hosts:
        groups.setdefault(host.key.public, []).append(host)
    return tuple(
        Key(f"key-{number}", group[0].key, tuple(group), _tidied(read_file(group[0].key.path)))
        for number, group in enumerate(groups.values(), 1)
    )


def _tidied(private: bytes) -> bytes:
    """Return a key's file as ssh-add wants it: no Windows' line ends, no blank lines in front, one line end at last."""
    return private.replace(b"\r\n", b"\n").strip() + b"\n"


def known_hosts(hosts: Iterable[SshHost]) -> str:
    """Return the known_hosts of bottle and key-holder, by alias; ssh gets it as HostKeyAlias."""
    return "".join(f"{_named(pin, host.alias)}\n" for host in hosts for pin in host.pins)


def pinned(host: SshHost) -> str:
    """Return a host's keys as a manifest's `known_host` has them: lines of known_hosts."""
    return "".join(f"{_named(pin, knownhosts.name(host.host, host.port))}\n" for pin in host.pins)


def files(hosts: tuple[SshHost, ...], proxy: str) -> dict[str, bytes]:
    """Return what belongs below `.ssh` in the bottle, none of it secret; `proxy` is the sidecar's `name:port`."""
    if not hosts:
        return {}
    public = {f"{host.alias}.pub": f"{host.key.public}\n".encode() for host in hosts}
    return {"config": _config(hosts, proxy).encode(), "known_hosts": known_hosts(hosts).encode(), **public}


def _config(hosts: tuple[SshHost, ...], proxy: str) -> str:
    declared = ", ".join(host.alias for host in hosts)
    last = (
        "Host *\n"
        # Within a shell: ssh ends the command when its stdout closes, which a redirection of its own would do too soon.
        f"  ProxyCommand sh -c 'echo \"claude-bottle: ssh reaches only what the manifest declares: {declared}\" >&2'\n"
        "  UserKnownHostsFile ~/.ssh/known_hosts\n"
        "  GlobalKnownHostsFile /dev/null\n"
        "  StrictHostKeyChecking yes\n"
        "  UpdateHostKeys no\n"
        "  BatchMode yes\n"
    )
    return "".join((*(_entry(host, proxy) for host in hosts), last))


def _entry(host: SshHost, proxy: str) -> str:
    # A host's certificate is not what was pinned: the key's constraint would not match it.
    plain = "" if any(map(_is_authority, host.pins)) else "  HostKeyAlgorithms -*-cert-v01@openssh.com\n"
    return (
        f"Host {host.alias}\n"
        f"  HostName {host.host}\n"
        f"  Port {host.port}\n"
        f"  User {host.user}\n"
        f"  HostKeyAlias {host.alias}\n"
        f"{plain}"
        # Where a host knows several of the keys, the first that is offered counts: so no other is.
        f"  IdentityFile ~/.ssh/{host.alias}.pub\n"
        "  IdentitiesOnly yes\n"
        f"  ProxyCommand nc -X connect -x {proxy} %h %p\n"
    )


def _named(pin: str, alias: str) -> str:
    marker, _, key = pin.partition(" ") if pin.startswith("@") else ("", "", pin)
    return f"{marker} {alias} {key}".lstrip()


def _host(item: Value, context: ManifestContext) -> SshHost | None:
    item.keys(_KEYS)
    if not isinstance(item.data, dict):
        return None
    name, user, alias = _name(item), _word(item, "user", _USER, "git"), _word(item, "alias", _ALIAS, None)
    port, key = _port(item.get("port")), _key(item, context.home)
    known = item.get("known_host")
    pins = _pinned(known, name, port) if known else _looked_up(item, name, port, context.home) if name and port else ()
    if alias and alias != name and pins:
        # A certificate is for the host's own name, and ssh would compare it with the alias.
        pins = tuple(pin for pin in pins if not _is_authority(pin))
        if not _usable(pins):
            item.fail("a host known by a certificate authority cannot have an alias")
    if name and port and user and key and _usable(pins):
        return SshHost(alias or name, name, port, user, key, pins)
    return None


def _name(item: Value) -> str | None:
    value = item.get("host")
    text = value.text() if value else None
    if value is None:
        item.fail('missing required key "host"')
    if value is None or text is None:
        return None
    try:
        host = allowlist.parse_host(text)
    except ValueError as error:
        value.fail(str(error))
        return None
    if ":" in text or "*" in text:
        value.fail(f'"{text}": must be one name; the port goes under "port"')
        return None
    if domain := allowlist.domain_of_defaults(host.name):
        value.fail(f'"{text}": ssh to {domain} would pass by the credential proxy')
        return None
    if len(text) > _LONGEST:
        value.fail(f"must be at most {_LONGEST} characters")
        return None
    return host.name


def _word(item: Value, key: str, pattern: re.Pattern[str], usual: str | None) -> str | None:
    value = item.get(key)
    text = value.text() if value else usual
    if value and text is not None and not pattern.fullmatch(text):
        value.fail('must have only letters (an alias: lower-case ones), digits, ".", "_" and "-"')
    return text


def _port(value: Value | None) -> int | None:
    if value is None:
        return _PORT
    number = value.number()
    if isinstance(number, int) and 1 <= number <= 65535:
        return number
    if number is not None:
        value.fail("must be a port, from 1 to 65535")
    return None


def _key(item: Value, home: Path) -> KeyFile | None:
    value = item.get("key")
    if value is None:
        item.fail(f'missing required key "key"; {private_key.SUPPORTED}')
        return None
    path = file_path(value, home)
    try:
        return private_key.read(path) if path else None
    except ValueError as error:
        value.fail(f"{path} {error}")
        return None


def _pinned(value: Value, host: str | None, port: int | None) -> tuple[str, ...]:
    """Return a key, or those of the host among lines of known_hosts."""
    text = value.text()
    key = private_key.public(text.strip()) if text else None
    pins = (key,) if key else _valid(knownhosts.find(text or "", knownhosts.name(host or "", port or _PORT)))
    if text is not None and not _usable(pins):
        value.fail(_PINNED)
        return ()
    return pins


def _looked_up(item: Value, host: str, port: int, home: Path) -> tuple[str, ...]:
    file = home / ".ssh" / "known_hosts"
    name = knownhosts.name(host, port)
    try:
        text = read_file(file, _MOST_KNOWN).decode("utf-8", "replace")
    except FileNotFoundError:
        text = ""
    except OSError as error:
        item.fail(f"{file} cannot be read: {error.strerror}")
        return ()
    pins = _valid(knownhosts.find(text, name))
    if not _usable(pins):
        scan = f"ssh-keyscan{'' if port == _PORT else f' -p {port}'} {host}"
        item.fail(
            f'{name} has no "known_host" here and is not in {file}: get its key with `{scan}`, compare it with what'
            ' its owner has published, and give "<type> <key>" as "known_host"'
        )
        return ()
    return pins


def _valid(pins: tuple[str, ...]) -> tuple[str, ...]:
    """Leave out keys that another line revokes: the key's constraint knows no revocation."""
    revoked = {pin.removeprefix("@revoked ") for pin in pins if _is_revoked(pin)}
    return tuple(pin for pin in pins if _is_revoked(pin) or pin.removeprefix("@cert-authority ") not in revoked)


def _usable(pins: tuple[str, ...]) -> bool:
    return not all(map(_is_revoked, pins))


def _is_revoked(pin: str) -> bool:
    return pin.startswith("@revoked ")


def _is_authority(pin: str) -> bool:
    return pin.startswith("@cert-authority ")
