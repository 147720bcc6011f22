"""The addresses of a session, and what a plan keeps to itself."""

from ipaddress import IPv4Network
from itertools import islice
from pathlib import Path

import pytest

from claude_bottle.bottle import plan as planning
from claude_bottle.bottle.plan import Run
from claude_bottle.errors import ManifestError
from claude_bottle.process import engine
from claude_bottle.session import start, steps
from tests.support import keys, plans


@pytest.mark.parametrize(("text", "kept"), [("10.9.0.0/19", "10.9.16.0/20"), ("10.8.0.0/15", "10.9.240.0/20")])
def test_every_subnet_is_a_candidate_once_but_those_of_the_shared_network(text: str, kept: str) -> None:
    addresses = IPv4Network(text)
    found = list(planning.candidates(addresses, 2**32 - 1))
    assert len(set(found)) == len(found) == (addresses.num_addresses - 4096) // 8
    assert all(each.prefixlen == 29 and each.subnet_of(addresses) for each in found)
    assert not any(each.subnet_of(IPv4Network(kept)) for each in found)


def test_a_range_of_one_subnet_is_enough_beside_a_chosen_network() -> None:
    addresses = planning.address_range(
        plans.machine(CLAUDE_BOTTLE_SUBNET="10.9.0.8/29", CLAUDE_BOTTLE_EGRESS_NETWORK="vpn")
    )
    assert list(planning.candidates(addresses, 7)) == [IPv4Network("10.9.0.8/29")]


@pytest.mark.parametrize(
    ("subnet", "network", "reason"),
    [
        ("10.9.0.0/20", "", "10.9.0.0/20 is too small; it takes a /19 or larger"),
        ("10.9.0.0/20", engine.EGRESS, "10.9.0.0/20 is too small; it takes a /19 or larger"),
        ("10.9.0.0/30", "vpn", "10.9.0.0/30 is too small; it takes a /29 or larger"),
        ("10.9.0.1/16", "", "10.9.0.1/16 has host bits set; it takes an IPv4 range such as 10.213.0.0/16"),
        ("fd00::/64", "", "Expected 4 octets in 'fd00::'"),
        ("ten", "", "Expected 4 octets in 'ten'"),
    ],
)
def test_a_range_that_cannot_be_used_is_told(subnet: str, network: str, reason: str) -> None:
    host = plans.machine(CLAUDE_BOTTLE_SUBNET=subnet, CLAUDE_BOTTLE_EGRESS_NETWORK=network)
    with pytest.raises(ManifestError) as caught:
        planning.address_range(host)
    assert str(caught.value).startswith(f"CLAUDE_BOTTLE_SUBNET: {reason}")


def test_nothing_shows_a_secret_in_its_repr(tmp_path: Path) -> None:
    machine = plans.machine(CLAUDE_BOTTLE_OAUTH_TOKEN="planted", HOST_KEY="planted")
    plan = plans.plan(plans.everything(tmp_path), Run(terminal=True), HOST_KEY="planted")
    options = start.Options(plan.run)
    shown = repr((machine, plan, steps.table(plan), options))
    assert "planted" not in shown
    assert [line for line in keys.private("plain").splitlines() if line in shown] == []
    assert planning.environment(machine, plan.agent) == {"API_KEY": "planted"}


def test_no_two_sessions_share_an_address_by_their_ids(tmp_path: Path) -> None:
    plan = plans.plan(plans.manifests(tmp_path), Run(terminal=True))
    neighbours = islice(planning.candidates(plan.range, int("0a1b2c3d", 16)), 2)
    assert next(neighbours) == plan.addresses
    assert not plan.addresses.overlaps(next(neighbours))
