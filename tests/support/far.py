"""A way to this machine's own engine over ssh: each connection has an sshd of its own, and none has a port."""

import contextlib
import getpass
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.sessions import GUARD, Bench
from tests.world import apt

SSHD = "/usr/sbin/sshd"
SERVER = """\
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PasswordAuthentication no
KbdInteractiveAuthentication no
StrictModes no
UsePAM no
PidFile none
"""
# In a session of its own: a stopped one would be sent SIGHUP and SIGCONT at the end of ssh, and close what is open.
CLIENT = """\
ProxyCommand setsid {sshd} -i -f {folder}/server
IdentityFile {folder}/user
IdentitiesOnly yes
UserKnownHostsFile {folder}/known
StrictHostKeyChecking yes
"""


class Far:
    """The engine of a test's sessions as another machine's: `env` leads there."""

    def __init__(self, bench: Bench, server: str = "") -> None:
        """Make keys and configurations, with `server` as further lines of sshd's, which is installed if absent."""
        if not Path(SSHD).exists():
            apt.install("openssh-server")
        self.folder = bench.folder / "far"
        self.folder.mkdir()
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # an empty folder, which sshd wants to be there
        for name in ("host", "user"):
            subprocess.run(("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)), check=True)
        self._write("known", f"far {(self.folder / 'host.pub').read_text()}")
        self._write("server", SERVER + server)
        self._write("client", CLIENT)
        self.down = self.folder / "down"  # while it is there, no connection can be made
        run = f'[[ -e {self.down} ]] && exit 255\nexec ssh -F {self.folder}/client "$@"'
        path = bench.program("ssh", f"PATH={bench.environ['PATH']}\n{run}", "ssh")
        engine = os.environ.get("DOCKER_HOST", "").removeprefix("unix://")
        self.env = {"PATH": path, "DOCKER_HOST": f"ssh://{getpass.getuser()}@far{engine}"}

    def connections(self) -> list[int]:
        """Return the process ids of ssh, one for each connection that there is."""
        mark = f"ssh\0-F\0{self.folder}/client\0".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                found += [int(path.parent.name)] if path.read_bytes().startswith(mark) else []
        return found

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Have nothing pass through the connections that there are, and nobody notice, during the block."""
        stopped: list[int] = []
        parents = set(self.connections())
        while parents := {pid for pid, parent in _parents().items() if parent in parents}:
            stopped += parents
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def until_closed(self) -> None:
        """Wait until there is no connection."""
        end = time.monotonic() + GUARD
        while self.connections():
            assert time.monotonic() < end
            time.sleep(0.1)

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text.format(folder=self.folder, sshd=SSHD))


def _parents() -> dict[int, int]:
    """Return all processes' ids, with their parents'."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            found[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    return found
