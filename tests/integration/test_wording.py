"""The table of wordings, on the docker, git and ssh-add that are installed: each thing they say is provoked anew.

What another version says instead shows here first, before a start takes it for something else.
"""

import os
import random
import re
import secrets
import shlex
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from claude_bottle.host.machine import Machine
from claude_bottle.process import wording
from claude_bottle.process.liveness import this_process
from claude_bottle.process.wording import TABLE, Wording, says
from claude_bottle.repository.git import environment
from claude_bottle.session import planning
from tests.world import World

NOTHING: Mapping[str, str] = {}
ROUNDS = 50  # in each of which a container is removed four times at once
SSH_ADD = 'eval "$(ssh-agent)" > /dev/null; ssh-add -q -; code=$?; kill "$SSH_AGENT_PID"; exit $code'
ED25519 = """\
-----BEGIN {} KEY-----
MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f
-----END {} KEY-----
""".replace("{}", "PRIVATE")  # in OpenSSL's format, made up
COMMIT = shlex.split("-c user.name=Ada -c user.email=ada@example.org commit --quiet --allow-empty --message=x")


@dataclass(frozen=True)
class Ground:
    """A place for one case: a folder, an image, and a name that all it makes on the engine begins with."""

    folder: Path
    image: str
    name: str

    def run(
        self, *argv: str, stdin: str = "", user: int | None = None, more: Mapping[str, str] = NOTHING
    ) -> tuple[int, str]:
        """Run a program, with `more` in its environment; return its exit code and what it says on stderr."""
        env = {**environment(os.environ), **more}
        done = subprocess.run(argv, input=stdin.encode(), env=env, user=user, capture_output=True, check=False)
        return done.returncode, done.stderr.decode()

    def refused(self, *argv: str, stdin: str = "", user: int | None = None, more: Mapping[str, str] = NOTHING) -> str:
        """Run a program that fails; return what it says on stderr."""
        code, said = self.run(*argv, stdin=stdin, user=user, more=more)
        assert code, (argv, said)
        return said

    def made(self, *argv: str) -> None:
        """Run a program that succeeds."""
        code, said = self.run(*argv)
        assert code == 0, (argv, said)

    def network(self, suffix: str, *options: str) -> str:
        """Make a network; return its range."""
        code, said, subnet = self._network(suffix, *options)
        assert code == 0, said
        return subnet

    def refused_network(self, suffix: str, *options: str) -> str:
        """Try to make a network on a free range; return why there is none."""
        code, said, _ = self._network(suffix, *options)
        assert code, said
        return said

    def _network(self, suffix: str, *options: str) -> tuple[int, str, str]:
        """Try ranges from which no session takes its own until one is free."""
        while True:
            subnet = f"10.212.{random.randrange(256)}.{random.randrange(32) * 8}/29"
            argv = ("docker", "network", "create", "--internal", "--subnet", subnet, *options, f"{self.name}-{suffix}")
            code, said = self.run(*argv)
            if "Pool overlaps" not in said:
                return code, said, subnet

    def created(self) -> str:
        """Make a container that does not run; return its name."""
        self.made("docker", "create", "--name", self.name, "--network", "none", self.image, "true")
        return self.name

    def repositories(self) -> tuple[str, str]:
        """Make two repositories, the second a clone of the first with a commit of its own."""
        first, second = str(self.folder / "first"), str(self.folder / "second")
        self.made("git", "init", "--quiet", "--initial-branch=main", first)
        for _ in range(3):
            self.made("git", "-C", first, *COMMIT)
        self.made("git", "clone", "--quiet", first, second)
        return first, second


@pytest.fixture
def ground(world: World, tmp_path: Path) -> Iterator[Ground]:
    """A place of which nothing is left on the engine."""
    here = Machine(world.environ(Path()), Path.home(), interactive=False, owner=this_process())
    name = f"claude-bottle-words-{secrets.token_hex(4)}"
    yield Ground(tmp_path, planning.images(here)[0].tag, name)
    subprocess.run(("docker", "rm", "--force", name), capture_output=True, check=False)
    for suffix in ("one", "two"):
        subprocess.run(("docker", "network", "rm", f"{name}-{suffix}"), capture_output=True, check=False)


