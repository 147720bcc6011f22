"""Additions to a list of a YAML text that leave all else of it as it was."""

import pytest

from claude_bottle.documents.yaml_edit import with_items

PLACE = ("egress", "allow")
NEW = ["new.org", "*.w.org"]
ADDED = 'new.org, "*.w.org"'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f"egress:\n  allow: [{ADDED}]\n"),
        ("# nothing yet", f"# nothing yet\negress:\n  allow: [{ADDED}]\n"),
        ("env:\n  A: b # x", f"env:\n  A: b # x\negress:\n  allow: [{ADDED}]\n"),
        ("egress: # none\nenv: {}\n", f"egress: {{allow: [{ADDED}]}} # none\nenv: {{}}\n"),
        ("egress: {}\n", f"egress: {{allow: [{ADDED}]}}\n"),
        ("egress:\n  allow: # none\nenv: {}\n", f"egress:\n  allow: [{ADDED}] # none\nenv: {{}}\n"),
        ("egress: {allow: []}\n", f"egress: {{allow: [{ADDED}]}}\n"),
        ("egress: {allow: [a.b, 'c.d']} # why\n", f"egress: {{allow: [a.b, 'c.d', {ADDED}]}} # why\n"),
        ("egress:\n  allow: [a.b,  # one\n    c.d,  # two\n  ]\n",
         f"egress:\n  allow: [a.b,  # one\n    c.d, {ADDED},  # two\n  ]\n"),
        ("egress:\n  allow:\n    - a.b  # one\n    # two\n    -   c.d   # three\n\n# tail\nenv:   {}\n",
         ("egress:\n  allow:\n    - a.b  # one\n    # two\n    -   c.d   # three\n"
         '    - new.org\n    - "*.w.org"\n\n# tail\nenv:   {}\n')),
        ("egress:\r\n  allow:\r\n  - a.b\r\n", 'egress:\r\n  allow:\r\n  - a.b\r\n  - new.org\r\n  - "*.w.org"\r\n'),
        ("egress:\n  allow:\n  - a.b", 'egress:\n  allow:\n  - a.b\n  - new.org\n  - "*.w.org"\n'),
        ("{env: {A: b}}\n", f"{{env: {{A: b}}, egress: {{allow: [{ADDED}]}}}}\n"),
        ("---\negress:\n  allow: [é.b]\n...\n", f"---\negress:\n  allow: [é.b, {ADDED}]\n...\n"),
    ],
)  # fmt: skip
def test_items_are_added_and_nothing_else_changes(before: str, after: str) -> None:
    assert with_items(before, PLACE, NEW) == after


@pytest.mark.parametrize(
    "before",
    [
        "egress: null\n",
        "egress: [x]\n",
        "egress:\n  allow: a.b\n",
        "egress:\n  allow: &list\n  - a.b\nenv: *list\n",
        "egress:\n  allow:\n  - &one a.b\n  - *one\n",
        "env: {}\n...\n",
        "env:\n  A: |\n    no line's end",
        "- a list\n",
        "egress: [\n",
    ],
)
def test_what_would_mean_something_else_is_refused(before: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        with_items(before, PLACE, NEW)


def test_text_that_yaml_would_take_for_a_number_stays_text() -> None:
    assert with_items("egress: {allow: []}\n", PLACE, ["1.e5"]) == 'egress: {allow: ["1.e5"]}\n'
