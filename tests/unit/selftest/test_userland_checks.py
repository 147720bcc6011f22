"""Whose the processes of a bottle are, and whose programs, judged."""

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from claude_bottle.bottle.plan import Plan
from claude_bottle.repository import exporter
from claude_bottle.selftest import search, userland_checks
from tests.support import plans
from tests.support.receipts import BOTTLE, IMAGE_ENV, LISTED, answers, judged, put, shown

REMAPPED = b"PID RUID EUID SUID\n4711 165532 165532 165532\n4799 165532 165532 165532\n"
INIT = {"exe": "/usr/sbin/docker-init"}
AGENTS = {"Groups": ["1000"], "PPid": ["0"], "Uid": ["1000"] * 4, "Gid": ["1000"] * 4}
OTHER = ["/usr/bin/git 0123", "/usr/bin/git 4567"]


def process(said: Any, **changes: object) -> dict[str, object]:
    """One more process of the bottle, as harmless as its first, but for the changes."""
    return {**said["processes"]["7"], "PPid": ["0"], **changes}


@pytest.mark.parametrize(
    ("pid", "changes", "failed"),
    [
        ("8", AGENTS, {}),
        ("8", {}, {"guard": "process 8 has the guard's user"}),
        ("8", {"PPid": ["1"]}, {"guard": "process 8 has the guard's user"}),  # a second shell
        ("8", {**AGENTS, "Gid": ["1000", "1000", "65532", "1000"]}, {"guard": "process 8 has the guard's user"}),
        ("8", {"Uid": ["1000", "1000", "65532", "1000"]}, {"guard": "process 8 has the guard's user"}),
        ("8", {**AGENTS, "Uid": ["1000", "0", "0", "0"]}, {"user": "process 8 is root's"}),
        ("8", {**AGENTS, "Uid": []}, {"user": "process 8 is root's"}),
        ("7", AGENTS, {"guard": "nothing reads the lifeline"}),
        ("7", {"PPid": ["1"], "exe": "/usr/local/bin/bash"},
         {"guard": "process 7 has the guard's user; nothing reads the lifeline"}),
        ("1", {**INIT, "Uid": ["65532", "65532", "1000", "65532"]}, {"guard": "process 1 is not the guard's alone"}),
        ("1", {**INIT, **AGENTS}, {"guard": "process 1 is not the guard's alone"}),
        ("1", {"exe": "/usr/sbin/init"}, {"guard": "the first process is not the engine's, by the kernel"}),
    ],
)  # fmt: skip
def test_processes_are_told(plan: Plan, pid: str, changes: dict[str, object], failed: dict[str, str]) -> None:
    said = answers(plan)
    said["processes"][pid] = process(said, **changes)
    assert {check.name: check.detail for check in judged(plan, said, shown(plan)).failed} == failed


@pytest.mark.parametrize(
    ("listed", "failed"),
    [
        (REMAPPED, {}),
        (REMAPPED + b"5000 101000 101000 101000\n", {}),
        (REMAPPED + b"5000 1000 1000 1000\n",
         {"guard": "the engine's process 5000 has another user: 1000, 1000, 1000"}),
        (REMAPPED + b"5000 100000 100000 100000\n",
         {"user": "the engine's process 5000 is root's",
          "guard": "the engine's process 5000 has another user: 100000, 100000, 100000"}),
        (LISTED + b"5000 1000 1000 1000\n", {}),
        (LISTED + b"5000 1000 0 1000\n",
         {"user": "the engine's process 5000 is root's",
          "guard": "the engine's process 5000 has another user: 1000, 0, 1000"}),
        (LISTED + b"5000 65532 65532 65532\n", {"guard": "the engine sees 3 processes of the guard's user, not 2"}),
        (LISTED + b"5000\n", {"user": "the engine's process 5000 is root's"}),
        (LISTED.replace(b"4711", b"4712"),
         dict.fromkeys(("user", "guard"), "did not run (ValueError: not enough values to unpack (expected 1, got 0))")),
    ],
)  # fmt: skip
def test_what_the_engine_sees_is_told(plan: Plan, listed: bytes, failed: dict[str, str]) -> None:
    receipt = judged(plan, answers(plan), shown(plan), listed=listed)
    assert {check.name: check.detail for check in receipt.failed} == failed


def test_an_engine_that_cannot_list_processes_is_a_warning(plan: Plan) -> None:
    told = judged(plan, answers(plan), shown(plan), listed=b"").line().splitlines()
    assert told[0] == "isolation  30 checks passed in 0.3 s"
    assert told[1].split()[:2] == ["warning", "user"]
    said = answers(plan)
    said["processes"]["8"] = process(said, **AGENTS | {"Uid": ["0"] * 4})
    assert [check.name for check in judged(plan, said, shown(plan), listed=b"").failed] == ["user"]


