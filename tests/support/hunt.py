"""Where a planted secret could show: arguments of processes, the engine's files, and what docker tells."""

import json
import subprocess
import threading
from collections.abc import Sequence
from typing import Self

from tests.support.sessions import Bench, command_lines, docker
from tests.world import World

# Tells which of the words on stdin are in which files of the engine: all those below its root, in /run, below
# containerd's root and right in /tmp that were changed since $1 (their ctime, which nothing can set back); of the
# layers of images and containers only those that are as new. -xdev leaves out what is mounted there, such as what a
# container sees: that is in those layers. The words lie in a tmpfs, or this would find itself.
HUNT = """
cat > /hunt/words
cd /engine
{
    find root run lib/containerd -xdev -path 'root/overlay2/*' -prune -o -type f -newerct "@$1" -print0
    find root/overlay2 -mindepth 1 -maxdepth 1 -newerct "@$1" -exec find {} -xdev -type f -print0 ';'
    find tmp -maxdepth 1 -type f -newerct "@$1" -print0
} > /hunt/files
xargs -0 -r grep -a -o -H -s -F -f /hunt/words < /hunt/files | sort -u
"""

# Looks for the words on stdin in all that its user can read in a container: files, and of every process but this one
# the environment, the arguments and the memory.
SEARCH = r"""
import json, os, re, sys
words = {word: bytes.fromhex(word) for word in sys.stdin.read().split()}
found = {word: [] for word in words}
def look(place, data):
    for word, raw in words.items():
        if raw in data and place not in found[word]:
            found[word].append(place)
for folder, folders, files in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in ("/proc", "/sys", "/dev")]
    for name in files:
        path = os.path.join(folder, name)
        if os.path.isfile(path) and os.access(path, os.R_OK) and os.path.getsize(path) < 1 << 26:
            look(path, open(path, "rb").read())
for pid in filter(str.isdigit, os.listdir("/proc")):
    if pid == str(os.getpid()):
        continue
    for name in ("cmdline", "environ"):
        try:
            look(name, open(f"/proc/{pid}/{name}", "rb").read())
        except OSError:
            pass
    try:
        memory = open(f"/proc/{pid}/mem", "rb", 0)
        for line in open(f"/proc/{pid}/maps"):
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            if line.split()[1][0] == "r":
                for at in range(start, end, 1 << 24):
                    memory.seek(at)
                    look("memory", memory.read(min(end - at, (1 << 24) + 4096)))
    except (OSError, OverflowError):
        pass
print(json.dumps(found))
"""


class Watch:
    """Looks at the arguments of every process of this machine, again and again."""

    def __init__(self, needles: Sequence[str]) -> None:
        self.seen: set[str] = set()
        self._needles = needles
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.is_set():
            for line in command_lines():
                self.seen.update(needle for needle in self._needles if needle.encode() in line)


def on_disk(world: World, since: float, words: Sequence[str]) -> dict[str, set[str]]:
    """Return the engine's files by the words that they hold; a container looks, as root and where the engine is."""
    root = docker("info", "--format", "{{.DockerRootDir}}").strip()
    found = docker(
        "run", "--rm", "--interactive", "--network", "none", "--log-driver", "none", "--pull", "never",
        "--userns", "host",  # an engine's root in a range of its own may not read the engine's files
        "--tmpfs", "/hunt", "--volume", f"{root}:/engine/root:ro", "--volume", "/run:/engine/run:ro",
        "--volume", "/tmp:/engine/tmp:ro", "--volume", "/var/lib:/engine/lib:ro",
        world.base_image, "bash", "-c", HUNT, "bash", str(int(since)), stdin="\n".join(words).encode(),
    )  # fmt: skip
    pairs = [line.rpartition(":") for line in found.splitlines()]
    return {word: {path for path, _, match in pairs if match == word} for word in words}


def told_by_docker(bench: Bench) -> str:
    """Return what docker tells of every container and network of the agent's sessions, and their logs."""
    names = {
        kind: [one.split()[-1] for one in bench.left() if one.startswith(f"{kind} ")] for kind in ("ps", "network")
    }
    logs = [subprocess.run(("docker", "logs", name), capture_output=True, check=False) for name in names["ps"]]
    told = docker("container", "inspect", *names["ps"]) + docker("network", "inspect", *names["network"])
    return told + b"".join(log.stdout + log.stderr for log in logs).decode()


def inside(container: str, user: str, words: Sequence[bytes]) -> dict[bytes, list[str]]:
    """Return where in a running container a user finds the words: files, `environ`, `cmdline`, `memory`."""
    asked = ("exec", "--interactive", "--user", user, container, "/usr/bin/python3", "-I", "-c", SEARCH)
    found = json.loads(docker(*asked, stdin=" ".join(word.hex() for word in words).encode()))
    return {word: found[word.hex()] for word in words}
