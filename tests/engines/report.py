"""The table of engines in docs/platforms.md. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

FIRST, LAST = "<!-- The table is written by `make matrix`. -->", "<!-- End of the table. -->"
HEADING = "## Engines"
COLUMNS = (
    *("engine", "docker", "client", "git", "OpenSSH", "Python", "tests", "leak battery", "fault matrix", "receipt"),
    *("minutes", "run"),
)


@dataclass(frozen=True)
class Row:
    """What came of one engine; `run` is the day and the commit, `summary` the last line of pytest's."""

    name: str
    versions: tuple[str, ...]
    checks: str
    counts: tuple[str, str, str]
    """Of all tests, of the battery, of the fault matrix."""
    minutes: int
    run: str
    passed: bool
    summary: str

    def __str__(self) -> str:
        """Return the row as one of a table in Markdown."""
        cells = (f"`{self.name}`", *self.versions, *self.counts, self.checks, str(self.minutes), self.run)
        return f"| {' | '.join(cells)} |"


def counts(lines: Sequence[str], alone: Sequence[str] = ()) -> tuple[str, str, str]:
    """Read pytest's output, and that of the second run of what failed, if there was one."""
    tests = re.sub(r" in .*|=", "", summary(lines)).strip()
    flaky = sum(line.startswith("flaky: ") for line in alone)
    attacks = _found(r"leak battery: (\d+ attacks, \d+ leaks?(?:; \d+ DID NOT RUN)?).*", lines)
    cases = _found(r"(\d+) cases, (\d+) ended with the right code and left nothing", lines)
    return (
        f"{tests}; {flaky} of these passed alone" if flaky else tests,
        attacks[1] if attacks else "not run",
        f"{cases[2]} of {cases[1]}" if cases else "not run",
    )


def summary(lines: Sequence[str]) -> str:
    """Return the last line of pytest's summary."""
    found = _found(r"=* ?\d+ .+ in [\d.]+s.*", lines)
    return found[0] if found else "no summary"


def updated(page: str, rows: Sequence[Row], order: Sequence[str]) -> str:
    """Return the page with these rows in its table; the rows of other engines stay, a page without a table gets one."""
    before, found, rest = page.partition(f"{FIRST}\n")
    if not found:
        before, rest = page.rstrip() + f"\n\n{HEADING}\n\n", f"{LAST}\n"
    table, _, after = rest.partition(f"{LAST}\n")
    kept = {match[1]: match[0] for match in re.finditer(r"^\| `([^`]+)`.*$", table, re.MULTILINE)}
    kept |= {row.name: str(row) for row in rows}
    lines = [kept[name] for name in order if name in kept]
    head = (f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}")
    return "\n".join((f"{before}{FIRST}", *head, *lines, f"{LAST}\n{after}")).lstrip()


def _found(pattern: str, lines: Sequence[str]) -> re.Match[str] | None:
    """Return the match of the last line that matches as a whole."""
    return next((match for line in reversed(lines) if (match := re.fullmatch(pattern, line))), None)