@pytest.mark.parametrize(
    ("path", "value", "detail"),
    [
        (("Config", "User"), "1000:1000", "the first process runs as 1000:1000"),
        (("Config", "User"), "", "the first process runs as root"),
        (("HostConfig", "Init"), None, "the first process is the image's"),
    ],
)
def test_another_first_process_is_told(plan: Plan, path: tuple[str, ...], value: object, detail: str) -> None:
    seen = shown(plan)
    put(seen[BOTTLE], path, value)
    assert [(one.name, one.detail) for one in judged(plan, answers(plan), seen).failed] == [("guard", detail)]


@pytest.mark.parametrize(
    ("path", "value", "detail"),
    [
        ("/usr/bin/git", OTHER, "/usr/bin/git is not the base image's"),
        ("/usr/bin/git", ["absent", "absent"], "/usr/bin/git is not the base image's"),
        ("/etc/ld.so.preload", ["absent", "absent"], None),
        ("/etc/ld.so.preload", ["absent", "/etc/ld.so.preload 0123"], "/etc/ld.so.preload is not the base image's"),
        ("/lib/x/libc.so.6", OTHER, "/lib/x/libc.so.6 is not the base image's"),
        ("/usr/lib/python3.11/json*", ["json", "json json.so"], "/usr/lib/python3.11/json* is not the base image's"),
    ],
)
def test_another_program_is_told(plan: Plan, path: str, value: list[str], detail: str | None) -> None:
    said = answers(plan)
    said["userland"][path] = value
    expected = [("userland", detail)] if detail else []
    assert [(check.name, check.detail) for check in judged(plan, said, shown(plan)).failed] == expected


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/usr/bin/env", "/usr/bin/env was not looked at"),
        ("/usr/lib/python3.11/subprocess.py", "Python's modules were not looked at"),
    ],
)
def test_what_was_not_looked_at_is_told(plan: Plan, path: str, detail: str) -> None:
    said = answers(plan)
    del said["userland"][path]
    assert [(check.name, check.detail) for check in judged(plan, said, shown(plan)).failed] == [("userland", detail)]


@pytest.mark.parametrize(
    ("image", "base", "told"),
    [
        ({}, {}, []),
        ({"PATH": "/opt/bin:/usr/bin", "PYTHONUNBUFFERED": "1", "GIT_PAGER": "cat", "LANGUAGE": "x"}, {}, []),
        ({"LD_PRELOAD": "/x.so"}, {}, ["LD_PRELOAD"]),
        ({"LD_PRELOAD": "/x.so"}, {"LD_PRELOAD": "/x.so"}, []),
        ({"LD_PRELOAD": "/x.so"}, {"LD_PRELOAD": "/y.so"}, ["LD_PRELOAD"]),
        ({"LD_LIBRARY_PATH": "/x", "LD_AUDIT": "/y"}, {}, ["LD_LIBRARY_PATH", "LD_AUDIT"]),
        ({"BASH_ENV": "/x", "ENV": "/y", "BASH_FUNC_cat%%": "() { :; }"}, {}, ["BASH_ENV", "ENV", "BASH_FUNC_cat%%"]),
        ({"PYTHONPATH": "/x", "PYTHONHOME": "/y"}, {}, ["PYTHONPATH", "PYTHONHOME"]),
        ({"GIT_EXEC_PATH": "/x", "GIT_CONFIG_COUNT": "1"}, {}, ["GIT_EXEC_PATH", "GIT_CONFIG_COUNT"]),
    ],
)  # fmt: skip
def test_variables_that_load_code_are_told(
    plan: Plan, image: dict[str, str], base: dict[str, str], told: list[str]
) -> None:
    """Of an image that is the bottle's own, unless the base image sets the same."""
    plan = replace(plan, images=(plans.BASE, plans.OWN))
    bottle, sidecar, gate, own = shown(plan)
    own["Config"]["Env"] = [*IMAGE_ENV, *_pairs(image)]
    bottle["Config"]["Env"] += _pairs(image)
    below = {"Id": "sha256:1", "RepoTags": [plan.base.tag], "Config": {"Env": [*IMAGE_ENV, *_pairs(base)]}}
    failed = judged(plan, answers(plan), [bottle, sidecar, gate, own, below]).failed
    words = "the image sets {}, with which code of its own is loaded into other programs"
    expected = "; ".join(words.format(name) for name in told)
    assert [(check.name, check.detail) for check in failed] == ([("environment", expected)] if told else [])


def test_an_image_by_two_names_is_one(plan: Plan) -> None:
    plan = replace(plan, images=(plans.BASE, plans.OWN))
    seen = shown(plan)
    seen[-1]["RepoTags"].append(plan.base.tag)
    assert judged(plan, answers(plan), [*seen, seen[-1]]).failed == ()


def _pairs(variables: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in variables.items()]


def test_every_module_that_the_programs_import_is_asked_for() -> None:
    sources = (Path(exporter.__file__), Path(search.__file__))
    nodes = [node for source in sources for node in ast.walk(ast.parse(source.read_bytes()))]
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    assert userland_checks.compared()[-1] == sorted(imported)
