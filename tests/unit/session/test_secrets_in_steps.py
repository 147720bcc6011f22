"""Where the token and the values of credentials are in the steps of a session: on one stdin, and nowhere else."""

import base64
from dataclasses import replace
from pathlib import Path

import pytest

from claude_bottle.bottle.plan import Plan, Run
from claude_bottle.selftest import receipt
from claude_bottle.session import planning, steps
from claude_bottle.session.steps import Step
from tests.support import plans
from tests.support.plans import TOKEN

KEY = "planted-key"
VALUES = {"CLAUDE_BOTTLE_OAUTH_TOKEN": TOKEN, "HOST_KEY": KEY}
CODED = base64.b64encode(f"ada:{KEY}".encode()).decode()
SECRETS = tuple(form.encode() for form in (TOKEN, KEY, CODED, base64.b64encode(TOKEN.encode()).decode()))


def given(step: Step) -> bytes:
    """Return all that a step's client gets on its stdin."""
    quote = (step.quote.before + step.quote.after).encode() if step.quote else b""
    feed = b"\0".join((*map(str.encode, step.stdin_from.argv), step.stdin_from.stdin)) if step.stdin_from else b""
    return b"\0".join((step.stdin, quote, feed))


def said(step: Step) -> bytes:
    """Return all words of a step's commands, and the names of its variables."""
    return "\0".join((*step.argv, *step.undo, *step.skip_if, *step.env)).encode(errors="surrogateescape")


def kinds(folder: Path) -> dict[str, Plan]:
    """Return plans of sessions of every kind."""
    default, everything = plans.manifests(folder / "default"), plans.everything(folder / "everything")
    whole = plans.plan(everything, Run(terminal=True, arguments=("--model", "x")), egress=None, **VALUES)
    return {
        "default": plans.plan(default, Run(terminal=True), egress=None, **VALUES),
        "print": plans.plan(default, Run(terminal=False, question="Why?"), egress=None, **VALUES),
        "everything": whole,
        "chosen network": plans.plan(everything, Run(terminal=True), egress=plans.CHOSEN, **VALUES),
        "repository": plans.with_repository(whole),
        "remote": replace(whole, remote=True),
    }


@pytest.mark.parametrize("kind", ["default", "print", "everything", "chosen network", "repository", "remote"])
def test_the_gates_stdin_alone_has_the_secrets(tmp_path: Path, kind: str) -> None:
    plan = kinds(tmp_path)[kind]
    wanted = {TOKEN.encode()} if kind in ("default", "print") else {TOKEN.encode(), KEY.encode(), CODED.encode()}
    found = {(step.name, secret) for step in steps.table(plan) for secret in SECRETS if secret in given(step)}
    assert found == {("gate", secret) for secret in wanted}
    assert [(step.name, secret) for step in steps.table(plan) for secret in SECRETS if secret in said(step)] == []


def test_a_client_gets_no_more_than_claudes_variables(tmp_path: Path) -> None:
    """Those that the manifest gives the agent under `env:`, from the host, and what is passed on of the terminal."""
    plan = kinds(tmp_path)["everything"]
    assert {step.name: set(step.env) for step in steps.table(plan) if step.env} == {"claude": {"TERM", "API_KEY"}}


def test_no_client_has_the_token() -> None:
    env = planning.client_environment(plans.machine(**VALUES))
    assert TOKEN not in "".join(f"{name}={value}" for name, value in env.items())


def test_what_the_bottle_gets_of_the_search_is_a_key_alone(tmp_path: Path) -> None:
    plan = kinds(tmp_path)["everything"]
    program = receipt.search_program(plan) + b"".join(map(str.encode, map(str, receipt.probe_input(plan, plan.known))))
    assert plan.signing.key.encode() in program
    assert [text for text in (plan.signing.token, *plan.signing.digests.values()) if text.encode() in program] == []