def not_permitted(ground: Ground) -> str:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listening:
        path = Path(folder, "docker.sock")
        listening.bind(str(path))
        listening.listen()
        path.chmod(0)
        Path(folder).chmod(0o755)
        other = 65534 if os.getuid() == 0 else None  # root may do anything
        return ground.refused("docker", "ps", user=other, more={"DOCKER_HOST": f"unix://{path}", "HOME": folder})


def through_ssh(ground: Ground) -> str:
    """An ssh of the test's own that reaches nobody."""
    ssh = ground.folder / "ssh"
    ssh.write_text("#!/bin/sh\nexit 255\n")
    ssh.chmod(0o755)
    path = f"{ground.folder}:{os.environ['PATH']}"
    return ground.refused("docker", "ps", more={"DOCKER_HOST": "ssh://nobody@engine.test", "PATH": path})


def removed_by_another(ground: Ground) -> str:
    argv = ("docker", "rm", "--force", ground.name)
    for _ in range(ROUNDS):
        ground.made(
            "docker", "run", "--detach", "--name", ground.name, "--network", "none", ground.image, "sleep", "600"
        )
        removers = [subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(4)]
        for said in [remover.communicate()[1].decode() for remover in removers]:
            if "in progress" in said:
                return said
    raise AssertionError("nobody was ever told that somebody else removes it")


def same_subnet(ground: Ground) -> str:
    subnet = ground.network("one")
    return ground.refused("docker", "network", "create", "--internal", "--subnet", subnet, f"{ground.name}-two")


def same_bridge(ground: Ground) -> str:
    bridge = ("--opt", f"com.docker.network.bridge.name=br-{ground.name[-8:]}")
    ground.network("one", *bridge)
    return ground.refused_network("two", *bridge)


def same_name(ground: Ground) -> str:
    ground.network("one")
    return ground.refused_network("one")


def image_in_use(ground: Ground) -> str:
    """Remove an image of this case's own that a container is made of."""
    image = f"{ground.name}:used"
    text = f"FROM {ground.image}\nLABEL {ground.name}=used\n"  # a second tag of an image could always be removed
    assert ground.run("docker", "build", "--force-rm", "--tag", image, "-", stdin=text)[0] == 0
    ground.made("docker", "create", "--name", ground.name, "--network", "none", image, "true")
    try:
        return ground.refused("docker", "image", "rm", "--no-prune", image)
    finally:
        ground.made("docker", "rm", "--force", ground.name)
        ground.made("docker", "image", "rm", "--no-prune", image)


def joined(ground: Ground) -> str:
    return ground.refused("docker", "run", "--rm", "--network", f"container:{ground.created()}", ground.image, "true")


def without_ipv6(ground: Ground) -> str:
    """As on a kernel without IPv6 there is no such file, here for want of such an interface."""
    setting = ("--sysctl", "net.ipv6.conf.none.disable_ipv6=1")
    return ground.refused("docker", "run", "--rm", "--network", "none", *setting, ground.image, "true")


def added(ground: Ground) -> str:
    """By the image's ssh-add, as in a key-holder."""
    run = ("docker", "run", "--rm", "--interactive", "--network", "none", "--entrypoint", "bash", ground.image)
    return ground.refused(*run, "-c", SSH_ADD, stdin=ED25519)


def bundled(ground: Ground) -> str:
    first, _ = ground.repositories()
    return ground.refused("git", "-C", first, "bundle", "create", "--quiet", "-", "main", "^main")


def locked(ground: Ground) -> str:
    first, second = ground.repositories()
    Path(second, ".git/refs/heads/new.lock").touch()
    return ground.refused("git", "-C", second, "fetch", "--quiet", first, "main:refs/heads/new")


def locked_file(ground: Ground) -> str:
    first, second = ground.repositories()
    Path(second, ".git/shallow.lock").touch()
    return ground.refused(
        "git", "-C", second, "fetch", "--quiet", "--depth=1", f"file://{first}", "main:refs/heads/new"
    )


