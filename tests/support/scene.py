"""A scene for whole sessions without an engine: manifests, a fake docker on PATH, and the launcher as a real child."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import plans
from tests.support.labels import KEY

Argv = tuple[str, ...]
ROOT = Path(__file__).parents[2]
FAKE = Path(__file__).parent / "fake_docker.py"
PATCHED = Path(__file__).parent / "programs" / "patched.py"
SESSION = "demo-0a1b2c3d"
NAME = f"claude-bottle-{SESSION}"
SECRET = "planted-token"

# A part of each step's command that no other has.
STEPS = {
    "network": "network create --driver bridge --internal",
    "sidecar": "create --name",
    "sidecar-config": "cp -",
    "sidecar-connect": "network connect",
    "sidecar-start": "start claude",
    "bottle": f"--name {NAME} ",
    "lock": "-lock --pull",
    "gate": "-gate --pull",
    "home": "tar --extract --file -",
    "selftest": "-probe --pull",
    "inspect": f"inspect {NAME}",
    "processes": f"top {NAME}",
    "claude": "claude --dangerously",
}
UNDO: dict[str, Argv] = {
    "network": ("docker", "network", "rm", NAME),
    "sidecar": ("docker", "rm", "--force", "--volumes", f"{NAME}-sidecar"),
    "bottle": ("docker", "rm", "--force", "--volumes", NAME),
    "lock": ("docker", "rm", "--force", "--volumes", f"{NAME}-lock"),
    "gate": ("docker", "rm", "--force", "--volumes", f"{NAME}-gate"),
    "selftest": ("docker", "rm", "--force", "--volumes", f"{NAME}-probe"),
}
USUAL = [UNDO["sidecar"], UNDO["network"]]  # the end of its stdin ends what holds, and takes all of it along

MONITOR = (["logs", "--follow"], ["inspect", "--format"])  # runs beside claude
Patches = dict[str, object]
TRUSTING: Patches = {
    "selftest.receipt.RULES": [],
    "selftest.receipt.CREDENTIAL_RULES": [],
}  # a fake docker builds nothing that could be isolated


@dataclass(frozen=True)
class Event:
    """A line of the fake docker's log."""

    kind: str
    argv: Argv
    more: dict[str, Any]

    def starts(self, what: str) -> bool:
        return self.kind == "start" and what in " ".join(self.argv)

    def ends(self, what: str) -> bool:
        return self.kind == "end" and what in " ".join(self.argv)

    def succeeds(self, what: str) -> bool:
        return self.ends(what) and self.more["code"] == 0


class Scene:
    """One test's folder: what the fake docker shall do, the launcher's start, what was asked of docker."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tmp = folder, folder / "tmp"
        self.agents = plans.manifests(folder / "agents")
        self.docker = folder / "bin" / "docker"
        for each in (self.tmp, self.docker.parent):
            each.mkdir()
        self.bring_back()
        self.environ = {
            "PATH": str(self.docker.parent), "HOME": str(folder), "TMPDIR": str(self.tmp), "LANG": "C.UTF-8",
            "PYTHONPATH": str(ROOT), "CLAUDE_BOTTLE_AGENTS": str(self.agents), "CLAUDE_BOTTLE_OAUTH_TOKEN": SECRET,
        }  # fmt: skip
        self.key = folder / ".local" / "state" / "claude-bottle" / "key"
        self.key.parent.mkdir(parents=True)
        self.key.write_bytes(KEY)
        self.key.chmod(0o600)
        self.children: list[subprocess.Popen[str]] = []
        self.pids = {os.getpid()}  # of those whose calls of docker count
        self._rules: list[dict[str, Any]] = []
        self._write()

    def rule(self, match: str, **what: Any) -> None:
        """Say what the fake docker does for a command; what was said first counts."""
        for name in (what[key] for key in ("fifo", "stays") if key in what):
            os.mkfifo(self.folder / name)
        self._rules.append({"match": match, **what})
        self._write()

    def without_engine(self, said: str) -> None:
        """Have every docker command that no rule is for yet fail as if no engine answered."""
        self.rule("", code=1, stderr=f"{said}\n")

    def bring_back(self) -> None:
        """Put the fake docker on PATH, whole at once; again, where it has vanished."""
        back = self.docker.with_name("back")
        back.write_text(f"#!{sys.executable} -IS\n{FAKE.read_text()}")
        back.chmod(0o755)
        back.rename(self.docker)

    def _write(self) -> None:
        new = self.folder / "rules.new"
        new.write_text(json.dumps(self._rules))
        new.rename(self.folder / "rules.json")  # whole at once, for a fake docker that reads it meanwhile

    @contextlib.contextmanager
    def held(self, fifo: str) -> Iterator[None]:
        """Wait until a command is at its FIFO and hold it there for as long as the block takes."""
        with (self.folder / fifo).open("w"):
            yield

    def launch(self, *words: str, patches: Patches = TRUSTING, **environ: str) -> "subprocess.Popen[str]":
        """Start the launcher, its stdin empty."""
        child = subprocess.Popen(
            [sys.executable, str(PATCHED), json.dumps(patches), *words],
            env=self.environ | environ, cwd=self.folder, start_new_session=True, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.children.append(child)
        self.pids.add(child.pid)
        return child

    def run(self, *words: str, patches: Patches = TRUSTING, **environ: str) -> tuple[int, str, str]:
        """Run the launcher to its end; return its exit code, stdout and stderr."""
        return self.end(self.launch(*words, patches=patches, **environ))

    def end(self, child: "subprocess.Popen[str]") -> tuple[int, str, str]:
        """Wait for the launcher's end; whatever ended it, there is no traceback and no stage dir left."""
        with child:
            out, err = child.communicate()
        assert "Traceback" not in err, err
        assert list(self.tmp.iterdir()) == []
        return child.returncode, out, err

    @property
    def calls(self) -> list[Event]:
        """What was asked of docker so far, by whomever."""
        path = self.folder / "log"
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]  # a reader may come in the middle of a write
        lines = map(json.loads, whole.splitlines())
        return [Event(line.pop("event"), tuple(line.pop("argv")), line) for line in lines]

    @property
    def log(self) -> list[Event]:
        """What the launchers' steps and questions, not their watchdogs and monitors, asked of docker so far."""
        calls = self.calls
        return [one for one in calls if one.more["parent"] in self.pids and list(one.argv[1:3]) not in MONITOR]

    def at(self, kind: str, what: str) -> int:
        """Return the place in the log of the one start or end of a command."""
        places = [place for place, event in enumerate(self.log) if event.kind == kind and what in " ".join(event.argv)]
        assert len(places) == 1, (kind, what, places)
        return places[0]

    @property
    def undone(self) -> list[Argv]:
        """The commands that remove something, in order."""
        return [event.argv for event in self.log if event.kind == "start" and "rm" in event.argv[1:3]]
