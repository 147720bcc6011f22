"""Git: one container on the world's network, with two sshd of different host keys, https, and two names for all."""

import hashlib
import json
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.world import api, certificates
from tests.world.base import IMAGE as BASE
from tests.world.base import built, packed
from tests.world.shell import WorldError, attempt, run, say

CONTAINER = "claude-bottle-world-git"
HOSTS = HOST, SECOND_HOST = "git.test", "second.test"
PORT, SECOND_PORT = 22, 2222
USER, UID = "git", 1000

# As its own user, sshd can log in nobody else. The keys are a container's own: made when it starts. Both have a host
# certificate as well: what is pinned must work beside one, and so must the authority.
SERVE = """
cd /home/git
serve() {
    ssh-keygen -q -t ed25519 -N '' -f "$1"
    ssh-keygen -q -s authority -I "$1" -h -n "$names" "$1.pub"
    exec /usr/sbin/sshd -D -e -f /dev/null -p "$1" -h "$PWD/$1" \
        -o HostCertificate="$PWD/$1-cert.pub" -o ListenAddress=0.0.0.0 -o PidFile=none \
        -o AuthorizedKeysFile="$PWD/authorized_keys" -o PasswordAuthentication=no \
        -o KbdInteractiveAuthentication=no -o MaxStartups=100
}
touch authorized_keys
names=$1; shift
ssh-keygen -q -t ed25519 -N '' -f authority
for port in "$@"; do serve "$port" & done
cd /srv && exec python3 -u -m tests.world.git_https
"""
# In memory: the tests look for these keys on the engine's disk.
NEW_KEY = """
folder=$(mktemp -d /dev/shm/key.XXXXXX)
IFS= read -r passphrase
ssh-keygen -q -t ed25519 -C made-up -N "$passphrase" -f "$folder/key" && cat "$folder/key.pub" "$folder/key"
rm -r "$folder"
"""
NEW_REPOSITORY = """
git init -q --bare -b main "$1.git"
tree=$(git -C "$1.git" mktree < /dev/null)
git -C "$1.git" -c user.name=World -c user.email=world@example.org commit-tree -m first "$tree" |
    xargs git -C "$1.git" update-ref refs/heads/main
"""
PROGRAMS = ("api/server.py", "git_https.py")
DOCKERFILE = f"""\
FROM {BASE}
RUN apt-get update && apt-get install -y --no-install-recommends \\
    git libpython3-stdlib openssh-server python3-minimal \\
 && rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_* \\
 && useradd --uid {UID} --create-home --shell /bin/bash {USER}
USER {USER}
WORKDIR /home/{USER}
""".encode()


@dataclass(frozen=True)
class Request:
    """One request over https."""

    method: str
    path: str
    status: int
    headers: tuple[tuple[str, str], ...]

    def header(self, name: str) -> tuple[str, ...]:
        """Return all values of a header, in order."""
        return tuple(value for given, value in self.headers if given.lower() == name.lower())


def ensure(tls: Path) -> None:
    """Make the container if it is not there; the network is the stand-in API's, the certificate is in `tls`."""
    image = built("claude-bottle-world-git", DOCKERFILE)
    folder = Path(__file__).parent
    programs = {f"tests/world/{name}": (folder / name).read_bytes() for name in PROGRAMS}
    served = {f"tests/world/{name}": content for name, content in certificates.served(tls).items()}
    stream = packed(programs | served, UID)
    label = f"{api.LABEL}={hashlib.sha256(image.encode() + SERVE.encode() + stream).hexdigest()}"
    shown = "{{.State.Running}} " + api.LABEL + '={{index .Config.Labels "' + api.LABEL + '"}}'
    if attempt("docker", "inspect", "--format", shown, CONTAINER).stdout.decode().split() == ["true", label]:
        say("the stand-in for a git host is running")
        return
    remove()
    aliases = (f"--network-alias={host}" for host in HOSTS)
    run("docker", "create", "--name", CONTAINER, "--label", label, "--network", api.NETWORK, *aliases,
        "--pull", "never", "--init", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
        image, "bash", "-c", SERVE, "bash", ",".join(HOSTS), str(PORT), str(SECOND_PORT))  # fmt: skip
    run("docker", "cp", "-", f"{CONTAINER}:/srv", stdin=stream)
    run("docker", "start", CONTAINER)
    _await_listening()
    say("started the stand-in for a git host")


def remove() -> None:
    """Remove the container; absence is success."""
    run("docker", "rm", "--force", "--volumes", CONTAINER)


def host_key(port: int = PORT) -> str:
    """Return the public key of one sshd, as `type base64`."""
    return " ".join(inside(f"cat {port}.pub").split()[:2])


def authority() -> str:
    """Return the public key that has signed both host keys, as `type base64`."""
    return " ".join(inside("cat authority.pub").split()[:2])


def new_key(passphrase: str = "") -> tuple[str, str]:
    """Return the two halves, private and public, of a new key that both sshd take."""
    public, _, private = inside(NEW_KEY, stdin=f"{passphrase}\n").partition("\n")
    let_in(public)
    return private, " ".join(public.split()[:2])


def let_in(public_key: str) -> None:
    """Have both sshd take a key."""
    inside("cat >> authorized_keys", stdin=f"{public_key}\n")


def repository(name: str) -> None:
    """Make a bare repository that has one commit."""
    inside(NEW_REPOSITORY, name)


def commits(name: str) -> list[str]:
    """Return the commits of a repository, the newest first, as `author <address> subject`."""
    return inside('git -C "$1.git" log --format="%an <%ae> %s" main', name).splitlines()


def account() -> str:
    """Return the password of a new account that https takes: `x-access-token`, and that password."""
    password = f"made-up-{secrets.token_hex(16)}"
    inside("cat >> accounts", stdin=f"x-access-token:{password}\n")
    return password


def requests(name: str) -> tuple[Request, ...]:
    """Return the requests over https so far for a repository, whether they were let in or not."""
    lines = [json.loads(line) for line in log().splitlines() if line.startswith("{")]
    return tuple(
        Request(line["method"], line["path"], line["status"], tuple(map(tuple, line["headers"])))
        for line in lines
        if line["path"].startswith(f"/{name}.git/")
    )


def log() -> str:
    """Return what the servers have said so far."""
    done = subprocess.run(("docker", "logs", CONTAINER), capture_output=True, check=True)
    return (done.stdout + done.stderr).decode(errors="replace")


def inside(script: str, *words: str, stdin: str = "") -> str:
    """Run a shell script in the container; return its output."""
    argv = ("docker", "exec", "--interactive", CONTAINER, "bash", "-euc", script, "bash", *words)
    return run(*argv, stdin=stdin.encode())


def _await_listening() -> None:
    """Wait until all three servers say that they listen."""
    follow = ("docker", "logs", "--follow", CONTAINER)
    listening = 0
    with subprocess.Popen(follow, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as logs:
        said = []
        while listening < 3 and logs.stdout and (line := logs.stdout.readline()):
            said.append(line)
            listening += line.startswith(("Server listening on ", "listening"))
        logs.kill()
    if listening < 3:
        raise WorldError(f"the stand-in for a git host does not start: {''.join(said)}")
