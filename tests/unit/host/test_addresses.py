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
    assert addresses.read(local=True).host == ("172.17.0.1", "192.168.7.9")
    (tmp_path / "if_inet6").write_text(INET6)
    assert addresses.read(local=True).host == ("172.17.0.1", "192.168.7.9", "fe80::42:8fff:fea3:a357")
    assert addresses.read(local=False) == Addresses(why="the engine is not on this host")
    (tmp_path / "fib_trie").unlink()
    assert addresses.read(local=True).why.startswith("this system does not list its addresses")
