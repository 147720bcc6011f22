"""CI's second run of what failed: whether there is one, and of what."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import systems
from tests.world import REPOSITORY

pytestmark = systems.needs_linux("bash 4 as /bin/bash")

PYTEST = '#!/bin/bash\nprintf "%s\\n" "${@:7}" >ran\necho "PASSED $7"\nexit "$(<code)"\n'


def again(folder: Path, *failed: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run .ci/again in a checkout whose pytest saw these fail, and ends with `code` now."""
    for name in (".ci", ".venv-dev/bin", ".pytest_cache/v/cache"):
        (folder / name).mkdir(parents=True)
    shutil.copy(REPOSITORY / ".ci/again", folder / ".ci")
    python = folder / ".venv-dev/bin/python"
    python.write_text(PYTEST)
    python.chmod(0o755)
    (folder / "code").write_text(str(code))
    (folder / ".pytest_cache/v/cache/lastfailed").write_text(json.dumps(dict.fromkeys(failed, True)))
    return subprocess.run(
        (folder / ".ci/again",), cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def test_three_are_run_again_under_their_own_names_and_called_flaky(tmp_path: Path) -> None:
    failed = (
        "tests/unit/test_a.py::test_b[c@d.e]@group",
        "tests/integration/test_f.py::test_g",
        "tests/isolation/t.py::h",
    )
    done = again(tmp_path, *failed)
    assert (tmp_path / "ran").read_text().splitlines() == ["tests/unit/test_a.py::test_b[c@d.e]", *failed[1:]]
    assert (done.returncode, done.stdout) == (0, f"flaky: failed at first, passed alone: {failed[0][:-6]}\n")


def test_what_fails_again_has_failed(tmp_path: Path) -> None:
    assert again(tmp_path, "tests/unit/test_a.py::test_b", code=1).returncode == 1


@pytest.mark.parametrize(
    "failed", [("tests/contract/test_a.py::test_b",), tuple(f"tests/unit/test_a.py::test_{n}" for n in range(4))]
)
def test_four_or_one_of_the_contract_are_not_run_again(tmp_path: Path, failed: tuple[str, ...]) -> None:
    assert again(tmp_path, *failed).returncode == 1
    assert not (tmp_path / "ran").exists()
