"""Which files of private keys can be used, and what is said of the others."""

from pathlib import Path

import pytest

from claude_bottle.manifest import private_key
from tests.support import keys
from tests.support.keys import ELSEWHERE, SUPPORTED


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            keys.private(kind="sk-ssh-ed25519@openssh.com"),
            "is a key of a hardware token (sk-ssh-ed25519@openssh.com): ",
        ),
        (keys.public() + " me@here\n", f"is a public key: {ELSEWHERE}"),
        ("PuTTY-User-Key-File-3: ssh-ed25519\n", "is a key of PuTTY's: convert it with `puttygen -O private-openssh`"),
        ("hello\n", f"is no private key; {SUPPORTED}"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", "is damaged; "),
        (keys.private()[:120] + "\n-----END OPENSSH PRIVATE KEY-----\n", "is damaged; "),
        ("", "is no private key; "),
    ],
)
def test_what_is_no_usable_key_is_told(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(ValueError, match=r"\A\S") as raised:
        private_key.read(tmp_path / "key")
    assert str(raised.value).startswith(reason)


def test_of_a_key_in_an_agent_there_is_only_the_public_half(tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text(keys.public())
    with pytest.raises(ValueError, match="and only its public half is there: a key that lives only in an ssh-agent"):
        private_key.read(tmp_path / "key")


@pytest.mark.parametrize(
    ("head", "encrypted"),
    [
        ("RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n", True),
        ("ENCRYPTED PRIVATE KEY-----\n", True),
        ("EC PRIVATE KEY-----\n", False),
        ("PRIVATE KEY-----\n", False),
    ],
)
def test_keys_of_openssl_tell_whether_they_are_encrypted(tmp_path: Path, head: str, *, encrypted: bool) -> None:
    path = tmp_path / "key"
    path.write_text(f"-----BEGIN {head}AAAA\n-----END {head.partition('-')[0]}-----\n")
    (tmp_path / "key.pub").write_text(f"{keys.public('half')} comment\n")
    assert private_key.read(path) == private_key.KeyFile(path, keys.public("half"), encrypted)
    (tmp_path / "key.pub").unlink()
    with pytest.raises(ValueError, match=f"^needs its public half beside it: `ssh-keygen -y -f {path} > {path}.pub`$"):
        private_key.read(path)
