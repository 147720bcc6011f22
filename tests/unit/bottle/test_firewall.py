"""The lock's limits; the golden files of the steps show every rule, and the battery tries them."""

from pathlib import Path

from claude_bottle.bottle import firewall
from claude_bottle.bottle.plan import Run
from tests.support import plans


def test_new_connections_are_limited_before_the_sidecars_port_is_accepted(tmp_path: Path) -> None:
    plan = plans.plan(plans.manifests(tmp_path), Run(terminal=True))
    sidecar = f"ip daddr {plan.sidecar_address} tcp dport 8888 "
    lines = [line.strip() for line in firewall.lock(plan).decode().splitlines()]
    assert [line.removeprefix(sidecar) for line in lines if line.startswith(sidecar)] == [
        "ct state new limit rate over 200/second burst 400 packets reject with tcp reset",
        "ct state new ct count over 1000 reject with tcp reset",
        "accept",
    ]
