"""An engine of another Debian release, made in a folder and started in namespaces of its own. See engine.sh."""

import fcntl
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.world import REPOSITORY, apt, certificates
from tests.world.shell import PATH, WorldError, run, say, which

SCRIPT = Path(__file__).with_name("engine.sh")
SPACE = ("unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc")
PACKAGES = (
    *("bash-completion", "fish", "git", "iproute2", "iptables", "kmod", "make", "nftables", "openssh-client"),
    *("openssl", "procps", "python3", "python3-venv", "tmux", "zsh"),
)
# Those that a user gets with `apt-get install docker.io` and the packages that this recommends.
DOCKER = ("docker.io", "docker-buildx", "docker-cli")


@dataclass(frozen=True)
class Release:
    """What an engine is made of: a suite of Debian, packages beside PACKAGES, flags of dockerd."""

    suite: str
    packages: tuple[str, ...] = DOCKER
    flags: tuple[str, ...] = ()


ENGINES = {
    "bookworm": Release("bookworm", ("docker.io",)),  # its client is in this package, and it has no buildx
    "trixie": Release("trixie"),
    "trixie-userns": Release("trixie", flags=("--userns-remap=default",)),
    "sid": Release("sid"),
}


@dataclass(frozen=True)
class Engine:
    """An engine that is up."""

    name: str
    prefix: tuple[str, ...]
    """Before a command: runs it in the engine's namespaces."""

    def argv(self, *words: str) -> tuple[str, ...]:
        """Return the command that runs `words` on the engine, in the clone of the repository there."""
        return (*self.prefix, *words)

    def output(self, *words: str) -> str:
        """Return what a command prints that succeeds there."""
        return run(*self.argv(*words)).strip()

    def load(self, *images: str) -> None:
        """Bring images over from the machine's own engine."""
        with subprocess.Popen(("docker", "save", *images), stdout=subprocess.PIPE) as save:
            load = subprocess.run(self.argv("docker", "load"), stdin=save.stdout, capture_output=True, check=False)
        if save.returncode or load.returncode:
            raise WorldError(f"{self.name}: images cannot be loaded: {load.stderr.decode(errors='replace').strip()}")


@contextmanager
def engine(name: str) -> Iterator[Engine]:
    """Make an engine of ENGINES; at the end, end all that runs in it and remove all that is left of it.

    Its first process does that when its stdin ends, so also if this program is killed. There is one at a time: the lock
    is held for as long as a process of it lives. Raises WorldError if it cannot be made.
    """
    mirror = apt.mirror("Debian")
    if mirror is None:
        raise WorldError("this machine's apt has no source of Debian packages")
    for program, package in (("debootstrap",) * 2, ("git",) * 2, ("ip", "iproute2"), ("iptables",) * 2):
        if not which(program):
            apt.install(package)
    folder = certificates.cache() / f"engine-{name}-{secrets.token_hex(4)}"
    release = ENGINES[name]
    words = (str(folder), release.suite, mirror, str(REPOSITORY), " ".join((*PACKAGES, *release.packages)))
    with (certificates.cache() / "engines.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _clear()
        folder.mkdir()
        _not_on_an_overlay(folder)
        say(f"making the engine {name}, a minute or two")
        with subprocess.Popen(
            (*SPACE, "bash", str(SCRIPT), *words, *release.flags), env=os.environ | {"PATH": PATH},
            start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=(lock.fileno(),),
        ) as first:  # fmt: skip
            assert first.stdin
            assert first.stdout
            try:
                daemon = _await(first.stdout, folder)
                yield Engine(name, _prefix(first.pid, daemon, folder.name))
            finally:  # Popen itself would not wait after a Ctrl-C
                first.stdin.close()
                first.wait()


def _clear() -> None:
    """Remove what an engine left whose first process was killed."""
    for old in certificates.cache().glob("engine-*"):
        shutil.rmtree(old, ignore_errors=True)


def _not_on_an_overlay(folder: Path) -> None:
    if run("stat", "--file-system", "--format", "%T", str(folder)).strip() == "overlayfs":
        folder.rmdir()
        raise WorldError(
            f"not run: {folder.parent} is on an overlay, where an engine inside the engine cannot make images;"
            " set XDG_CACHE_HOME to a folder on another file system"
        )


def _await(said: IO[str], folder: Path) -> str:
    """Wait until the engine is up; return the process id of its dockerd in its own process namespace."""
    for line in said:
        word, _, rest = line.strip().partition(" ")
        if word == "up":
            return rest
        if word == "failed":
            break
    log = (folder / "engine.log").read_text(errors="replace").strip().splitlines()
    raise WorldError("\n  ".join(("not run: the engine cannot be made; its last lines:", *log[-15:])))


def _prefix(outer: int, daemon: str, cgroup: str) -> tuple[str, ...]:
    """Return what runs a command as the engine sees the world: in its first process's namespaces, then in dockerd's."""
    first = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()[0]
    enter = ("nsenter", "--target", first, "--mount", "--pid", "--uts", "--ipc", "--")
    inner = ("nsenter", "--target", daemon, "--mount", "--net", "--root", "--wdns=/src", "--")
    return (*enter, *inner, "env", "--ignore-environment", *_environment(), f"TEST_CGROUP=/{cgroup}")


def _environment() -> Iterator[str]:
    """Yield the variables of a login there, and those that lead to registries and images as on this machine."""
    yield from ("HOME=/root", "LANG=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    for name, value in os.environ.items():
        kept = ("CI", "CLAUDE_BOTTLE_BASE_IMAGE", "CLAUDE_BOTTLE_PIPELOCK_IMAGE", "PYTEST_ADDOPTS", "TERM")
        if name in kept or name.startswith("PIP_") or name.lower().endswith("_proxy"):
            yield f"{name}={value}"
