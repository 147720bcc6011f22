"""Builds that go on while the preflight is read: what is seen of them, and that nothing is left after a no."""

import contextlib
import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from claude_bottle.bottle import image as images
from claude_bottle.bottle.image import Image
from claude_bottle.cleanup.stack import Teardown
from claude_bottle.cleanup.watchdog import Watchdog
from claude_bottle.errors import RefusedError
from claude_bottle.process.liveness import this_process
from claude_bottle.session.ahead import building
from claude_bottle.session.building import Shown
from claude_bottle.session.steps import Kind, Step
from tests.support.sessions import GUARD, Bench, docker
from tests.world import World

MARK = "test.first-build"
# Two stages, of which the first one's image has no name in the end.
DOCKERFILE = """
ARG BASE_IMAGE
FROM $BASE_IMAGE AS first
RUN echo one > /one
FROM $BASE_IMAGE
COPY --from=first /one /one
"""


class Marked:
    """A base image that no other test builds on; what is built on it inherits its label."""

    def __init__(self, world: World) -> None:
        self.mark = secrets.token_hex(6)
        self.tag = f"claude-bottle-test:{self.mark}"
        text = f"FROM {world.base_image}\nLABEL {MARK}={self.mark}\nUSER root\n"
        docker("build", "--force-rm", "--tag", self.tag, "-", stdin=text.encode())
        self._own = self._images()

    def containers(self) -> list[str]:
        return docker("ps", "--all", "--quiet", "--filter", f"label={MARK}={self.mark}").split()

    def made(self) -> list[str]:
        """Return the images that were built on it."""
        return [one for one in self._images() if one not in self._own]

    def remove(self) -> None:
        for one in self.containers():
            subprocess.run(("docker", "rm", "--force", one), check=False)
        for one in [*self.made(), self.tag]:
            subprocess.run(("docker", "image", "rm", "--force", one), capture_output=True, check=False)

    def _images(self) -> list[str]:
        listed = docker("image", "ls", "--all", "--quiet", "--no-trunc", "--filter", f"label={MARK}={self.mark}")
        return list(dict.fromkeys(listed.split()))


@pytest.fixture
def marked(world: World) -> Iterator[Marked]:
    """Such an image, and nothing of it afterwards."""
    made = Marked(world)
    yield made
    made.remove()


