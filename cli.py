#!/bin/sh
# fmt: off
''':'
# Run claude-bottle from a checkout: make .venv on first use, then hand over to claude_bottle.cli in it.
#
# The shell reads up to the last exec and Python takes these lines for a string: once .venv is there, python3, which
# may be a slow wrapper of a version manager, is not started at all. -I keeps the current directory and PYTHONPATH
# out, so that no cloned repository is imported on the host; -S saves the time of site-packages.
# The Python below must parse on 3.6, so that an old one gets a sentence and not a traceback.
self=$(readlink -f -- "$0" 2>/dev/null) && here=${self%/*} && [ -x "$here/.venv/bin/python" ] &&
    cmp -s "$here/requirements.txt" "$here/.venv/requirements.txt" && exec "$here/.venv/bin/python" -I "$self" "$@"
exec python3 -IS "$0" "$@"
':'''
# fmt: on

import os
import sys

SELF = os.path.realpath(__file__)
HERE = os.path.dirname(SELF)
VENV = os.path.join(HERE, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
REQUIREMENTS = os.path.join(HERE, "requirements.txt")


def main() -> None:
    if sys.flags.isolated and sys.prefix == VENV:
        sys.path.append(HERE)
        from claude_bottle.cli import main as command

        sys.exit(command())
    if not is_ready():
        if os.environ.get("_CLI_PY_COMPLETE"):
            sys.exit(1)  # a TAB waits for no set-up
        if not sys.flags.isolated:
            os.execv(sys.executable, [sys.executable, "-IS", SELF] + sys.argv[1:])
        set_up()
    os.execv(PYTHON, [PYTHON, "-I", SELF] + sys.argv[1:])


def is_ready() -> bool:
    # The copy of the requirements arrives with the finished .venv; a Python that was upgraded away is not executable.
    return os.access(PYTHON, os.X_OK) and read(os.path.join(VENV, "requirements.txt")) == read(REQUIREMENTS)


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return "no " + path


def set_up() -> None:
    if sys.version_info < (3, 11):
        version = ".".join(map(str, sys.version_info[:3]))
        fail("needs Python 3.11 or newer, and %s is %s: install one and run it as `python3.11 %s`"
             % (sys.executable, version, SELF))  # fmt: skip
    try:
        import ensurepip  # noqa: F401
        import fcntl
        import venv  # noqa: F401
    except ImportError:
        fail("this Python cannot make virtual environments: install its venv module (Debian: apt install python3-venv)")
    if not os.access(HERE, os.W_OK):
        fail("the first use makes .venv and so must be able to write to %s" % HERE)
    say("setting up %s, on first use or when requirements.txt changed; this takes some seconds" % VENV)
    try:
        with open(REQUIREMENTS, "r+b") as lock:  # flock on NFS wants it writable; a script could not be started then
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not is_ready():
                build(lock.fileno())
    except OSError as error:
        fail("cannot set up .venv: %s" % error)
    except KeyboardInterrupt:
        say("set-up interrupted; the next use does it again")
        sys.exit(130)


def build(lock: int) -> None:
    """Make `.venv` aside and rename it into place, so that nobody ever sees half of one."""
    import shutil

    new, old = VENV + ".new", VENV + ".old"
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    try:
        # The real file, not a link such as /usr/bin/python3: an upgrade to another version is then seen by is_ready().
        run(lock, os.path.realpath(sys.executable), "-m", "venv", new)
        for script in os.listdir(os.path.join(new, "bin")):
            if not script.startswith("python"):
                os.remove(os.path.join(new, "bin", script))  # names a path that the rename makes wrong
        requirements = shutil.copy(REQUIREMENTS, new)
        run(lock, os.path.join(new, "bin", "python"), "-m", "pip", "install", "--quiet", "--no-input", "--no-user",
            "--no-deps", "--only-binary=:all:", "--require-hashes", "--requirement", requirements)  # fmt: skip
        if os.path.lexists(VENV):
            os.rename(VENV, old)
        os.rename(new, VENV)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def run(lock: int, python: str, *args: str) -> None:
    import subprocess

    # The child inherits the lock: should this process be killed, nobody builds beside the orphan.
    done = subprocess.run(
        [python, "-I"] + list(args), check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=(lock,),
    )  # fmt: skip
    if done.returncode:
        last = "\n".join(done.stdout.decode(errors="replace").strip().splitlines()[-6:])
        fail("set-up failed; is the network there, and pip's proxy and index right? It said:\n%s" % last)


def say(text: str) -> None:
    try:
        sys.stderr.write("claude-bottle: %s\n" % text)
        sys.stderr.flush()
    except (AttributeError, OSError):
        sys.stderr = None  # it is closed, or full, and Python would try again as it exits


def fail(text: str) -> None:
    say(text)
    sys.exit(1)


if __name__ == "__main__":
    main()
