"""The keys of hosts, found in known_hosts."""

import pytest

from claude_bottle.manifest import known_hosts
from tests.support import keys
from tests.support.keys import HASHED, KEY


def test_known_hosts_are_found_as_ssh_finds_them() -> None:
    a, b, c, d = (keys.public(name) for name in "abcd")
    text = f"""\
# git.example.org {d}
git.example.org,192.0.2.1 {a} comment
*.example.org,!no.example.org {b}
[git.example.org]:2222 {c}
@cert-authority *.example.org {c}
@revoked g?t.example.org {d}
git.example.org ssh-ed25519 damaged
git.example.org
|1|x|y {d}
|1| {d}
"""
    assert known_hosts.find(text, "git.example.org") == (a, b, f"@cert-authority {c}", f"@revoked {d}")
    assert known_hosts.find(text, "[git.example.org]:2222") == (c,)
    assert known_hosts.find(text, "no.example.org") == (f"@cert-authority {c}",)
    assert known_hosts.find(text, "example.org") == ()
    for wanted in ("git.example.com", "[git.example.com]:2222"):
        assert known_hosts.find(HASHED, wanted) == (KEY,)
    assert known_hosts.find(HASHED, "other.example.com") == ()


@pytest.mark.parametrize("pattern", ["*a" * 2000 + "b", "?*" * 2000 + "b", "[a]*" * 500])
def test_a_pattern_that_is_all_stars_takes_no_time(pattern: str) -> None:
    """Tried by backtracking, the first would outlast the sun."""
    wanted = "a" * 250
    assert known_hosts.find(f"{pattern} {KEY}\n", wanted) == ()
    assert known_hosts.find(f"{'*a' * 100}*,x {KEY}\n", wanted) == (KEY,)
