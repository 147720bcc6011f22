"""The limits in force on the bottle, judged."""

from pathlib import Path
from typing import Any

import pytest

from claude_bottle.bottle.plan import Plan, Run
from claude_bottle.egress.allowlist import API
from claude_bottle.selftest.credential_checks import RIGHT
from claude_bottle.selftest.receipt import Receipt, Verdict
from tests.support import plans
from tests.support.receipts import answers, cgroup, judged, shown

GIB = 1 << 30
NONE = str((1 << 63) - 4096)  # what version 1 has without a limit, in pages of 4 KiB
V2 = {"memory.max": f"{4 * GIB}\n", "memory.swap.max": "0\n", "pids.max": "1024\n", "cpu.max": "200000 100000\n"}
V1 = {**cgroup(4 * GIB, 1024), "cpu.cfs_quota_us": "200000\n", "cpu.cfs_period_us": "100000\n"}
UNREAD = "".join(f"{name}: the limit in force cannot be read; " for name in ("memory", "processes", "cpus"))
WITHOUT = "see ./cli.py doctor; limits: {%s: none} in the bottle does without"


def seen(plan: Plan, files: dict[str, str], **more: Any) -> Receipt:
    """Judge a bottle with these limits in force."""
    return judged(plan, answers(plan) | {"limits": files}, shown(plan), **more)


def bottle(tmp_path: Path, limits: str) -> Plan:
    """Plan a session with other limits."""
    folder = plans.manifests(tmp_path / "agents", bottle=f"limits: {limits}\n")
    return plans.plan(folder, Run(terminal=True), CLAUDE_BOTTLE_OAUTH_TOKEN=plans.TOKEN)


@pytest.mark.parametrize(
    "files",
    [
        V1,
        V2,
        V1 | {"cpu.cfs_quota_us": "100000", "pids.max": "1000", "memory.limit_in_bytes": "4096"},
        V2 | {"cpu.max": "400000 200000"},
    ],
)
def test_limits_as_planned_or_narrower_pass(plan: Plan, files: dict[str, str]) -> None:
    assert [check for check in seen(plan, files).checks if check.verdict is not Verdict.PASSED] == []


@pytest.mark.parametrize(
    ("files", "detail"),
    [
        (V1 | {"memory.limit_in_bytes": NONE}, f"memory: not limited; {WITHOUT % 'memory'}"),
        (V1 | {"memory.limit_in_bytes": str(5 * GIB)}, "memory: limited to 5368709120, not 4294967296"),
        (V1 | {"memory.memsw.limit_in_bytes": str(8 * GIB)}, f"memory and swap: limited to {8 * GIB}, not {4 * GIB}"),
        (V1 | {"pids.max": "max"}, f"processes: not limited; {WITHOUT % 'pids'}"),
        (V1 | {"pids.max": "1025"}, "processes: limited to 1025, not 1024"),
        (V1 | {"cpu.cfs_quota_us": "-1"}, f"cpus: not limited; {WITHOUT % 'cpus'}"),
        (V1 | {"cpu.cfs_quota_us": "250000"}, "cpus: limited to 2.5, not 2"),
        (V1 | {"cpu.cfs_period_us": "50000"}, "cpus: limited to 4, not 2"),
        (V2 | {"memory.max": "max"}, f"memory: not limited; {WITHOUT % 'memory'}"),
        (V2 | {"memory.swap.max": "4096"}, f"memory and swap: limited to {4 * GIB + 4096}, not {4 * GIB}"),
        (V2 | {"cpu.max": "max 100000"}, f"cpus: not limited; {WITHOUT % 'cpus'}"),
        ({key: V2[key] for key in V2 if key != "cpu.max"},
         f"cpus: the limit in force cannot be read; {WITHOUT % 'cpus'}"),
        ({}, f"{UNREAD}{WITHOUT % 'memory: none, pids: none, cpus'}"),
        (V1 | {"pids.max": "many"}, "did not run (ValueError: invalid literal for int() with base 10: 'many')"),
    ],
)  # fmt: skip
def test_limits_larger_than_planned_or_unread_fail(plan: Plan, files: dict[str, str], detail: str) -> None:
    assert [(check.name, check.detail) for check in seen(plan, files).failed] == [("limits", detail)]


@pytest.mark.parametrize("files", [{**V1, "memory.memsw.limit_in_bytes": ""}, {**V2, "memory.swap.max": "max"}])
def test_swap_that_the_kernel_does_not_limit_is_a_warning(plan: Plan, files: dict[str, str]) -> None:
    for found in (files, {key: text for key, text in files.items() if "sw" not in key}):
        told = seen(plan, found).line().splitlines()
        assert told[0] == "isolation  30 checks passed in 0.3 s"
        assert told[1].split()[:4] == ["warning", "limits", "the", "engine's"]


def test_a_limit_that_the_manifest_does_without_is_a_warning(tmp_path: Path) -> None:
    plan = bottle(tmp_path, "{memory: none, pids: none, cpus: none}")
    receipt = seen(plan, V1 | {"memory.limit_in_bytes": NONE, "pids.max": "max", "cpu.cfs_quota_us": "-1"})
    [warned] = [check for check in receipt.checks if check.verdict is not Verdict.PASSED]
    assert (warned.name, warned.verdict) == ("limits", Verdict.WARNING)
    assert warned.detail == "not limited, as the bottle's manifest says: cpus, memory, processes"


def test_what_the_manifest_does_without_excuses_nothing_else(tmp_path: Path) -> None:
    plan = bottle(tmp_path, "{memory: none}")
    assert [check.name for check in seen(plan, V1 | {"pids.max": "max"}).failed] == ["limits"]


def test_it_goes_for_the_other_containers_as_well(tmp_path: Path) -> None:
    """An engine that cannot limit the bottle's memory cannot limit theirs either."""
    folder = plans.manifests(tmp_path / "agents", bottle="limits: {memory: none}\n")
    plan = plans.plan(folder, Run(terminal=True), CLAUDE_BOTTLE_OAUTH_TOKEN=plans.TOKEN)
    said = answers(plan)
    right = said["signed"][API][RIGHT]
    right[1] = right[1].replace(str(1 << 30), NONE)
    [gate, own] = [check for check in judged(plan, said, shown(plan)).checks if check.verdict is not Verdict.PASSED][
        ::-1
    ]
    assert (own.name, gate.name) == ("limits", "credential-proxy")
    assert gate.verdict is Verdict.WARNING
    assert gate.detail == (
        "not limited, as the bottle's manifest says: memory; the engine's kernel does not limit swap, "
        "so the credentials in the proxy may be swapped out"
    )


@pytest.mark.parametrize(("quota", "passes"), [("34000", True), ("33400", True), ("35000", False)])
def test_cpus_may_be_in_force_to_the_next_hundredth(tmp_path: Path, quota: str, *, passes: bool) -> None:
    """As systemd has them."""
    plan = bottle(tmp_path, "{cpus: 0.333}")
    assert (seen(plan, V1 | {"cpu.cfs_quota_us": quota}).failed == ()) is passes
