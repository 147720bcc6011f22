"""Completion in shells on terminals: a word is begun, TAB and Enter are pressed, a program hands its words over."""

import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from claude_bottle.host.machine import TOKEN_VARIABLE
from tests.support.scene import ROOT, SESSION, TRUSTING, Scene

CLI = ROOT / "cli.py"
SHELLS = {
    "bash": (("--norc", "--noprofile", "-i"), 'eval "$SCRIPT"'),
    "zsh": (("-f", "-i"), 'autoload -Uz compinit; compinit -u -D; eval "$SCRIPT"'),
    "fish": (("--no-config", "-i"), "printf %s $SCRIPT | source"),
}
OTHER = "other-11112222"
LISTED = f"{SESSION}\n{SESSION}\n{OTHER}\n"  # a session has more than one container
ODD = "odd;$(touch${IFS}pwned)`touch${IFS}pwned`'\"&x"  # git takes it for the name of a branch


class Typist:
    """Types into a shell on a terminal; `bottle` and `cli.py` are programs there that hand over their words."""

    def __init__(self, scene: Scene, name: str) -> None:
        options, source = SHELLS[name]
        self.fifo, self.place = scene.folder / "words", scene.folder / "place"
        os.mkfifo(self.fifo)
        self.place.mkdir()
        for program in ("bottle", "cli.py"):
            (scene.docker.parent / program).write_text(f"#!/bin/sh\nprintf '%s\\0' \"$@\" > '{self.fifo}'\n")
            (scene.docker.parent / program).chmod(0o755)
        (scene.folder / ".local/share/fish/generated_completions").mkdir(parents=True)  # else fish makes them
        script = subprocess.run((CLI, "completion", name, "bottle"), check=True, capture_output=True, text=True).stdout
        environ = {key: value for key, value in scene.environ.items() if key not in ("PYTHONPATH", TOKEN_VARIABLE)}
        environ |= {"PATH": f"{scene.docker.parent}:{os.environ['PATH']}", "TERM": "xterm", "SCRIPT": script}
        # Once the fake docker is gone, a real one may come next on PATH.
        environ |= {"DOCKER_HOST": f"unix://{scene.folder}/none"}
        self.log = io.BytesIO()
        self.child: pexpect.spawn[bytes] = pexpect.spawn(
            name, list(options), env=environ, cwd=str(self.place), dimensions=(40, 200)
        )
        self.child.logfile_read = self.log
        self.child.delaybeforesend = None
        self.child.send(f"{source}\r")
        assert self.run("bottle", key="") == [""]

    def run(self, line: str, key: str = "\t") -> list[str]:
        """Type a line, TAB and Enter; return the words that the command got."""
        self.child.send(f"{line}{key}\r")
        words = self.fifo.read_bytes().decode().split("\0")
        return words[:-1]

    def said(self) -> str:
        """Return all that the terminal showed."""
        self.child.send("exit\r")
        self.child.expect(pexpect.EOF)
        return self.log.getvalue().decode(errors="replace")


@pytest.fixture(scope="module", autouse=True)
def _set_up() -> None:
    """The launcher's virtual environment, which a TAB would not wait for."""
    subprocess.run((CLI, "--help"), check=True, capture_output=True)


@pytest.fixture(params=SHELLS)
def typist(request: pytest.FixtureRequest, scene: Scene) -> Iterator[Typist]:
    """A typist at each of the shells; `make test` installs them."""
    typist = Typist(scene, request.param)
    yield typist
    typist.child.close(force=True)


def branches(path: Path, *names: str) -> Path:
    """Make a repository with these branches."""
    for words in (("init", "-q", "-b", "main"), ("commit", "-q", "--allow-empty", "-m", "one")):
        identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        subprocess.run(("git", "-C", path, *identity, *words), check=True)
    for name in names:
        subprocess.run(("git", "-C", path, "branch", name), check=True)
    return path


def test_agents_and_sessions(scene: Scene, typist: Typist) -> None:
    scene.rule("ps", stdout=LISTED)
    for command in ("start", "verify", "check"):
        assert typist.run(f"bottle {command} de") == [command, "demo"]
    for command in ("stop", "logs", "shell", "fetch", "diff", "allow"):
        assert typist.run(f"cli.py {command} de") == [command, SESSION]
    assert typist.run(f"{scene.docker.parent}/cli.py verify de") == ["verify", "demo"]
    assert typist.run(f"bottle stop {SESSION} ") == ["stop", SESSION, OTHER]


