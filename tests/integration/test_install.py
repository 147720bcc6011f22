"""The wheel, in a virtual environment that has nothing else: the whole product, with no checkout beside it."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.sessions import CLI, Bench, Running
from tests.world import REPOSITORY

# What each session has of its own, and each place; the last is how its user starts the program.
OWN = re.compile(
    r"demo-[0-9a-f]{8}|10\.213\.\d+\.\d+|(?<=--bytes )\d+|(?<= bash )\d+|(?<=owner=)\S+|(?<=manifest=)\S+(?=/agents/)"
    r"|(?<=run `)\S+(?= allow )"
)
WITH_DATA = ("Dockerfile", "agents", "pipelock", "presets")
pytestmark = pytest.mark.xdist_group("install")  # on one worker, for the sake of `program`


def files(path: Path) -> set[str]:
    """Return the files at or under a path of the repository, without Python's caches."""
    found = (path, *path.rglob("*")) if path.is_dir() else (path,)
    return {str(one.relative_to(REPOSITORY)) for one in found if one.is_file() and "__pycache__" not in one.parts}


def pip(python: Path | str, *words: str | Path) -> None:
    """Run pip of an environment; the test fails with what pip says."""
    done = subprocess.run((python, "-m", "pip", *words), check=False, capture_output=True, text=True, cwd=REPOSITORY)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-12:])
        pytest.fail(f"pip {words[0]} failed; does a package registry answer?\n{said}", pytrace=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the pinned backend of the development environment: nothing is downloaded."""
    folder = tmp_path_factory.mktemp("wheel")
    words = ("--no-deps", "--no-index", "--no-build-isolation", "--check-build-dependencies", "--wheel-dir", folder)
    pip(sys.executable, "wheel", *words, REPOSITORY)
    [built] = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed program; pip finds everything that the wheel depends on in the pinned requirements."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run((sys.executable, "-m", "venv", folder), check=True)
    python = folder / "bin" / "python"
    pip(python, "install", "--require-hashes", "--no-deps", "--requirement", REPOSITORY / "requirements.txt")
    pip(python, "install", "--no-index", wheel)
    return folder / "bin" / "claude-bottle"


@pytest.fixture
def config(bench: Bench) -> Path:
    """A user's configuration folder that has the test's manifests."""
    folder = bench.folder / "config"
    shutil.copytree(bench.agents, folder / "claude-bottle" / "agents")
    bench.environ |= {"XDG_CONFIG_HOME": str(folder), "CLAUDE_BOTTLE_AGENTS": ""}
    return folder


def commands(shown: str) -> list[str]:
    """Return the commands of a dry run; what they read tells the addresses of this machine, which come and go."""
    found = [OWN.sub("-", line) for line in shown.splitlines() if line.startswith("docker ")]
    assert len(found) > 5, shown
    return found


def checkout(bench: Bench, *words: str, **env: str) -> str:
    """Return what a command of the checkout prints."""
    ended = bench.run((str(CLI), *words), env)
    assert ended.code == 0, ended
    return ended.out.decode()


def test_the_wheel_has_the_package_and_its_data(wheel: Path) -> None:
    package = files(REPOSITORY / "claude_bottle")
    data = {f"claude_bottle/data/{name}" for each in WITH_DATA for name in files(REPOSITORY / each)}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == package | data


def test_a_dry_run_is_that_of_the_checkout(bench: Bench, program: Path) -> None:
    """With the shipped agents, as its user has none; nothing comes from a PYTHONPATH into a cloned repository."""
    for name in ("click", "json"):
        (bench.folder / f"{name}.py").write_text("raise SystemExit('imported from the current directory')")
    empty = {"CLAUDE_BOTTLE_AGENTS": "", "HOME": str(bench.folder), "XDG_CONFIG_HOME": ""}
    words = ("start", "demo", "--dry-run")
    for path in ("", f":{bench.folder}"):
        ended = bench.run((str(program), *words), {**empty, "PYTHONPATH": path}, cwd=str(bench.folder))
        assert ended.code == 0, ended
        assert commands(ended.out.decode()) == commands(checkout(bench, *words, **empty))


def test_manifests_are_the_users_or_the_shipped_ones(bench: Bench, program: Path, config: Path) -> None:
    def listed(where: str) -> list[str]:
        ended = bench.run((str(program), "agents"), {"XDG_CONFIG_HOME": where, "HOME": str(bench.folder)})
        assert ended.code == 0, ended
        return [line.split()[0] for line in ended.out.decode().splitlines()[1:]]

    shipped = ["demo"]
    assert listed(str(config)) == sorted((*shipped, bench.name))
    assert listed(str(bench.folder / "absent")) == shipped
    assert listed("") == shipped
    config.rename(bench.folder / ".config")
    assert listed("") == sorted((*shipped, bench.name))
    assert listed("relative/is/ignored") == sorted((*shipped, bench.name))
    home = {"XDG_CONFIG_HOME": "", "HOME": str(bench.folder)}
    assert bench.name not in checkout(bench, "agents", **home)
    (bench.folder / ".config" / "claude-bottle" / "agents" / "demo.yaml").write_text("botle: default\n")
    assert bench.run((str(program), "check"), home).code == 64


@pytest.mark.usefixtures("config")
def test_a_session_answers(bench: Bench, program: Path) -> None:
    argv = (str(program), "start", bench.name, "--yes", "--print", f"SAY: answer of {bench.name}")
    ended = bench.run(argv, {}, cwd="/")
    assert (ended.code, ended.out) == (0, f"answer of {bench.name}\n".encode()), ended


@pytest.mark.usefixtures("config")
def test_a_stopped_session_names_the_program(bench: Bench, program: Path) -> None:
    run = Running((str(program), "start", bench.name, "--yes", "--print", f"HOLD: {bench.name}"), bench.environ)
    session = bench.held()
    stopped = bench.run((str(program), "stop", session), {})
    ended = run.end()
    assert (stopped.code, stopped.out.decode()) == (0, f"stopped {session}\n"), (stopped, ended)
    assert "claude-bottle stop" in ended.err
    assert "cli.py" not in ended.err


@pytest.mark.usefixtures("config")
def test_a_killed_session_leaves_nothing(bench: Bench, program: Path) -> None:
    run = Running((str(program), "start", bench.name, "--yes", "--print", f"HOLD: {bench.name}"), bench.environ)
    bench.held()
    run.process.kill()
    assert run.end().code == -9
    bench.await_nothing()


def test_it_completes_by_its_own_name(bench: Bench, program: Path) -> None:
    """The script calls the program by its path: pipx may have put another on PATH, or nothing."""
    script = bench.run((str(program), "completion", "bash"), {}).out.decode()
    ask = """
eval "$SCRIPT"
[[ $(complete -p claude-bottle) =~ -F\\ ([a-z_]+) ]]
COMP_WORDS=(claude-bottle sta) COMP_CWORD=1
"${BASH_REMATCH[1]}" claude-bottle sta claude-bottle
echo "${COMPREPLY[@]}"
"""
    assert bench.run(("bash", "-c", ask), {"SCRIPT": script}, cwd="/").out == b"start\n"
