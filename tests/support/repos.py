"""Real git repositories for tests, and a bottle without an engine: a `docker` whose `exec` runs things in a folder."""

import os
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from claude_bottle.host.owner import Owner
from claude_bottle.process import stream
from claude_bottle.process.command import start
from claude_bottle.repository import clone, git, source
from claude_bottle.repository import fetch as handback
from claude_bottle.repository.clone import Repository, Wanted
from claude_bottle.repository.fetch import Bottle

OWNER = Owner("owner", "boot", 1, "2")
SESSION = "demo-0a1b2c3d"
BRANCH = f"bottle/{SESSION}"
# Runs what `docker exec --interactive --user USER NAME` is given, with the bottle's folder where /work stands, and its
# home; programs are found where the test has them.
DOCKER = """#!/bin/bash
[ "$1" = version ] && echo 28.2.2 20.10.24 && exit
shift 5
words=()
for word; do
  case $word in
    /work) word=$BOTTLE ;;
    HOME=/home/agent) words+=("TMPDIR=$BOTTLE_HOME" "GIT_CONFIG_NOSYSTEM=1"); word=HOME=$BOTTLE_HOME ;;
    PATH=*) word=PATH=$PATH ;;
  esac
  words+=("$word")
done
cd "$BOTTLE" && exec "${words[@]}"
"""
CONFIG = """\
[user]
name = A User
email = user@example.com
[init]
defaultBranch = main
[protocol "file"]
allow = always
"""


@dataclass(frozen=True)
class Repo:
    """One repository."""

    path: Path
    env: Mapping[str, str]

    def git(self, *words: str, stdin: bytes = b"") -> str:
        """Run git; return what it prints, less the last newline."""
        argv = ("git", "-C", str(self.path), *words)
        done = subprocess.run(argv, env=self.env, input=stdin, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode(errors="surrogateescape").removesuffix("\n")

    def commit(self, message: str = "more", **files: str) -> str:
        """Commit files; return the commit's name."""
        for name, text in files.items():
            (self.path / name).write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def snapshot(self) -> dict[str, tuple[int, bytes]]:
        """Return every file of the work tree and of .git: its mode and its content."""
        found = {}
        for path in sorted(self.path.rglob("*")):
            mode = path.lstat().st_mode
            data = os.fsencode(path.readlink()) if stat.S_ISLNK(mode) else b"" if path.is_dir() else path.read_bytes()
            found[str(path.relative_to(self.path))] = (mode, data)
        return found


def users(path: Path, env: Mapping[str, str], message: str = "one", **files: str) -> Repo:
    """Make a user's repository at `path`, with one commit of these files; without any, of a file named `file`."""
    repo = Repo(path, env)
    path.mkdir()
    repo.git("init", "--quiet", "--initial-branch=main")
    repo.git("config", "user.name", "A User")
    repo.git("config", "user.email", "user@example.com")
    repo.commit(message, **(files or {"file": "1"}))
    return repo


class Ground:
    """One test's folder: the user's repository and home, and what stands for their bottle."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("bin", "home", "work", "genie", "tmp", "user"):
            (folder / name).mkdir()
        docker = folder / "bin" / "docker"
        docker.write_text(DOCKER)
        docker.chmod(0o755)
        (folder / "home" / ".gitconfig").write_text(CONFIG)
        self.env = {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "BOTTLE": str(folder / "work"),
            "BOTTLE_HOME": str(folder / "genie"),
        }
        self.user = Repo(folder / "user", self.env)
        self.genie = Repo(folder / "work", {**self.env, "HOME": str(folder / "genie")})
        self.user.git("init", "--quiet")

    def survey(self, path: Path | None = None, ref: str = "HEAD", *, with_changes: bool = False) -> Repository:
        return source.survey(Wanted(path or self.user.path, ref, with_changes), self.env, OWNER)

    def uncork(self, taken: Repository | None = None) -> Bottle:
        """Take a repository, the user's if none is given, into the bottle."""
        taken = taken or self.survey()
        (self.folder / "genie" / ".gitconfig").write_bytes(taken.author.config())
        client = start(clone.command("x", taken, BRANCH), self.env)
        fed = git.environment(self.env)
        result = stream.piped(client, clone.head(taken, BRANCH), clone.pack(taken), fed, what="", seconds=60)
        assert result.ok, result
        return Bottle(SESSION, OWNER, "x", taken.work, self.env)

    def fetch(self, bottle: Bottle) -> str:
        told = handback.fetch(bottle)
        assert told.replace("\n", "").isprintable()
        return told
