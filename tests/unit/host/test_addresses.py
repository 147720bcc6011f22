"""The addresses of this machine."""

from pathlib import Path

import pytest

from claude_bottle.host import addresses
from claude_bottle.host.addresses import Addresses

TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 127.0.0.1
        /32 host LOCAL
     |-- 172.17.0.0
        /16 link UNICAST
     |-- 172.17.0.1
        /24 link UNICAST
        /32 host LOCAL
     |-- 172.17.255.255
        /32 link BROADCAST
Local:
     |-- 172.17.0.1
        /32 host LOCAL
     |-- 192.168.7.9
        /32 host LOCAL
"""
INET6 = """\
fe8000000000000000428ffffea3a357 05 40 20 80  docker0
00000000000000000000000000000001 01 80 10 80       lo
"""


def test_addresses_come_from_the_kernels_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fib_trie").write_text(TRIE)
    monkeypatch.setattr(addresses, "_FIB_TRIE", tmp_path / "fib_trie")
    monkeypatch.setattr(addresses, "_IF_INET6", tmp_path / "if_inet6")
    assert addresses.read().host == ("172.17.0.1", "192.168.7.9")
    (tmp_path / "if_inet6").write_text(INET6)
    assert addresses.read().host == ("172.17.0.1", "192.168.7.9", "fe80::42:8fff:fea3:a357")
    (tmp_path / "fib_trie").unlink()
    assert addresses.read().why.startswith("this system does not list its addresses")


ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0107A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
eth0\t0007A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""


def test_the_addresses_of_another_host_come_from_what_it_lists() -> None:
    found = ("172.17.0.1", "192.168.7.9", "fe80::42:8fff:fea3:a357")
    assert addresses.parse(TRIE + ROUTES + INET6) == Addresses(found, docker0="172.17.0.1")
    assert addresses.parse(TRIE + ROUTES) == Addresses(found[:2], docker0="172.17.0.1")  # a kernel without IPv6
    without = "".join(line for line in ROUTES.splitlines(keepends=True) if "docker0" not in line)
    assert addresses.parse(TRIE + without + INET6) == Addresses(found)


@pytest.mark.parametrize("text", ["", "up\n", "docker0\tzz\n", "|-- x\n  /32 host LOCAL", "\0" * 100])
def test_what_lists_no_addresses_gives_none(text: str) -> None:
    assert addresses.parse(text) == Addresses()
