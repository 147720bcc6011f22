"""The launcher `cli.py` in temporary checkouts, with a stub of claude_bottle.cli and the real packages."""

import ast
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import systems

ROOT = Path(__file__).parents[2]
COMMAND = """
import os, sys
import click, pexpect, ruamel.yaml
def main():
    print(sys.argv[1:], os.getcwd(), click.__file__)
    return 7
"""
pytestmark = pytest.mark.xdist_group("launcher")  # on one worker, to share `first_uses`
SETTING_UP = "claude-bottle: setting up"


def checkout(folder: Path) -> Path:
    """Create a checkout of the launcher with a stub of claude_bottle.cli; return its cli.py."""
    (folder / "claude_bottle").mkdir(parents=True)
    (folder / "claude_bottle" / "cli.py").write_text(COMMAND)
    shutil.copy(ROOT / "requirements.txt", folder)
    return Path(shutil.copy(ROOT / "cli.py", folder))


def run(*argv: str | Path, cwd: Path | str = "/", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, check=False)


def answer(cli: Path, *args: str, cwd: Path | str = "/") -> str:
    click = next((cli.parent / ".venv").glob("lib/python3.*/site-packages/click/__init__.py"))
    return f"{list(args)} {cwd} {click}\n"


@pytest.fixture(scope="module")
def first_uses(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[int, str, str]]]:
    """Run a fresh checkout ten times in parallel; return its cli.py and each run's exit code, stdout and stderr."""
    cli = checkout(tmp_path_factory.mktemp("launcher") / "a checkout")
    pipe = subprocess.PIPE
    uses = [subprocess.Popen([cli, str(n)], cwd="/", stdout=pipe, stderr=pipe, text=True) for n in range(10)]
    texts = [use.communicate() for use in uses]
    return cli, [(use.returncode, out, err) for use, (out, err) in zip(uses, texts, strict=True)]


@pytest.fixture
def ready(first_uses: tuple[Path, object]) -> Path:
    return first_uses[0]


