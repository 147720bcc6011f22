"""The docker commands of a session, held by golden files."""

import io
import shlex
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from claude_bottle.bottle import passed_on
from claude_bottle.bottle.plan import Plan, Run
from claude_bottle.host.addresses import Addresses
from claude_bottle.session import preflight, steps
from claude_bottle.session.steps import Step
from tests.support import golden, plans

TERMINAL = Run(terminal=True)


def _step(plan: Plan, name: str) -> Step:
    return next(step for step in steps.table(plan) if step.name == name)


def _changed(plan: Plan, names: tuple[str, ...]) -> str:
    return "".join(golden.describe(_step(plan, name)) for name in names)


def test_the_whole_table_of_a_default_bottle(tmp_path: Path) -> None:
    plan = plans.plan(plans.manifests(tmp_path), TERMINAL)
    golden.same("default", "".join(map(golden.describe, steps.table(plan))))


def test_a_bottle_with_everything(tmp_path: Path) -> None:
    run = Run(terminal=True, arguments=("--model", "opus"))
    environ = dict.fromkeys((*passed_on.NAMES, "LANG", "LC_ALL"), "set") | {"HOST_KEY": "planted"}
    plan = plans.plan(plans.everything(tmp_path), run, egress=plans.CHOSEN, **environ)
    text = "".join(map(golden.describe, steps.table(plan)))
    golden.same("everything", text)
    assert "planted" not in text + repr(plan)


def test_two_extra_hosts(tmp_path: Path) -> None:
    folder = plans.manifests(tmp_path, bottle="egress: {allow: [api.openai.com, github.com]}\n")
    plan = plans.plan(folder, TERMINAL)
    golden.same("two-extra-hosts", plan.config.decode() + _changed(plan, ("gate",)))


@pytest.mark.parametrize(
    ("name", "session"), [("Ünï codé  X", "uni-code-x"), ("- 漢字 -", "agent"), ("a" * 99, "a" * 30)]
)
def test_odd_agent_names(tmp_path: Path, name: str, session: str) -> None:
    folder = plans.manifests(tmp_path)
    (folder / f"{name}.yaml").write_text("description: Odd\n")
    plan = plans.plan(folder, TERMINAL, name=name)
    made = f"claude-bottle-{session}-0a1b2c3d"
    network, connect, bottle = (_step(plan, each).argv for each in ("network", "sidecar-connect", "bottle"))
    assert (plan.session, network[-1], connect[-2:], _value(bottle, "--name"), _value(bottle, "--network")) == (
        *(f"{session}-0a1b2c3d", made, (made, f"{made}-sidecar"), made, made),
    )
    assert f"claude-bottle.agent={name}" in bottle


def _value(argv: tuple[str, ...], option: str) -> str:
    return argv[argv.index(option) + 1]


def test_print(tmp_path: Path) -> None:
    plan = plans.plan(plans.manifests(tmp_path), Run(terminal=False, question="-p is no option here\n\n"))
    golden.same("print", _changed(plan, ("claude",)))
    with tarfile.open(fileobj=io.BytesIO(plan.home)) as tar:
        prompt = tar.extractfile(".claude-bottle/prompt")
        assert prompt is not None
        assert prompt.read() == b"-p is no option here\n\n"


@pytest.mark.parametrize(
    "argv",
    [
        ("docker", "run", "--name", "x", "image", "bash", "-c", "a\n  -b 'c'\nundo\n  d", "--", "-e"),
        ("--rm", "", " ", "\t", "-", "'", '"', "\\", "\\\n", "$x", "#", "a b", "\u6f22", "--x=y z", "-n", "--n"),
        (),
    ],
)
def test_a_golden_file_leaves_no_doubt_of_an_argv(argv: tuple[str, ...]) -> None:
    assert shlex.split(golden.wrapped(argv)) == list(argv)


def test_a_golden_file_has_an_option_and_its_value_on_one_line() -> None:
    argv = ("docker", "run", "--rm", "--name", "x y", "--label", "a=b", "image", "bash", "-c", "exec", "bash", "more")
    assert golden.wrapped(argv).splitlines() == [
        *("  docker run", "  --rm", "  --name 'x y'", "  --label a=b", "  image bash", "  -c exec", "  bash more"),
    ]


