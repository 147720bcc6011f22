"""The user's variables that claude and the shells of a bottle get, and what becomes of values unknown to its image."""

from collections.abc import Mapping

# Not LANG and LC_*: the image has no locale but C.UTF-8.
NAMES = ("TERM", "COLORTERM", "TERM_PROGRAM", "NO_COLOR", "FORCE_COLOR", "TZ")
# The image is asked at each start, since a bottle's own may know more or less than the base. A TZ with a digit before
# any slash explains itself, such as CET-1CEST; any other is the name of a zone, or of a file of the user's machine.
_KNOWN = """
/usr/bin/infocmp -- "$TERM" >/dev/null 2>&1 || TERM=xterm-256color
[[ $TZ =~ ^[^/:]+[0-9] || -f /usr/share/zoneinfo/${TZ#:} ]] || unset TZ
exec "$@"
"""


def names(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the variables to pass on, those set to something: docker would remove the image's for an unset one."""
    return tuple(name for name in NAMES if environ.get(name))


def known(argv: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command that runs `argv` in a bottle, for an image that may not know the user's terminal or time zone.

    An unknown terminal becomes xterm-256color, an unknown time zone UTC.
    """
    return ("/bin/bash", "-c", _KNOWN, "bash", *argv)
