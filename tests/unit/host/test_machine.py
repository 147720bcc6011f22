"""What this machine says of the user's token."""

import pytest

from tests.support import plans


@pytest.mark.parametrize(
    ("token", "problem"),
    [
        ("'sk-ant-oat01-hunter2'", "has quotes around the token: leave them out"),
        ('"sk-ant-oat01-hunter2"', "has quotes around the token: leave them out"),
        ('sk-ant-oat01-hunter2"', "has quotes around the token: leave them out"),
        ("\u201csk-ant-oat01-hunter2\u201d", "has quotes around the token: leave them out"),
        ("sk-ant-oat01-hunter2\n", "contains white space or control characters: set it to the token alone"),
        (" sk-ant-oat01-hunter2", "contains white space or control characters: set it to the token alone"),
        ("sk-ant-oat01-\nhunter2", "contains white space or control characters: set it to the token alone"),
        ("sk-ant-oat01-\x1b[0mhunter2", "contains white space or control characters: set it to the token alone"),
        ("sk-ant-oat01-hunter2\xa0", "contains white space or control characters: set it to the token alone"),
        (
            "sk-ant-api03-hunter2",
            "is an API key, not a subscription's token: create one with `claude setup-token`",
        ),
        (
            "sk-ant-admin01-hunter2",
            "is an API key, not a subscription's token: create one with `claude setup-token`",
        ),
    ],
)
def test_a_token_that_cannot_work_is_named_and_not_shown(token: str, problem: str) -> None:
    found = plans.machine(CLAUDE_BOTTLE_OAUTH_TOKEN=token).token_problem
    assert found == f"CLAUDE_BOTTLE_OAUTH_TOKEN {problem}"
    assert "hunter2" not in found


@pytest.mark.parametrize("token", ["sk-ant-oat01-AbC_d-9AA", "planted-token", ""])
def test_any_other_token_is_left_to_the_api(token: str) -> None:
    assert plans.machine(CLAUDE_BOTTLE_OAUTH_TOKEN=token).token_problem is None
