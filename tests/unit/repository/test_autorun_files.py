"""Recognizing files that would run automatically on the host."""

from claude_bottle.repository.autorun_files import runs_by_itself
from tests.support.repos import Ground


def test_files_that_run_automatically_are_named(ground: Ground) -> None:
    bottle = ground.uncork()
    yes = (
        ".github/workflows/a.yml", ".vscode/tasks.json", ".envrc", "sub/Makefile", "web/package.json", ".githooks/x",
        "tools/hooks/pre-commit", ".claude/settings.json", ".CLAUDE/x", ".gitattributes", "a.MK", "bare/HEAD",
    )  # fmt: skip
    no = ("src/hooks/use.ts", "make", ".github/README.md", "doc/envrc", "workflows/a.yml")
    for name in (*yes, *no):
        path = ground.genie.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    named = ground.fetch(bottle).partition("beware")[2].splitlines()[1:]
    assert {line.strip() for line in named} == set(yes)
    assert [name for name in no if runs_by_itself(name)] == []
