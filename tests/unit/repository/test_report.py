"""The summary of fetched work."""

import pytest

from claude_bottle.repository import report
from tests.support.repos import Ground


def test_control_characters_in_names_messages_and_authors_are_escaped(ground: Ground) -> None:
    bottle = ground.uncork()
    for number in range(30):
        (ground.genie.path / f"\x1b]0;{number}\a\u202e").write_text("1")
    (ground.genie.path / "-\nMakefile").mkdir()
    (ground.genie.path / "-\nMakefile" / "Makefile").write_text("1")
    ground.genie.git("config", "user.name", "\x1b[2Jname")
    for number in range(30):
        ground.genie.commit(f"\x1b[31m{number} {'x' * 1000}\r\x9b1A")
    told = ground.fetch(bottle)  # which asserts that each character is printable
    about = told.partition("  look  ")[0].splitlines()[1:]
    assert len(about) <= 20
    assert max(map(len, about)) < 200
    assert "... and 21 more" in told
    assert "31 files changed" in told
    assert "\\nMakefile/Makefile\n" in told.partition("beware")[2]


def test_links_that_lead_out_are_named(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_TARGET", 100)
    bottle = ground.uncork()
    out = {
        "absolute": "/etc/passwd", "above": "../x", "a/above": "../../x", "a/b/down-and-up": "c/../../../..",
        "twice": "a/back/../..", "config": ".git/config", "other-case": ".GIT", "a/config": "../module/.git/config",
        "endless": "x" * 101, "up": "..",
    }  # fmt: skip
    within = {"here": "file", "self": ".", "a/back": "../file", "a/b/root": "../..", "late": "a/..b/.gitignore"}
    for path, target in (out | within).items():
        (ground.genie.path / path).parent.mkdir(parents=True, exist_ok=True)
        (ground.genie.path / path).symlink_to(target)
    told = ground.fetch(bottle)
    named = told.partition("beware  links that lead out of the repository, or into its .git:\n")[2]
    assert {line.strip() for line in named.splitlines()} == set(out)


def test_links_beyond_the_limit_are_named(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_LINKS", 1)
    bottle = ground.uncork()
    for target in ("file", "changed"):
        (ground.genie.path / f"to-{target}").symlink_to(target)
    assert ground.fetch(bottle).partition("beware")[2].count("\n        to-") == 1