def checked_out(ground: Ground) -> str:
    first, second = ground.repositories()
    return ground.refused("git", "-C", second, "fetch", "--quiet", first, "main:refs/heads/main")


def anothers(ground: Ground) -> str:
    first, _ = ground.repositories()
    return ground.refused("git", "-C", first, "status", more={"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"})


def docker(*words: str, **more: str) -> Callable[[Ground], str]:
    """Return what provokes a sentence by one command of docker's."""
    return lambda ground: ground.refused("docker", *words, more=more)


CASES: dict[str, tuple[Callable[[Ground], str], set[Wording]]] = {
    "rm": (docker("rm", "claude-bottle-none"), {wording.ABSENT, wording.NO_TARGET, wording.ANSWER}),
    "exec": (docker("exec", "claude-bottle-none", "true"), {wording.ABSENT, wording.NO_TARGET, wording.ANSWER}),
    "inspect": (docker("inspect", "claude-bottle-none"), {wording.ABSENT}),
    "image inspect": (docker("image", "inspect", "claude-bottle-none"), {wording.ABSENT, wording.ANSWER}),
    "network rm": (docker("network", "rm", "claude-bottle-none"), {wording.ABSENT, wording.ANSWER}),
    "volume rm": (docker("volume", "rm", "claude-bottle-none"), {wording.ABSENT, wording.ANSWER}),
    "no socket": (docker("ps", DOCKER_HOST="unix:///nonexistent"), set()),
    "no listener": (docker("ps", DOCKER_HOST="tcp://127.0.0.1:1"), set()),
    "no permission": (not_permitted, set()),
    "no host": (through_ssh, set()),
    "removal under way": (removed_by_another, {wording.REMOVAL_UNDER_WAY, wording.ANSWER}),
    "same subnet": (same_subnet, {wording.SUBNET_TAKEN, wording.MADE_MEANWHILE, wording.ANSWER}),
    "same bridge": (same_bridge, {wording.SUBNET_TAKEN, wording.MADE_MEANWHILE, wording.ANSWER}),
    "same name": (same_name, {wording.MADE_MEANWHILE, wording.ANSWER}),
    "image in use": (image_in_use, {wording.IMAGE_IN_USE, wording.ANSWER}),
    "no IPv6": (without_ipv6, {wording.NO_IPV6, wording.ANSWER}),
    "nobody to join": (joined, {wording.NO_TARGET, wording.ANSWER}),
    "not running": (
        lambda ground: ground.refused("docker", "exec", ground.created(), "true"),
        {wording.CONTAINER_ENDED, wording.ANSWER},
    ),
    "key's format": (added, {wording.KEY_FORMAT}),
    "empty bundle": (bundled, {wording.EMPTY_BUNDLE}),
    "locked branch": (locked, {wording.LOCKED}),
    "locked file": (locked_file, {wording.LOCKED}),
    "checked out": (checked_out, {wording.CHECKED_OUT}),
    "another user's": (anothers, {wording.ANOTHERS}),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_said_is_understood(ground: Ground, case: str) -> None:
    provoke, meant = CASES[case]
    said = provoke(ground)
    client = subprocess.run(("docker", "version", "--format", "{{.Client.Version}}"), capture_output=True, check=True)
    if wording.ABSENT in meant and client.stdout.startswith(b"20.10"):
        meant = meant - {wording.ANSWER}  # that client says it by itself, so the product asks whether an engine answers
    assert {each for each in TABLE if says(each, said)} == meant, said


def test_all_that_this_engine_can_say_is_provoked() -> None:
    provoked = set.union(*(meant for _, meant in CASES.values()))
    assert {each.name for each in TABLE if not each.recorded} == {each.name for each in provoked}


def test_what_is_quoted_to_the_user_is_the_sentence_alone(ground: Ground) -> None:
    first = wording.gist("docker", joined(ground))
    # "network namespace" from 28 on
    assert re.match(r"cannot join network( namespace)? of a non running container: ", first)
    assert "help" not in first
    assert wording.gist("git", bundled(ground)) == "Refusing to create empty bundle."
