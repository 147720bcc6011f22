"""No attack of the battery arrives, every one of its detectors is seen to work, and the page on security says so."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.isolation.evidence import Evidence
from tests.isolation.places import NOWHERE
from tests.isolation.rows import ARRIVES, ATTACKS, ENGINE_23, ENGINE_25, ROWS, Row, markdown
from tests.world import REPOSITORY
from tests.world.shell import run

pytestmark = pytest.mark.xdist_group("battery")

SINCE = {ENGINE_23: 23, ENGINE_25: 25}


@pytest.mark.parametrize("row", [row for row in ATTACKS if row.by not in SINCE], ids=lambda row: row.name)
def test_attack(evidence: Evidence, row: Row) -> None:
    assert not evidence.arrived(row, "bottle"), f"LEAK: {row.name} arrived at {row.receiver}"


@pytest.mark.parametrize("row", [row for row in ATTACKS if row.by in SINCE], ids=lambda row: row.name)
def test_limit_is_what_the_page_on_security_says(
    evidence: Evidence, row: Row, record_property: Callable[[str, object], None]
) -> None:
    version = run("docker", "version", "--format", "{{.Server.Version}}").strip()
    arrived = evidence.arrived(row, "bottle")
    record_property("limit", (version, arrived))  # for the summary
    assert arrived == (int(version.split(".")[0]) < SINCE[row.by])


@pytest.mark.parametrize("row", ATTACKS, ids=lambda row: row.name)
def test_detector(evidence: Evidence, row: Row) -> None:
    assert evidence.arrived(row, "anti-test"), f"{row.receiver} is blind to {row.name}"


@pytest.mark.parametrize("row", [row for row in ROWS if row.expected == ARRIVES], ids=lambda row: row.name)
def test_what_is_allowed_arrives(evidence: Evidence, row: Row) -> None:
    assert evidence.arrived(row, "bottle"), evidence.outputs[evidence.tokens["bottle"][row.name]]


def test_nothing_but_the_proxy_port_is_on_the_wire(evidence: Evidence) -> None:
    ours, theirs = evidence.frames["bottle"], evidence.frames["anti-test"]
    sidecar = [kind for kind in ours if kind.startswith("0800 6 ") and kind.endswith(" 8888")]
    assert len(sidecar) == 1
    assert [kind for kind in ours if not kind.startswith("0806 ")] == sidecar
    assert len(theirs) > 10


def test_next_session_is_untouched(evidence: Evidence) -> None:
    code, output = evidence.neighbour
    assert code == 0, output
    assert "well-battery-" in output


def test_session_ends_with_its_credential_proxy(evidence: Evidence) -> None:
    code, output = evidence.unsigned
    assert (code, output.splitlines()[-1:]) == (
        70, ["claude-bottle: the credential proxy has exited, which ended the session"],
    )  # fmt: skip


def test_port_ends_whose_relay_is_subverted_and_no_other(evidence: Evidence) -> None:
    said = "claude-bottle: the bottle sent what no relay sends, and the port is closed\n"
    assert (evidence.relayed, evidence.honest) == ((70, said), None)


def test_battery_is_what_it_says() -> None:
    assert len(ATTACKS) >= 60
    assert sum(row.genie for row in ATTACKS) >= 15
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", [row for row in ROWS if row.genie], ids=lambda row: row.name)
def test_what_the_genie_runs_is_known_before_its_bottle(row: Row) -> None:
    place = replace(NOWHERE, neighbour="a", neighbour_name="b")
    assert NOWHERE.gateway not in place.command(row.command, "cb")


def test_page_on_security_has_the_table() -> None:
    page = (REPOSITORY / "docs" / "security.md").read_text()
    assert markdown() in page
    assert f"{len(ATTACKS)} attacks" in page
