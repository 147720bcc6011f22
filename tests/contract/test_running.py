"""How the sidecar starts, what it writes, how it takes a new configuration, and how it stops."""

import hashlib

import pytest

from claude_bottle.egress import allowlist
from tests.contract.conftest import ALLOWED, TRUSTING
from tests.contract.rig import PORT, Rig, Sidecar, row, until
from tests.contract.wire import client_hello, reachable, read_exactly
from tests.world.shell import run

# The rows share their sidecars: on one worker.
pytestmark = pytest.mark.xdist_group("contract")

CONFIG = allowlist.config(ALLOWED)


# Starting


def test_starts_read_only_and_unprivileged_and_says_so(sidecar: Sidecar) -> None:
    started = sidecar.event(event="startup")
    assert (started["mode"], started["config_hash"]) == ("strict", hashlib.sha256(CONFIG).hexdigest())
    assert started["listen"] == f"{sidecar.inner}:{PORT}"


def test_listens_on_its_inner_address_alone(rig: Rig, sidecar: Sidecar) -> None:
    assert not sidecar.healthy()  # asks 127.0.0.1
    assert not reachable(sidecar.inner, 9091)
    assert rig.from_outside(sidecar).endswith("Connection refused")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        row("no file", None, "no such file"),
        row("an empty file", b"", "api_allowlist"),
        row("an unknown key", CONFIG + b"surprise: 1\n", "surprise not found"),
        row("an empty list", CONFIG.partition(b"api_allowlist:")[0] + b"api_allowlist: []\n", "api_allowlist"),
        row("broken YAML", CONFIG + b"x: [\n", "yaml"),
    ],
)
def test_refuses_to_start_with(rig: Rig, config: bytes | None, said: str) -> None:
    with rig.started("refusing", config) as sidecar:
        until(lambda: not sidecar.state()[0], "it has ended")
        assert sidecar.state()[1] == 1
        assert said in sidecar.remarks().lower()


# The log


def test_log_of_a_refusal(sidecar: Sidecar) -> None:
    sidecar.proxy.ask("CONNECT refused-for-the-log.test:444 HTTP/1.1")
    event = sidecar.event(event="blocked", target="refused-for-the-log.test:444")
    assert (event["method"], event["scanner"], event["level"]) == ("CONNECT", "allowlist", "warn")
    assert event["reason"] == "domain not in allowlist: refused-for-the-log.test"
    assert event["request_id"].startswith("req-")
    assert event["client_ip"] == sidecar.inner.rpartition(".")[0] + f".{int(sidecar.inner.rpartition('.')[2]) - 2}"


def test_log_of_a_tunnel(sidecar: Sidecar) -> None:
    before = len(sidecar.events(event="tunnel_close", target="allowed.test:22"))
    sidecar.proxy.exchange("allowed.test:22", b"hello")
    until(lambda: len(sidecar.events(event="tunnel_close", target="allowed.test:22")) > before, "the tunnel's end")
    closed = sidecar.events(event="tunnel_close", target="allowed.test:22")[-1]
    assert sidecar.event(event="tunnel_open", request_id=closed["request_id"])["target"] == "allowed.test:22"
    assert closed["total_bytes"] > 0
    assert closed["duration_ms"] > 0


def test_log_of_a_name_that_is_not_the_tunnels(sidecar: Sidecar) -> None:
    sidecar.proxy.exchange("one.wild.test:443", client_hello("two.wild.test"))
    event = sidecar.event(event="sni_mismatch", connect_host="one.wild.test", category="mismatch")
    assert event["sni_host"] == "two.wild.test"
    assert not sidecar.events(event="tunnel_open", request_id=event["request_id"])


def test_log_of_a_tunnel_in_which_nothing_was_said(sidecar: Sidecar) -> None:
    assert sidecar.proxy.exchange("wild.test:443") == b""
    assert sidecar.event(event="sni_mismatch", connect_host="wild.test")["category"] == "timeout"


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        row("a failed dial", "CONNECT allowed.test:82", {"event": "error", "target": "allowed.test:82"}),
        row("a missing name", "CONNECT missing.test:83",
            {"event": "blocked", "target": "missing.test:83", "scanner": "ssrf"}),
        row("a private name", "CONNECT private.test:84",
            {"event": "blocked", "target": "private.test:84", "scanner": "ssrf"}),
        row("plain http", "GET http://allowed.test:85/secret",
            {"event": "blocked", "url": "http://allowed.test:85/[redacted]", "scanner": "dlp"}),
        row("a name that breaks lines elsewhere", "CONNECT x\u2028x.test:86",
            {"event": "blocked", "target": "x\u2028x.test:86", "scanner": "allowlist"}),
    ],
)  # fmt: skip
def test_log_of(sidecar: Sidecar, line: str, fields: dict[str, object]) -> None:
    sidecar.proxy.ask(f"{line} HTTP/1.1")
    assert sidecar.event(**fields)["request_id"]


