"""The environment variables of a bottle: which a manifest may set, and from what."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from claude_bottle.documents.escaping import is_utf8
from claude_bottle.host.machine import TOKEN_VARIABLE
from claude_bottle.manifest.validation import Value

PLACEHOLDER = "claude-bottle-placeholder"
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WHOLE = re.compile(r"\$\{([^}]*)\}")
_PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"})  # in either case
_OWNED = frozenset(
    {
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
        "CLAUDE_CODE_OAUTH_TOKEN",
        "CLAUDE_CONFIG_DIR",
        "DISABLE_AUTOUPDATER",
        "HOME",
        "NODE_EXTRA_CA_CERTS",
    }
)
_OWNED_PREFIX = "CLAUDE_BOTTLE_"

# A host value travels in the environment of the docker client, under the bottle's name for it. These names would change
# the client itself, or what it starts (ssh, a credential helper): the loader, libc, Go's run time, docker's own.
_CLIENT_PREFIXES = (
    *("BUILDKIT_", "BUILDX_", "DOCKER_", "DYLD_", "LD_", "MALLOC_"),
    *("OTEL_", "SSH_", "SSL_CERT_", "XDG_"),
)
_CLIENT = frozenset(
    (
        *("BASH_ENV", "ENV", "PATH", "SHELL", "TERM", "TEMP", "TMP", "TMPDIR"),
        *("GCONV_PATH", "GLIBC_TUNABLES", "HOSTALIASES", "LOCALDOMAIN", "LOCPATH", "NLSPATH", "RES_OPTIONS"),
        *("GOCOVERDIR", "GODEBUG", "GOGC", "GOMAXPROCS", "GOMEMLIMIT", "GOTRACEBACK", "RESOLV_HOST_CONF"),
    )
)


@dataclass(frozen=True)
class EnvVar:
    """A variable of the bottle: a literal, or the host variable that it comes from; exactly one of the two is set.

    A `placeholder` is a literal for a tool that does not run without a token, which the credential proxy sets.
    """

    name: str
    literal: str | None = field(default=None, repr=False)
    source: str | None = None
    placeholder: bool = False


def read_variable(name: str, value: Value, environ: Mapping[str, str]) -> EnvVar | None:
    """Check one entry of `env:`; no message shows a value, which may be a secret."""
    if problem := _name_problem(name):
        value.fail(problem, key=True)
    if isinstance(value.data, dict):
        return _placeholder(name, value)
    text = value.text()
    if text is None:
        return None
    if "${" not in text:
        return EnvVar(name, literal=text)
    match = _WHOLE.fullmatch(text)
    if not match or not VARIABLE.fullmatch(match[1]):
        value.fail('"${" only works as a whole value, "${NAME}" with the name of a host variable')
        return None
    _check_source(name, match[1], value, environ)
    return EnvVar(name, source=match[1])


def _placeholder(name: str, value: Value) -> EnvVar:
    """Read `{placeholder: true}`."""
    value.keys(("placeholder",))
    flag = value.get("placeholder")
    if flag is None:
        value.fail('missing required key "placeholder"')
    elif flag.flag() is False:
        flag.fail("must be true; leave the variable out otherwise")
    return EnvVar(name, literal=PLACEHOLDER, placeholder=True)


def _name_problem(name: str) -> str | None:
    if not VARIABLE.fullmatch(name):
        return "a variable's name has only letters, digits and _, and no digit in front"
    if name.upper() in _PROXIES or name in _OWNED or name.startswith(_OWNED_PREFIX):
        return "is set by claude-bottle itself"
    return None


def _check_source(name: str, source: str, value: Value, environ: Mapping[str, str]) -> None:
    if name in _CLIENT or name.startswith(_CLIENT_PREFIXES):
        value.fail("cannot come from the host, because it would change the docker client on its way; write a literal")
    if source == TOKEN_VARIABLE:
        value.fail(f"{source} never enters a bottle; the credential proxy sets it")
    elif source not in environ:
        value.fail(f"{source} is not set on the host")
    elif not is_utf8(environ[source]):
        value.fail(f"{source} is not UTF-8 text on the host, and docker passes on nothing else")