def until(what: Callable[[], object]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + GUARD
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def early(tag: str) -> str:
    """Return the tag of an image that nobody has agreed to yet, empty if there is none."""
    return docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference={tag}-ahead-*").strip()


def sleeping(seconds: int) -> bool:
    """Return whether a `sleep` of so many seconds runs on this machine, in a container or not."""
    return any(Path(f"/proc/{pid}/cmdline").exists() and cmdline(pid) == f"sleep\0{seconds}\0" for pid in pids())


def pids() -> list[str]:
    return [path.name for path in Path("/proc").iterdir() if path.name.isdigit()]


def cmdline(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def step(marked: Marked, folder: Path, text: str) -> tuple[Step, str]:
    """Return the step that builds an image of a Dockerfile on a marked one."""
    folder.mkdir()
    (folder / "Dockerfile").write_text(text)
    built = images.for_bottle(folder / "Dockerfile", Image(marked.tag, (), b""))
    return Step("image", built.argv, Kind.PROGRESS, stdin=built.context), built.tag


def built_by(builder: str) -> dict[str, str]:
    """Return the environment of clients that have both builders."""
    return {**os.environ, "DOCKER_BUILDKIT": builder, "PATH": f"/usr/bin:{os.environ['PATH']}"}


def refused(steps: list[tuple[Step, str]], builder: str, then: Callable[[], object]) -> None:
    """Build until something is so, and answer no."""
    env = built_by(builder)
    watchdog = Watchdog.start(env, this_process())
    undo = Teardown()
    try:
        with contextlib.suppress(RefusedError), undo, building(steps, env, undo, watchdog, Shown.LINE):
            until(then)
            raise RefusedError("no")
    finally:
        watchdog.close(clean=undo.clean)
    assert undo.clean


BUILDERS = pytest.mark.parametrize("builder", ["0", "1"], ids=["classic", "buildkit"])


@BUILDERS
def test_a_build_under_way_is_ended_and_leaves_nothing(marked: Marked, tmp_path: Path, builder: str) -> None:
    seconds = 100_000 + secrets.randbelow(1_000_000)
    whole = step(marked, tmp_path / "whole", DOCKERFILE)
    half = step(marked, tmp_path / "half", f"{DOCKERFILE}RUN exec sleep {seconds}\n")
    refused([whole, half], builder, lambda: sleeping(seconds))
    until(lambda: not sleeping(seconds))
    assert (marked.containers(), marked.made()) == ([], [])


@BUILDERS
def test_a_build_that_has_ended_meanwhile_leaves_nothing(marked: Marked, tmp_path: Path, builder: str) -> None:
    whole = step(marked, tmp_path / "whole", DOCKERFILE)
    last = step(marked, tmp_path / "last", f"{DOCKERFILE}LABEL x=y\n")
    refused([whole, last], builder, lambda: early(last[1]))
    assert (marked.containers(), marked.made()) == ([], [])


@BUILDERS
def test_what_another_build_makes_meanwhile_stays(marked: Marked, tmp_path: Path, builder: str) -> None:
    ours = step(marked, tmp_path / "ours", DOCKERFILE)

    def another() -> bool:
        if not early(ours[1]):
            return False
        subprocess.run(ours[0].argv, env=built_by(builder), capture_output=True, check=True)
        return True

    refused([ours], builder, another)
    assert early(ours[1]) == ""
    assert docker("image", "ls", "--quiet", ours[1])
    docker("run", "--rm", "--network", "none", ours[1], "cat", "/one")


@BUILDERS
def test_after_a_yes_images_have_their_tags_alone(marked: Marked, tmp_path: Path, builder: str) -> None:
    first, tag = step(marked, tmp_path / "first", DOCKERFILE)
    above = images.for_bottle(tmp_path / "first" / "Dockerfile", Image(tag, (), b""))
    both = [(first, tag), (Step("above", above.argv, Kind.PROGRESS, stdin=above.context), above.tag)]
    undo, env = Teardown(), built_by(builder)
    watchdog = Watchdog.start(env, this_process())
    try:
        with undo, building(both, env, undo, watchdog, Shown.LINE):
            pass
    finally:
        watchdog.close(clean=undo.clean)
    for each in (tag, above.tag):
        assert early(each) == ""
        assert docker("image", "ls", "--quiet", each)


def test_what_was_there_before_or_is_in_use_stays(marked: Marked, tmp_path: Path) -> None:
    before, tag = step(marked, tmp_path / "before", DOCKERFILE)
    subprocess.run(before.argv, env=os.environ | {"DOCKER_BUILDKIT": "0"}, capture_output=True, check=True)
    there = marked.made()
    used = step(marked, tmp_path / "used", f"{DOCKERFILE}RUN echo used\n")
    name = f"claude-bottle-test-{marked.mark}"

    def use() -> bool:
        if not (found := early(used[1])):
            return False
        docker("create", "--name", name, found, "true")
        return True

    refused([used], "0", use)
    assert docker("image", "ls", "--quiet", tag)
    assert early(used[1])
    assert set(there) < set(marked.made())


def own(bench: Bench, marked: Marked) -> None:
    """Have the test's sessions build the agent's image on the marked one."""
    bench.environ["CLAUDE_BOTTLE_BASE_IMAGE"] = marked.tag
    bench.environ["DOCKER_BUILDKIT"] = "0"


ENDS = {"n": (b"n\r", 65), "ctrl-c": (b"\x03", 130), "ctrl-d": (b"\x04", 65), "term": (None, 143)}


@pytest.mark.parametrize("end", ENDS)
def test_the_agents_image_is_built_meanwhile_and_not_after_a_no(bench: Bench, marked: Marked, end: str) -> None:
    own(bench, marked)
    typed, code = ENDS[end]
    with bench.terminal(screen=False) as terminal:
        assert b"(will be built)" in terminal.until_bytes(b"Start this session? [y/N] ")
        until(lambda: marked.containers() and marked.made())
        assert bytes(terminal.raw) == b""  # nothing is put between the question and its answer
        if typed:
            terminal.type(typed)
        else:
            os.kill(terminal.launcher(), signal.SIGTERM)
        assert terminal.code() == code
    assert (marked.containers(), marked.made()) == ([], [])


def test_a_killed_launcher_leaves_nothing_of_it(bench: Bench, marked: Marked) -> None:
    own(bench, marked)
    with bench.terminal(screen=False) as terminal:
        terminal.until_bytes(b"Start this session? [y/N] ")
        until(lambda: marked.containers() and marked.made())
        os.kill(terminal.launcher(), signal.SIGKILL)
        assert terminal.code() == 128 + signal.SIGKILL
    until(lambda: (marked.containers(), marked.made()) == ([], []))


def test_a_script_that_is_refused_has_had_nothing_built(bench: Bench, marked: Marked) -> None:
    own(bench, marked)
    assert bench.start("--yes-if-unchanged", "--print", "SAY: no").code == 65
    assert (marked.containers(), marked.made()) == ([], [])


def test_after_the_yes_its_progress_is_one_line(bench: Bench, marked: Marked) -> None:
    own(bench, marked)
    with bench.terminal(screen=False) as terminal:
        terminal.until_bytes(b"Start this session? [y/N] ")
        until(marked.made)
        terminal.type(b"y\r")
        terminal.until_bytes(b"\rclaude-bottle: image: ")
        line = terminal.until_bytes(b"\x1b[K")
        assert re.match(rb"\d+ s, step \d+/\d+, (RUN|COPY) ", line), line
        assert len(b"claude-bottle: image: " + line) < 80
        terminal.type(b"\x03")
        assert terminal.code() == 130
    until(lambda: marked.containers() == [])  # by the engine
    assert marked.made() != []  # as of any build: the next one goes on from there


@pytest.mark.parametrize("verbose", [False, True], ids=["line", "verbose"])
def test_a_failure_is_shown_whole_after_the_answer(bench: Bench, marked: Marked, verbose: bool) -> None:
    own(bench, marked)
    bench.environ["PATH"] = bench.wrap('"build "*) echo Step 1/1 : RUN x; printf "one\\033[2J\\n"; exit 3 ;;')
    with bench.terminal(*(("-v",) if verbose else ()), screen=False) as terminal:
        terminal.until_bytes(b"Start this session? [y/N] ")
        terminal.type(b"y\r")
        said = terminal.until_bytes(b"claude-bottle: image: docker build failed, see above\r\n")
        assert b"Step 1/1 : RUN x\r\none\\x1b[2J\r\n" in said
        assert terminal.code() == 70
