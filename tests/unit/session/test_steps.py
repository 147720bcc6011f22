"""The docker commands of a session, held by golden files."""

import io
import tarfile
from pathlib import Path

import pytest

from claude_bottle.bottle.plan import Plan, Run
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
    plan = plans.plan(plans.everything(tmp_path), run, egress=plans.CHOSEN, HOST_KEY="planted")
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
    assert plan.session == f"{session}-0a1b2c3d"
    golden.same(f"odd-name-{session[:10]}", _changed(plan, ("network", "sidecar-connect", "bottle")))


def test_print(tmp_path: Path) -> None:
    plan = plans.plan(plans.manifests(tmp_path), Run(terminal=False, question="-p is no option here\n\n"))
    golden.same("print", _changed(plan, ("claude",)))
    with tarfile.open(fileobj=io.BytesIO(plan.home)) as tar:
        prompt = tar.extractfile(".claude-bottle/prompt")
        assert prompt is not None
        assert prompt.read() == b"-p is no option here\n\n"


def test_every_step_that_makes_something_of_the_session_undoes_it(tmp_path: Path) -> None:
    made = [step for step in steps.table(plans.plan(plans.manifests(tmp_path), TERMINAL)) if "--label" in step.argv]
    owned = [step for step in made if any("claude-bottle.session=" in word for word in step.argv)]
    assert [step.name for step in owned if not step.undo] == []
    assert {"network", "sidecar", "bottle", "lock", "gate"} <= {step.name for step in owned}


def test_needs_name_steps_that_come_before(tmp_path: Path) -> None:
    seen: set[str] = set()
    for step in steps.table(plans.plan(plans.everything(tmp_path), TERMINAL, HOST_KEY="x")):
        assert seen.issuperset(step.needs), step.name
        seen.add(step.name)


def test_a_repository(tmp_path: Path) -> None:
    plan = plans.with_repository(plans.plan(plans.manifests(tmp_path), TERMINAL))
    assert "clone" in _step(plan, "selftest").stdin_after
    shown = preflight.command(_step(plan, "clone"))
    golden.same("repository", f"{preflight.summary(plan, '')}{_changed(plan, ('bottle', 'clone', 'claude'))}{shown}")