@pytest.fixture
def deaf_index() -> Iterator[socket.socket]:
    """A package index that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(300)
        yield server


def index(server: socket.socket) -> dict[str, str]:
    url = f"http://127.0.0.1:{server.getsockname()[1]}"
    return {"PIP_INDEX_URL": url, "PIP_RETRIES": "0", "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": "", "NO_PROXY": "*"}


def leftovers(cli: Path) -> list[str]:
    return sorted(path.name for path in cli.parent.glob(".venv*"))


def test_parses_on_an_old_python() -> None:
    ast.parse((ROOT / "cli.py").read_text(), feature_version=(3, 6))


def test_ten_first_uses_at_once(first_uses: tuple[Path, list[tuple[int, str, str]]]) -> None:
    cli, uses = first_uses
    for n, (code, out, err) in enumerate(uses):
        assert (code, out) == (7, answer(cli, str(n)))
        # A late one finds .venv complete.
        assert err == "" or (err.startswith(SETTING_UP) and err.count("\n") == 1)
    assert any(err for _, _, err in uses)
    assert leftovers(cli) == [".venv"]


def test_it_runs_from_any_directory_and_imports_nothing_from_it(ready: Path, tmp_path: Path) -> None:
    for name in ("click", "os", "sitecustomize", "subprocess", "claude_bottle"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from the current directory')")
    (tmp_path / "link").symlink_to(ready)
    words = ("start", "a b", "--", "-x", "")
    for argv in (["./link"], [ready], [sys.executable, "-P", ready], ["sh", "-c", f"'{ready}' \"$@\"", "alias"]):
        # An empty entry in PYTHONPATH is the current directory; only an interpreter started by the user may read it.
        done = run(*argv, *words, cwd=tmp_path, PYTHONPATH="" if argv[0] == sys.executable else f":{tmp_path}")
        assert (done.returncode, done.stdout, done.stderr) == (7, answer(ready, *words, cwd=tmp_path), "")


def test_a_change_of_the_requirements_reinstalls_the_packages(tmp_path: Path, ready: Path) -> None:
    shutil.copytree(ready.parent, tmp_path / "moved", symlinks=True)
    cli = tmp_path / "moved" / "cli.py"
    assert run(cli).stderr == ""
    requirements = cli.parent / "requirements.txt"
    requirements.write_text(requirements.read_text() + "# changed\n")
    done = run(cli)
    assert (done.returncode, done.stdout) == (7, answer(cli))
    assert done.stderr.startswith(SETTING_UP)
    assert (cli.parent / ".venv" / "requirements.txt").read_text().endswith("# changed\n")
    assert (run(cli).stderr, leftovers(cli)) == ("", [".venv"])


def test_a_venv_whose_python_is_gone_is_said_to_be_that(tmp_path: Path, ready: Path) -> None:
    cli = Path(shutil.copytree(ready.parent, tmp_path / "upgraded", symlinks=True)) / "cli.py"
    python = cli.parent / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to(tmp_path / "python3.11")
    why = f" anew, because its Python, {tmp_path}/python3.11, is gone"
    with socket.create_server(("127.0.0.1", 0)) as closed:
        env = index(closed)
    done = run(cli, **env)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[0] == f"{SETTING_UP} {cli.parent}/.venv{why}; this takes some seconds"
    done = run(cli)
    assert (done.returncode, done.stdout) == (7, answer(cli))
    assert done.stderr == f"{SETTING_UP} {cli.parent}/.venv{why}; this takes some seconds\n"


def test_a_failed_set_up_prints_pips_errors_and_leaves_nothing_behind(tmp_path: Path) -> None:
    cli = checkout(tmp_path / "checkout")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        env = index(closed)
    done = run(cli, **env)
    lines = done.stderr.splitlines()
    assert (done.returncode, done.stdout, leftovers(cli)) == (1, "", [])
    assert lines[0].startswith(SETTING_UP)
    assert "check the network, and pip's proxy and index settings" in lines[1]
    assert any("No matching distribution" in line for line in lines[2:])
    assert len(lines) <= 8


def test_interrupted_and_killed_set_ups_are_repeated(tmp_path: Path, deaf_index: socket.socket) -> None:
    cli = checkout(tmp_path / "checkout")
    env = {**os.environ, **index(deaf_index)}

    def interrupt(number: signal.Signals, *, group: bool) -> tuple[int, str]:
        use = subprocess.Popen([cli], stderr=subprocess.PIPE, text=True, env=env, start_new_session=True)
        pip, _ = deaf_index.accept()
        with pip:  # closing it ends an orphaned pip, too
            (os.killpg if group else os.kill)(use.pid, number)
            _, err = use.communicate(timeout=300)
        return use.returncode, err

    code, err = interrupt(signal.SIGINT, group=True)  # as a terminal does
    assert (code, err.splitlines()[1:]) == (130, ["claude-bottle: set-up interrupted; the next use repeats it"])
    assert leftovers(cli) == []
    assert interrupt(signal.SIGKILL, group=False)[0] == -9
    assert leftovers(cli) == [".venv.new"]
    done = run(cli)
    assert (done.returncode, done.stdout, leftovers(cli)) == (7, answer(cli), [".venv"])


@pytest.mark.parametrize(
    ("lie", "advice"),
    [
        ("sys.version_info = (3, 9, 2)", "needs Python 3.11 or newer"),
        ("sys.modules['ensurepip'] = None", "apt install python3-venv"),
        ("sys.modules['venv'] = None", "apt install python3-venv"),
    ],
)
def test_an_unsuitable_python_is_one_line(tmp_path: Path, lie: str, advice: str) -> None:
    cli = checkout(tmp_path / "checkout")
    code = f"import runpy, sys; {lie}; runpy.run_path({str(cli)!r}, run_name='__main__')"
    done = run(sys.executable, "-I", "-c", code)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert advice in done.stderr


def test_a_read_only_checkout_works_only_once_set_up(tmp_path: Path, ready: Path) -> None:
    used = Path(shutil.copytree(ready.parent, tmp_path / "used", symlinks=True))
    fresh = checkout(tmp_path / "fresh").parent
    # File modes do not restrict root, a read-only mount does.
    mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$0/cli.py"'
    for folder, code, advice in ((used, 7, ""), (fresh, 1, f"must be able to write to {fresh}\n")):
        folder.chmod(0o555)
        done = run("unshare", "--mount", "sh", "-c", mount, folder) if os.geteuid() == 0 else run(folder / "cli.py")
        assert (done.returncode, done.stderr.count("\n")) == (code, 1 if advice else 0)
        assert done.stderr.endswith(advice)


@pytest.mark.parametrize("stderr", ["2>&-", "2>/dev/full"])
def test_a_message_that_nobody_gets_leaves_the_exit_code_as_it_is(stderr: str) -> None:
    if "/dev/full" in stderr:
        systems.full()
    program = f"import runpy; runpy.run_path({str(ROOT / 'cli.py')!r})['fail']('x')"
    done = run("/bin/sh", "-c", f'exec "$@" {stderr}', "sh", sys.executable, "-IS", "-c", program)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
