"""The table of `make matrix`, from what pytest prints."""

from tests.engines import report
from tests.engines.report import Row

ORDER = ("bookworm", "trixie", "sid")
PRINTED = """\
........................................................................ [100%]
leak battery: 292 attacks, 0 leaks; 280 detectors fired in the anti-test; 0 more are as open as docs/security.md says
================================= fault matrix =================================
186 cases, 185 ended with the right code and left nothing
=========================== short test summary info ============================
FAILED tests/unit/test_a.py::test_b
================== 1 failed, 4404 passed in 1479.24s (0:24:39) ==================
""".splitlines()
ALONE = ["flaky: failed at first, passed alone: tests/unit/test_a.py::test_b", "====== 1 passed in 0.21s ======"]


def row(name: str, tests: str = "9 passed") -> Row:
    versions = ("26.1.5", "26.1.5", "2.47.3", "10.0p2", "3.13.5")
    return Row(name, versions, "24 passed", (tests, "1 attacks, 0 leaks", "2 of 2"), 17, "2026-01-02, abc", True, "")


def table(page: str) -> list[str]:
    return [line.split(" | ")[0] + " " + line.split(" | ")[6] for line in page.splitlines() if line.startswith("| `")]


def test_the_counts_are_what_pytest_printed() -> None:
    assert report.counts(PRINTED) == ("1 failed, 4404 passed", "292 attacks, 0 leaks", "185 of 186")
    assert report.counts(PRINTED, ALONE)[0] == "1 failed, 4404 passed; 1 of these passed alone"
    assert report.summary(ALONE) == ALONE[-1]


def test_what_was_not_run_is_not_passed() -> None:
    assert report.counts(["ERROR: file or directory not found"]) == ("no summary", "not run", "not run")


def test_a_page_without_a_table_gets_one() -> None:
    page = report.updated("# Platforms\n\nText.\n", [row("trixie")], ORDER)
    assert page.startswith("# Platforms\n\nText.\n\n## Engines\n")
    assert table(page) == ["| `trixie` 9 passed"]


def test_rows_that_were_not_run_stay_and_so_does_the_text_around() -> None:
    page = report.updated("# Platforms\n", [row("sid"), row("trixie")], ORDER) + "\n## Rootless\n\nMore.\n"
    page = report.updated(page.replace("## Engines\n", "## Engines\n\nWhy."), [row("trixie", "8 passed")], ORDER)
    page = report.updated(page, [row("bookworm")], ORDER)
    assert table(page) == ["| `bookworm` 9 passed", "| `trixie` 8 passed", "| `sid` 9 passed"]
    assert "## Engines\n\nWhy." in page
    assert page.endswith(f"{report.LAST}\n\n## Rootless\n\nMore.\n")
    assert page.count(report.FIRST) == page.count("| docker |") == 1