def test_no_refused_name_was_looked_up_and_nothing_plain_left(rig: Rig, sidecar: Sidecar) -> None:
    sidecar.proxy.exchange("allowed.test:443", b"x")
    sidecar.proxy.ask("CONNECT never-asked.test:443 HTTP/1.1")
    sidecar.proxy.ask("GET http://allowed.test/ HTTP/1.1")
    asked = {line.removeprefix("name ") for line in rig.seen() if line.startswith("name ")}
    assert {name for name in asked if name not in ALLOWED and not name.endswith("wild.test")} == set()
    assert "allowed.test" in asked
    assert {line for line in rig.seen() if line.startswith("tcp ")} <= {"tcp 22", "tcp 443"}


# A new configuration for a running sidecar


OLD_RULES = {"new.test": 403, "allowed.test": 200, "other.test": 403, "private.test": 403}


def statuses(sidecar: Sidecar) -> dict[str, int]:
    """Ask for the names that tell which rules are in force."""
    return {name: sidecar.proxy.ask(f"CONNECT {name}:443 HTTP/1.1").status for name in OLD_RULES}


def test_takes_a_new_list_and_leaves_open_tunnels_alone(reloaded: Sidecar) -> None:
    new = allowlist.config(["new.test", "*.wild.test"])
    assert statuses(reloaded) == OLD_RULES
    with reloaded.proxy.tunnel("allowed.test:443") as sock:
        sock.sendall(b"before")
        assert read_exactly(sock, 6) == b"before"
        reloaded.put(new)
        event = reloaded.event(event="config_reload", config_hash=hashlib.sha256(new).hexdigest())
        assert event["status"] == "success"
        assert statuses(reloaded) == {**OLD_RULES, "new.test": 200, "allowed.test": 403}
        sock.sendall(b"after")
        assert read_exactly(sock, 5) == b"after"
    reloaded.put(CONFIG)
    reloaded.event(event="config_reload", config_hash=hashlib.sha256(CONFIG).hexdigest())


@pytest.mark.parametrize(
    "config",
    [
        row("another mode", CONFIG.replace(b"mode: strict ", b"mode: balanced ")),
        row("an empty file", b""),
        row("broken YAML", CONFIG + b"x: [\n"),
        row("an unknown key", CONFIG + b"surprise: 1\n"),
        row("no proxy", CONFIG.replace(b"enabled: true ", b"enabled: false ")),
        row("a private name trusted", CONFIG + b"trusted_domains: [private.test]\n"),
    ],
)
def test_keeps_its_rules_when_given(reloaded: Sidecar, config: bytes) -> None:
    assert config != CONFIG

    def complaints() -> int:
        return len(reloaded.remarks()) + len(reloaded.events(method="CONFIG_RELOAD"))

    before, accepted = complaints(), len(reloaded.events(event="config_reload"))
    reloaded.put(config)
    until(lambda: complaints() > before, "a complaint")
    assert statuses(reloaded) == OLD_RULES
    assert len(reloaded.events(event="config_reload")) == accepted


def reaches(sidecar: Sidecar) -> dict[str, int]:
    """Ask for the names that tell which addresses are trusted."""
    names = ("pinned.test", "unlisted.test", "untrusted.test")
    return {name: sidecar.proxy.ask(f"CONNECT {name}:9091 HTTP/1.1").status for name in names}


def test_goes_on_trusting_when_given_a_new_list_with_the_same_trusted_names(trusting: Sidecar) -> None:
    new = TRUSTING.replace(b'- "allowed.test"', b'- "new.test"')
    assert new != TRUSTING
    before = {"pinned.test": 200, "unlisted.test": 403, "untrusted.test": 403}
    assert reaches(trusting) == before
    trusting.put(new)
    trusting.event(event="config_reload", config_hash=hashlib.sha256(new).hexdigest())
    assert reaches(trusting) == before
    assert trusting.proxy.ask("CONNECT new.test:443 HTTP/1.1").status == 200
    trusting.put(TRUSTING)
    trusting.event(event="config_reload", config_hash=hashlib.sha256(TRUSTING).hexdigest())


def test_trusts_no_more_names_than_at_its_start(trusting: Sidecar) -> None:
    before, accepted = reaches(trusting), len(trusting.events(event="config_reload"))
    errors = len(trusting.events(method="CONFIG_RELOAD"))
    trusting.put(TRUSTING.replace(b"[pinned.test, ", b"[pinned.test, untrusted.test, "))
    until(lambda: len(trusting.events(method="CONFIG_RELOAD")) > errors, "a complaint")
    assert reaches(trusting) == before
    assert len(trusting.events(event="config_reload")) == accepted


# The end


def test_stops_by_itself_with_tunnels_open(rig: Rig) -> None:
    ending = rig.sidecar(3, CONFIG)
    with ending.proxy.tunnel("allowed.test:443") as sock:
        sock.sendall(b"x")
        assert read_exactly(sock, 1) == b"x"
        run("docker", "stop", "--time", "30", ending.name)
    assert ending.state() == (False, 0)  # 137 where the engine had to kill it
    assert ending.event(event="shutdown")
