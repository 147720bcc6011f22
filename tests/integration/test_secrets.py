"""Hunt for planted secrets: the token, a variable of the host, and what docker's own configuration says of proxies."""

import json
import secrets
import subprocess
import threading
import time
from collections.abc import Sequence
from hashlib import sha256
from typing import Self

import pytest

from tests.support.sessions import Bench, command_lines, docker
from tests.world import World, api

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


def test_planted_secrets_are_nowhere_but_at_claude(bench: Bench) -> None:
    secret = f"made-up-{secrets.token_hex(16)}"
    planted = (bench.token, secret)
    bench.write({"env": {"RENAMED": "${SECRET}"}})
    question = f"RUN: printenv RENAMED | sha256sum\nHOLD: {bench.name}"
    dry = bench.start("--dry-run", "--print", question, SECRET=secret)
    log = docker("inspect", "--format", "{{.LogPath}}", api.CONTAINER).rpartition("/containers/")[2].strip()
    since = time.time() - 1
    with (
        Watch((*planted, f"HOLD: {bench.name}")) as watch,
        bench.running("--yes", "-v", "--print", question, SECRET=secret) as run,
    ):
        session = bench.held()
        during = on_disk(bench.world, since, (*planted, session))
        told = told_by_docker(bench)
        staged = "".join(path.read_text() for path in bench.stage.rglob("*") if path.is_file())
        bench.world.release(bench.name)
        ended = run.end()
    after = on_disk(bench.world, since, planted)
    assert (ended.code, ended.out.split()[:1]) == (0, [sha256(f"{secret}\n".encode()).hexdigest().encode()]), ended
    assert {request.token for request in bench.world.requests(bench.token) if request.runs} == {bench.token}
    # Each of these looks where something is to be seen: first that it saw that.
    assert watch.seen == {f"HOLD: {bench.name}"}
    assert during[session]
    for found in (during, after):
        assert (found[bench.token], found[secret]) == ({f"root/containers/{log}"}, set())
    for text, known in (
        (told, session),
        (staged, "api.anthropic.com"),
        (ended.err, session),
        (dry.out.decode(), "exec"),
    ):
        assert known in text
        assert [needle for needle in planted if needle in text] == []
    assert [needle for needle in planted if needle in ended.out.decode() + dry.err] == []


@pytest.mark.parametrize("client", ["docker", "/usr/bin/docker"])
def test_proxies_of_dockers_configuration_reach_no_container(bench: Bench, client: str) -> None:
    """With the client of this machine, and with Debian's, the oldest that is to work."""
    needle = f"made-up-{secrets.token_hex(8)}"
    names = ("httpProxy", "httpsProxy", "ftpProxy", "allProxy", "noProxy")
    config = {"proxies": {"default": dict.fromkeys(names, f"http://user:{needle}@198.51.100.200:1")}}
    (bench.folder / "config.json").write_text(json.dumps(config))
    host = docker("context", "inspect", "--format", "{{.Endpoints.docker.Host}}").strip()
    bench.environ |= {"DOCKER_CONFIG": str(bench.folder), "DOCKER_HOST": host}
    if client != "docker":
        bench.environ["PATH"] = bench.program("docker", f'exec {client} "$@"', "old")
    # The one-shot containers are gone too soon to be looked at: a twin of each is.
    twins = bench.folder / "twins"
    path = bench.wrap(
        f'"run "*nft*) id=$(docker create "${{@:4}}") && docker inspect $id >> {twins}; docker rm $id > /dev/null;;'
    )
    with bench.running("--yes", "--print", f"RUN: env\nHOLD: {bench.name}", PATH=path) as run:
        bench.held()
        told = told_by_docker(bench)
        bench.world.release(bench.name)
        ended = run.end()
    assert ended.code == 0, ended
    assert twins.read_text().count('"HTTPS_PROXY="') == 2
    assert told.count('"HTTPS_PROXY=') == 2
    assert "HTTPS_PROXY=http://pipelock:8888\n" in ended.out.decode()
    assert needle not in twins.read_text() + told + ended.out.decode() + ended.err
    # Where nothing is said against it, they are there: this client does read the configuration.
    plain = ("run", "--rm", "--network", "none", bench.world.base_image, "env")
    assert needle in bench.run(("docker", *plain), {}).out.decode()
