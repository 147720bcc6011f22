#!/bin/sh
# fmt: off
''':'
# Run claude-bottle from a checkout: create .venv on first use, then run claude_bottle.cli in it.
#
# To the shell this file ends at the last exec; to Python these lines are a string. Once .venv exists, python3 is never
# started: it may be a slow wrapper of a version manager. -I ignores the current directory and PYTHONPATH, so that no
# cloned repository is imported on the host; -S saves the time of site-packages.
# The Python below must parse on 3.6, so that an old Python prints an error and not a traceback.
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
            sys.exit(1)  # no set-up during completion
        if not sys.flags.isolated:
            os.execv(sys.executable, [sys.executable, "-IS", SELF] + sys.argv[1:])
        set_up()
    os.execv(PYTHON, [PYTHON, "-I", SELF] + sys.argv[1:])


def is_ready() -> bool:
    # A finished .venv has a copy of the requirements. If its Python was removed by an upgrade, PYTHON is a dead link.
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
        fail("needs Python 3.11 or newer, but %s is %s; install one and run `python3.11 %s`"
             % (sys.executable, version, SELF))  # fmt: skip
    try:
        import ensurepip  # noqa: F401
        import fcntl
        import venv  # noqa: F401
    except ImportError:
        fail("this Python lacks its venv module; install it (Debian: apt install python3-venv)")
    gone = os.path.lexists(PYTHON) and not os.path.exists(PYTHON)
    why = " anew, because its Python, %s, is gone" % os.path.realpath(PYTHON) if gone else ""
    if not os.access(HERE, os.W_OK):
        fail("the first use creates .venv%s, so it must be able to write to %s" % (why, HERE))
    say("setting up %s%s; this takes some seconds"
        % (VENV, why or " (on first use, or after a change of requirements.txt)"))  # fmt: skip
    try:
        # flock on NFS needs a writable file. Not cli.py: a script that is open for writing cannot be executed.
        with open(REQUIREMENTS, "r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not is_ready():
                build(lock.fileno())
    except OSError as error:
        fail("cannot set up .venv: %s" % error)
    except KeyboardInterrupt:
        say("set-up interrupted; the next use repeats it")
        sys.exit(130)


def build(lock: int) -> None:
    """Create `.venv.new` and rename it to `.venv`, so that `.venv` is always complete."""
    import shutil

    new, old = VENV + ".new", VENV + ".old"
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    try:
        # The real file, not a link such as /usr/bin/python3, so that is_ready() notices an upgrade to another version.
        run(lock, os.path.realpath(sys.executable), "-m", "venv", new)
        for script in os.listdir(os.path.join(new, "bin")):
            if not script.startswith("python"):
                os.remove(os.path.join(new, "bin", script))  # its first line has a path that the rename breaks
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

    # The child inherits the lock: if this process is killed, no other one builds while the orphan still does.
    done = subprocess.run(
        [python, "-I"] + list(args), check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=(lock,),
    )  # fmt: skip
    if done.returncode:
        last = "\n".join(done.stdout.decode(errors="replace").strip().splitlines()[-6:])
        fail("set-up failed; check the network, and pip's proxy and index settings:\n%s" % last)


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
