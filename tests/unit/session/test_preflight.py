"""What a user reads before a session starts."""

from dataclasses import replace
from pathlib import Path

import pytest

from claude_bottle.bottle.plan import Plan, Run
from claude_bottle.session import preflight, steps
from tests.support import golden, keys, plans

HOSTILE = r"""
description: "A \e[31mred\e[0m \u202Egenie\u2066, \u200bunseen\a"
prompt: "first\r\n\e]0;title\a second"
"""


def _summary(plan: Plan, folder: Path) -> str:
    return preflight.summary(plan, "(built if absent)").replace(str(folder), "FOLDER")


def test_the_preflight_of_a_default_bottle(tmp_path: Path) -> None:
    plan = plans.plan(plans.manifests(tmp_path), Run(terminal=True))
    golden.same("preflight-default", _summary(plan, tmp_path))


def test_the_preflight_says_that_the_token_is_the_one_from_login(tmp_path: Path) -> None:
    plan = replace(plans.plan(plans.manifests(tmp_path), Run(terminal=True)), token_source="login")
    assert "  signs   api.anthropic.com (from login)\n" in _summary(plan, tmp_path)


def test_the_preflight_names_all_that_a_bottle_may_do_and_no_value_of_a_secret(tmp_path: Path) -> None:
    run = Run(terminal=True, arguments=("--model", "opus"))
    plan = plans.plan(plans.everything(tmp_path), run, HOST_KEY="planted")
    text = _summary(plan, tmp_path)
    golden.same("preflight-everything", text)
    assert "planted" not in text


def test_a_dry_run_shows_no_key(tmp_path: Path) -> None:
    plan = plans.plan(plans.everything(tmp_path), Run(terminal=True), HOST_KEY="planted")
    text = preflight.commands(steps.table(plan))
    assert f"# key-1: {len(plan.keys[0].private)} bytes on stdin\n" in text
    planted = [*keys.private("plain").splitlines(), *keys.private("locked", encrypted=True).splitlines()]
    assert [line for line in planted if line in text] == []


@pytest.mark.parametrize(
    ("allow", "line"),
    [
        ("", "7 hosts allowed (api.anthropic.com, claude.ai, claude.com, +4 more)"),
        ("api.openai.com, github.com", "9 hosts allowed (api.anthropic.com, api.openai.com, claude.ai, +6 more)"),
        (
            "API.OpenAI.com, github.com, api.openai.com, claude.ai",
            "9 hosts allowed (api.anthropic.com, api.openai.com, ",
        ),
        (
            "github.com:22, github.com",
            "8 hosts allowed (api.anthropic.com, claude.ai, claude.com, +5 more)\n  ports   22, 443",
        ),
    ],
)
def test_the_egress_line_counts_distinct_hosts(tmp_path: Path, allow: str, line: str) -> None:
    plan = plans.plan(plans.manifests(tmp_path, bottle=f"egress: {{allow: [{allow}]}}\n"), Run(terminal=True))
    assert f"\n  egress  {line}" in _summary(plan, tmp_path)


@pytest.mark.parametrize(("number", "line"), [(1, ", 1 request to the API\n"), (2, ", 2 requests to the API\n")])
def test_the_limits_line_counts_requests(tmp_path: Path, number: int, line: str) -> None:
    plan = plans.plan(plans.manifests(tmp_path, bottle=f"limits: {{requests: {number}}}\n"), Run(terminal=True))
    assert line in _summary(plan, tmp_path)


@pytest.mark.parametrize(
    ("limits", "line"),
    [
        ("memory: none", "2 cpus, memory not limited, 1024 processes"),
        ("cpus: none, pids: none", "cpus not limited, 4 GiB memory, processes not limited"),
    ],
)
def test_the_limits_line_says_what_is_not_limited(tmp_path: Path, limits: str, line: str) -> None:
    plan = plans.plan(plans.manifests(tmp_path, bottle=f"limits: {{{limits}}}\n"), Run(terminal=True))
    assert f"\n  limits  {line}\n" in _summary(plan, tmp_path)


def test_nothing_that_a_manifest_says_can_steer_the_terminal(tmp_path: Path) -> None:
    folder = plans.manifests(tmp_path, agent=HOSTILE)
    text = _summary(plans.plan(folder, Run(terminal=True, arguments=("\x1b[2J",))), tmp_path)
    assert text.isascii()
    assert text.replace("\n", "").isprintable()
    assert r"A \x1b[31mred\x1b[0m \u202egenie\u2066, \u200bunseen\x07" in text
    assert text.count("\n") == 8


BELOW = "claude-bottle:python"  # the last preset of plans.everything()


@pytest.mark.parametrize(
    ("paths", "shown"),
    [
        ({}, []),
        ({plans.OWN.tag: "/opt/bin:/usr/bin"}, []),  # nothing is known of the image below it
        ({BELOW: "/usr/bin"}, []),  # it is still to be built
        ({BELOW: "/usr/bin", plans.OWN.tag: "/usr/bin"}, []),
        ({plans.BASE.tag: "/bin", BELOW: "/usr/bin", plans.OWN.tag: "/usr/bin"}, []),  # a preset may have its own
        ({BELOW: "/usr/bin", plans.OWN.tag: "/x\x1b:/usr/bin"}, ["  path    /x\\x1b:/usr/bin"]),
    ],
)
def test_a_changed_path_of_the_image_is_shown(tmp_path: Path, paths: dict[str, str], shown: list[str]) -> None:
    plan = plans.plan(plans.everything(tmp_path), Run(terminal=True), HOST_KEY="x")
    plan = replace(plan, facts=replace(plan.facts, paths=paths))
    lines = preflight.summary(plan, "").splitlines()
    assert [line for line in lines if line.startswith("  path ")] == shown


@pytest.mark.parametrize(
    ("memory", "bottles", "line"),
    [
        (16, (), ""),
        (16, (4, 4, 4), ""),
        (16, (4, 4, 4, 4), "its memory and 16.0 GiB of 4 running may be more than the engine's 16.0 GiB"),
        (2, (), "its memory may be more than the engine's 2.0 GiB"),
        (0, (4, 4), ""),
    ],
    ids=["alone", "fits", "too many", "too small", "unknown"],
)
def test_a_start_that_would_not_fit_beside_those_that_run_says_so(
    tmp_path: Path, memory: int, bottles: tuple[int, ...], line: str
) -> None:
    """A bottle has 4 GiB unless its manifest says otherwise."""
    made = plans.plan(plans.manifests(tmp_path), Run(terminal=True))
    facts = replace(made.facts, memory=memory << 30, bottles=tuple(one << 30 for one in bottles))
    found = [each for each in _summary(replace(made, facts=facts), tmp_path).splitlines() if "warning" in each]
    assert found == ([f"  warning {line}"] if line else [])


def test_a_bottle_without_a_limit_is_not_added_up(tmp_path: Path) -> None:
    made = plans.plan(plans.manifests(tmp_path, bottle="limits: {memory: none}\n"), Run(terminal=True))
    assert "warning" not in _summary(replace(made, facts=replace(made.facts, memory=1, bottles=(2,))), tmp_path)
