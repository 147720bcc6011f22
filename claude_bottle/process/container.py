"""The one way in which this program runs something of its own in a container.

By absolute paths, as a given user, in an environment of its own: no variable or PATH of the image counts.
"""

from collections.abc import Mapping

Argv = tuple[str, ...]

AGENT = "1000:1000"  # the user and group of all that runs in a bottle, but for its first processes
GUARD = "65532:65532"  # theirs: no file belongs to it, and the agent can neither signal nor trace it
HOME = "/home/agent"
# What Debian installs first: what an image adds below /usr/local is found where nothing else has the name.
PATH = "/usr/bin:/usr/sbin:/bin:/sbin:/usr/local/bin:/usr/local/sbin"
# Reads its program from stdin; no variable, no package of the user's or the image's, and names in UTF-8.
PYTHON = ("/usr/bin/python3", "-I", "-S", "-X", "utf8", "-")


def execute(
    container: str, *program: str, user: str = AGENT, env: Mapping[str, str] | None = None, flags: Argv = ()
) -> Argv:
    """Return the command that runs `program`, whose first word is an absolute path, in a container.

    `env` is set besides PATH, HOME and the like; process lists show it, so it must hold no secret. `flags` are passed
    to `docker exec`.
    """
    return ("docker", "exec", "--interactive", *flags, "--user", user, container, *clean(*program, env=env))


def clean(*program: str, env: Mapping[str, str] | None = None) -> Argv:
    """Return the words that run `program` with `env`, PATH, HOME and the like as its whole environment."""
    # OpenSSL's own file, the image's, could have a library loaded into Python.
    variables = {"PATH": PATH, "HOME": HOME, "LANG": "C.UTF-8", "OPENSSL_CONF": "/dev/null", **(env or {})}
    return ("/usr/bin/env", "-i", *(f"{name}={value}" for name, value in variables.items()), *program)
