"""The receipt: which answers count, and that none is a failure."""

import json

import pytest

from claude_bottle.bottle.plan import Plan
from claude_bottle.host.addresses import Addresses
from claude_bottle.selftest import receipt as selftest
from claude_bottle.selftest.evidence import Seen
from claude_bottle.selftest.receipt import Verdict
from tests.support.receipts import KNOWN, LISTED, SEARCH, answers, judged, shown


def test_a_good_bottle_passes_in_one_line(plan: Plan) -> None:
    receipt = judged(plan, answers(plan), shown(plan))
    assert receipt.line() == "isolation  31 checks passed in 0.3 s"
    assert len(receipt.lines()) == 31
    assert receipt.failed == ()
    data = receipt.as_json()
    assert (data["passed"], data["seconds"]) == (True, 0.31)
    assert json.dumps(data).count('"verdict": "passed"') == 31


@pytest.mark.parametrize("text", [b"", b"\xff", b"null", b"[]", b"{}", b"[1, null]", b'{"tcp": 3, "processes": []}'])
def test_nothing_and_garbage_fail_every_check(plan: Plan, text: bytes) -> None:
    receipt = selftest.judge(plan, KNOWN, Seen(text, text, text, text), 0.0)
    assert [check.verdict for check in receipt.checks] == [Verdict.FAILED] * 31
    assert all(check.detail.startswith("did not run") for check in receipt.checks)


def test_half_of_the_answers_is_none(plan: Plan) -> None:
    probe_said, inspected, home = (json.dumps(text).encode() for text in (answers(plan), shown(plan), SEARCH))

    def failed(probe: bytes, inspect: bytes, listed: bytes) -> set[str]:
        return {check.name for check in selftest.judge(plan, KNOWN, Seen(probe, inspect, listed, home), 0).failed}

    without_probe = failed(probe_said[:-9], inspected, LISTED)
    without_inspect = failed(probe_said, inspected[:-9], LISTED)
    assert len(without_probe | without_inspect) == 31
    both = {"secrets", "user", "guard", "credential-proxy", "mounts", "privileges", "environment", "network"}
    assert without_probe & without_inspect == both
    assert failed(probe_said, inspected, b"") == set()  # a warning, see test_userland_checks
    assert failed(probe_said, inspected, LISTED[: LISTED.rindex(b"4799")]) == {"guard"}


@pytest.mark.parametrize(
    "key",
    [
        "resolved",
        "health",
        "refused",
        "allowed",
        "signed",
        "authority",
        "limits",
        "core",
        "mounts",
        "devices",
        "namespaces",
        "addresses",
        "tokens",
        "tcp",
        "udp",
        "dns",
        "ipv6",
        "processes",
        "sockets",
        "shell",
        "userland",
    ],
)
def test_an_answer_that_is_missing_is_a_failure(plan: Plan, key: str) -> None:
    said = answers(plan)
    del said[key]
    failed = judged(plan, said, shown(plan)).failed
    assert failed
    assert all(check.detail.startswith("did not run") for check in failed)


def test_what_cannot_apply_says_why(plan: Plan) -> None:
    receipt = judged(plan, answers(plan), shown(plan), Addresses(why="the engine is not on this host"))
    assert receipt.line() == "isolation  29 checks passed in 0.3 s, 2 not applicable"
    moot = [check for check in receipt.checks if check.verdict is Verdict.NOT_APPLICABLE]
    assert [check.name for check in moot] == ["docker0", "host"]
    assert {check.detail for check in moot} == {"the engine is not on this host"}