def test_every_step_that_makes_something_of_the_session_undoes_it(tmp_path: Path) -> None:
    made = [step for step in steps.table(plans.plan(plans.manifests(tmp_path), TERMINAL)) if "--label" in step.argv]
    owned = [step for step in made if any("claude-bottle.session=" in word for word in step.argv)]
    assert [step.name for step in owned if not step.undo] == []
    assert {"network", "sidecar", "bottle", "lock", "gate", "selftest"} <= {step.name for step in owned}


def test_needs_name_steps_that_come_before(tmp_path: Path) -> None:
    seen: set[str] = set()
    for step in steps.table(plans.plan(plans.everything(tmp_path), TERMINAL, HOST_KEY="x")):
        assert seen.issuperset((*step.needs, *step.stdin_after, *step.quote_after)), step.name
        assert step.quote is None or step.quote.step in step.quote_after, step.name
        seen.add(step.name)


def test_a_container_is_undone_beside_a_later_one_and_before_its_network(tmp_path: Path) -> None:
    plan = plans.plan(plans.manifests(tmp_path), TERMINAL)
    names, gate = [step.name for step in steps.table(plan)], _step(plan, "gate")
    assert (gate.ends_beside, gate.undone_beside) == ("bottle", "sidecar")
    assert names.index("network") < names.index("sidecar") < names.index("gate")


def test_the_bottle_gets_and_is_asked_nothing_before_its_lock(tmp_path: Path) -> None:
    plan = plans.with_repository(plans.plan(plans.everything(tmp_path), TERMINAL, HOST_KEY="x"))
    within = [step.name for step in steps.table(plan).setup if "lock" in step.stdin_after]
    assert within == ["home", "clone", "selftest"]
    home, probe = _step(plan, "home"), _step(plan, "selftest")
    assert home.quote_after == ("gate",)
    assert {"lock", "gate", "home"} <= set(probe.quote_after)


def test_an_engine_elsewhere(tmp_path: Path) -> None:
    plan = plans.plan(plans.manifests(tmp_path), Run(terminal=True))
    plan = replace(plan, remote=True, elsewhere=True)
    asking = "".join(map(golden.describe, steps.table(plan).asking[1:]))
    told = replace(plan, known=Addresses(("192.0.2.7", "172.17.0.1"), "172.17.0.1"))
    assert [step.present for step in steps.table(told).setup if step.name == steps.ADDRESSES] == [True]
    assert steps.table(told).asking == ()
    golden.same("elsewhere", asking + _changed(told, ("bottle", "gate")))


def test_a_bottle_that_keeps_its_work_after_a_cut(tmp_path: Path) -> None:
    plan = replace(plans.with_repository(plans.plan(plans.manifests(tmp_path), Run(terminal=True))), remote=True)
    golden.same("keeps-work", _changed(plan, ("bottle", "reaper", "claude")))
    assert [step.name for step in steps.table(plan).setup if step.parting] == ["bottle"]
    local = replace(plan, remote=False)
    assert not [step for step in steps.table(local).setup if step.parting or step.name == "reaper"]


def test_a_repository(tmp_path: Path) -> None:
    plan = plans.with_repository(plans.plan(plans.manifests(tmp_path), TERMINAL))
    assert "clone" in _step(plan, "selftest").quote_after
    shown = preflight.command(_step(plan, "clone"))
    golden.same("repository", f"{preflight.summary(plan, '')}{_changed(plan, ('bottle', 'clone', 'claude'))}{shown}")


def test_a_limit_that_is_done_without_is_no_flag(tmp_path: Path) -> None:
    def argv(limits: str) -> tuple[str, ...]:
        folder = plans.manifests(tmp_path / limits, bottle=f"limits: {limits}\n")
        [bottle] = [step for step in steps.table(plans.plan(folder, Run(terminal=True))).setup if step.name == "bottle"]
        return bottle.argv

    flags = {"--pids-limit", "--memory", "--memory-swap", "--cpu-period", "--cpu-quota"}
    assert flags <= set(argv("{}"))
    assert flags.isdisjoint(argv("{cpus: none, memory: none, pids: none}"))
    assert flags.difference(argv("{memory: none}")) == {"--memory", "--memory-swap"}
