"""A cluster of Slurm, from Debian's packages: a controller and two nodes of one CPU, all on this machine."""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.sessions import GUARD
from tests.world import apt
from tests.world.shell import which

PACKAGES = ("munge", "slurm-client", "slurmctld", "slurmd")
NODES = ("n1", "n2")
CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/controller
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
NodeName=n1 NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1
NodeName=n2 NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1
PartitionName=all Nodes=n1,n2 Default=YES State=UP
"""


@dataclass(frozen=True)
class Slurm:
    """A cluster that is up; `environ` is for its clients."""

    folder: Path
    environ: dict[str, str]

    def ask(self, *words: str) -> str:
        """Return what a client prints."""
        done = subprocess.run(words, env=os.environ | self.environ, capture_output=True, check=True)
        return done.stdout.decode()

    def holds(self, word: str) -> list[Path]:
        """Return its files that have a word."""
        found = []
        for path in self.folder.rglob("*"):
            with contextlib.suppress(OSError):  # a folder, a socket, a file that is renamed meanwhile
                if word.encode() in path.read_bytes():
                    found.append(path)
        return found


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Slurm]:
    """Make a cluster in a folder that is not too deep for a socket; all of it ends with the block."""
    if not all(map(which, ("munged", "srun", "slurmctld", "slurmd"))):
        apt.install(*PACKAGES)
    for name in ("controller", *NODES, "munge"):
        (folder / name).mkdir(mode=0o700)
    folder.chmod(0o711)
    (folder / "munge/key").write_bytes(os.urandom(1024))
    (folder / "munge/key").chmod(0o600)
    config = folder / "slurm.conf"
    config.write_text(CONFIG.format(folder=folder, host=socket.gethostname(), ports=_ports(3)))
    slurm = Slurm(folder, {"SLURM_CONF": str(config)})
    started: list[subprocess.Popen[bytes]] = []
    try:
        started.append(_munged(folder))
        started.append(_started(folder, "controller", "slurmctld", "-D", "-f", str(config)))
        for name in NODES:  # each finds its own line by its host name
            node = ("slurmd", "-D", "-N", name, "-f", str(config))
            started.append(
                _started(folder, name, "unshare", "--uts", "sh", "-c", f'hostname {name} && exec "$@"', "sh", *node)
            )
        _await_idle(slurm)
        yield slurm
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            slurm.ask("scancel", "--user", "root")
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait()


def _munged(folder: Path) -> "subprocess.Popen[bytes]":
    files = {"key-file": "munge/key", "pid-file": "munge/pid", "log-file": "munge/log", "seed-file": "munge/seed"}
    words = [f"--{name}={folder / file}" for name, file in files.items()]
    return _started(folder, "munged", "munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *words)


def _started(folder: Path, name: str, *argv: str) -> "subprocess.Popen[bytes]":
    with (folder / f"{name}.out").open("wb") as out:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out)


def _await_idle(slurm: Slurm) -> None:
    end = time.monotonic() + GUARD
    while time.monotonic() < end:
        with contextlib.suppress(subprocess.CalledProcessError):
            if slurm.ask("sinfo", "--noheader", "--format", "%D %t").split() == [str(len(NODES)), "idle"]:
                return
        time.sleep(0.2)
    raise AssertionError("\n".join(path.read_text() for path in slurm.folder.glob("*.out")))


def _ports(count: int) -> list[int]:
    """Return ports that nobody has now."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]
