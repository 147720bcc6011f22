"""The documents: a short README, no dead links, every command and wing listed."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from claude_bottle.cli import main

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "tests" / "README.md"))
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))

LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"#{1,6} +(.+)")
COMMAND = re.compile(r"  ([a-z]+)(?: {2,}|$)")


def prose(text: str) -> Iterator[str]:
    """Yield the lines of a page outside fenced code."""
    fenced = False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield line


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    found: list[str] = []
    for line in prose(text):
        if match := HEADING.fullmatch(line):
            shown = LINK.sub("]", match[1]).lower()  # of a link, its text alone
            slug = re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")
            found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
    return set(found)


def broken(page: Path, text: str) -> list[str]:
    """Return the dead relative links of a page."""
    links = [link for line in prose(text) for link in LINK.findall(re.sub(r"`[^`]*`", "", line))]
    return [link for link in links if "://" not in link and not resolves(page, text, link)]


def resolves(page: Path, text: str, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    if not (target.exists() and target.resolve().is_relative_to(ROOT)):
        return False
    return not anchor or anchor in anchors(target.read_text(encoding="utf-8") if path else text)


def section(text: str, name: str) -> tuple[str, str]:
    """Return the text up to the heading of the section `name`, and the section itself."""
    before, found, rest = text.partition(f"\n## {name}\n")
    assert found, f"no section {name}"
    return before + found, rest.partition("\n## ")[0]


def test_the_readme_has_at_most_200_lines_to_the_end_of_its_commands() -> None:
    assert len("".join(section(README.read_text(encoding="utf-8"), "Commands")).splitlines()) <= 200


def test_the_readme_has_every_command() -> None:
    shown = CliRunner().invoke(main, ["--help"], terminal_width=80).output.partition("\nCommands:\n")[2]
    commands = {match[1] for match in map(COMMAND.match, shown.splitlines()) if match}
    table = section(README.read_text(encoding="utf-8"), "Commands")[1]
    listed = set(re.findall(r"^\| `\./cli\.py ([a-z]+)", table, re.MULTILINE))
    assert {"start", "completion"} <= commands == listed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_is_dead(page: Path) -> None:
    assert broken(page, page.read_text(encoding="utf-8")) == []


def test_dead_links_are_found() -> None:
    text = (
        "# One `two`, three\n## Same\n## Same\n```\n[no](link)\n# No heading\n```\n[a](#one-two-three) [b](#same-1) "
        "[c](README.md#commands) ![d](https://example.org/) `[e](f)`\n"
        "[g](#no-heading) [h](absent.md) [i](README.md#absent) [j](#same-2) ![k](absent.svg) [l](../)\n"
    )
    assert broken(README, text) == ["#no-heading", "absent.md", "README.md#absent", "#same-2", "absent.svg", "../"]


def test_every_page_is_reachable_from_the_readme() -> None:
    seen, ahead = set[Path](), [README]
    while ahead:
        page = ahead.pop()
        seen.add(page)
        links = LINK.findall("\n".join(prose(page.read_text(encoding="utf-8"))))
        targets = {(page.parent / link.partition("#")[0]).resolve() for link in links if "://" not in link}
        ahead += [target for target in targets - seen if target.suffix == ".md" and target.is_file()]
    assert set(PAGES) <= seen


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_fits_on_a_page(page: Path) -> None:
    assert len(page.read_text(encoding="utf-8").splitlines()) <= 40


def test_the_map_has_every_wing() -> None:
    wings = {path.parent.name for path in (ROOT / "claude_bottle").glob("*/__init__.py")}
    page = section((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), "The map of the house")[1]
    assert wings <= set(re.findall(r"`([a-z]+)/`", page))