@pytest.mark.parametrize(
    ("typed", "docker", "offered"),
    [
        ("why de", 0, ["demo", SESSION]),
        ("why --session de", 0, [SESSION]),
        ("why de", 1, ["demo"]),
        ("why demo de", 0, []),
    ],
)
def test_what_can_be_explained_is_an_agent_or_a_session(
    scene: Scene, typed: str, docker: int, offered: list[str]
) -> None:
    scene.rule("ps", stdout=LISTED, code=docker)
    words = ["cli.py", *typed.split()]
    line, place = "\n".join(words), str(len(words) - 1)
    _, out, _ = scene.run(_CLI_PY_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=place)
    assert out.split() == [f"plain,{name}" for name in offered]


def test_engines_are_those_of_the_setting(scene: Scene) -> None:
    environ = {"_CLI_PY_COMPLETE": "bash_complete", "COMP_WORDS": "cli.py\nstart\ndemo\n--on\n", "COMP_CWORD": "4"}
    _, out, _ = scene.run(CLAUDE_BOTTLE_ENGINES="build-1 build-2", **environ, patches=TRUSTING)
    assert (out.split(), scene.log) == (["plain,build-1", "plain,build-2", "plain,any"], [])


def test_sessions_of_all_engines_are_offered(scene: Scene) -> None:
    scene.rule("ps", context="build-1", stdout=LISTED)
    environ = {"_CLI_PY_COMPLETE": "bash_complete", "COMP_WORDS": "cli.py\nstop\nde", "COMP_CWORD": "2"}
    _, out, _ = scene.run(CLAUDE_BOTTLE_ENGINES="build-1", **environ, patches=TRUSTING)
    assert out == f"plain,{SESSION}\n"


def test_no_docker_client_of_a_completion_has_the_token_or_asks_for_signed_images(scene: Scene) -> None:
    scene.rule("ps", stdout=LISTED)
    typed, trust = "cli.py\nstop\nde", "1"
    _, out, _ = scene.run(
        _CLI_PY_COMPLETE="bash_complete", COMP_WORDS=typed, COMP_CWORD="2", DOCKER_CONTENT_TRUST=trust
    )
    assert out == f"plain,{SESSION}\n"
    [environ] = [event.more["env"] for event in scene.log if event.kind == "start"]
    assert {"DOCKER_CONTENT_TRUST", TOKEN_VARIABLE}.isdisjoint(environ)


def test_refs(scene: Scene, typist: Typist) -> None:
    (scene.folder / "given").mkdir()
    (scene.folder / "own").mkdir()
    given = branches(scene.folder / "given", "feature/login", ODD)
    subprocess.run(("git", "-C", given, "tag", "v1.0"), check=True)
    own = branches(scene.folder / "own", "of-the-agent")
    branches(typist.place, "of-the-place")
    (scene.agents / "worker.yaml").write_text(f"repo: {own}\n")
    before = f"start demo --repo {given}"
    for typed, word in (("fea", "feature/login"), ("v1", "v1.0"), ("odd", ODD)):
        assert typist.run(f"bottle {before} --ref {typed}") == [*before.split(), "--ref", word]
    assert typist.run(f"bottle {before} --ref=fea") == [*before.split(), "--ref=feature/login"]
    assert typist.run("bottle start worker --ref of") == ["start", "worker", "--ref", "of-the-agent"]
    assert typist.run("bottle start demo --ref of") == ["start", "demo", "--ref", "of-the-place"]
    assert [path.name for path in typist.place.iterdir()] == [".git"]


def test_nothing_is_said_of_what_cannot_be_known(scene: Scene, typist: Typist) -> None:
    scene.rule("ps", code=1, stderr="Cannot connect to the Docker daemon")
    (scene.agents / "bad.yaml").write_text("botle: [\n")
    assert typist.run("bottle stop de") == ["stop", "de"]
    assert typist.run("bottle start bad --ref ma") == ["start", "bad", "--ref", "ma"]
    assert typist.run("bottle start --ref ma") == ["start", "--ref", "ma"]
    assert typist.run("bottle start ba") == ["start", "bad"]
    scene.docker.unlink()
    assert typist.run("bottle stop de") == ["stop", "de"]
    said = typist.said()
    assert [word for word in ("Cannot", "bad.yaml", "Traceback", "claude-bottle", "Error") if word in said] == []


def test_the_set_up_of_a_checkout_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "cli.py").write_bytes(CLI.read_bytes())
    (tmp_path / "cli.py").chmod(0o755)
    (tmp_path / "requirements.txt").touch()
    done = subprocess.run(
        (tmp_path / "cli.py",), env=os.environ | {"_CLI_PY_COMPLETE": "bash_complete"}, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cli.py", "requirements.txt"]
