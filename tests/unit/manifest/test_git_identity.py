"""Who commits: the manifest's name and address, or else the host's."""

from pathlib import Path

import pytest

from claude_bottle.manifest import git_identity
from claude_bottle.manifest.git_identity import Identity


def test_git_identity_is_the_manifests_else_the_hosts() -> None:
    host = git_identity.parsed(b'user.name\nFirst\0user.email\na@example.org\0user.name\nAda "L" \\\xc3\xa9\0')
    assert host == Identity('Ada "L" \\é', "a@example.org")
    assert Identity(email="b@example.org").completed(host) == Identity('Ada "L" \\é', "b@example.org")
    assert host.config().decode() == '[user]\n\tname = "Ada \\"L\\" \\\\é"\n\temail = "a@example.org"\n'
    assert (git_identity.parsed(b""), Identity().config(), str(Identity())) == (Identity(), b"", "")
    assert git_identity.parsed(b"user.name\nx\x1b[2J\0user.email\n\0") == Identity()
    assert str(Identity(email="a@example.org")) == "<a@example.org>"


def test_the_host_is_asked_for_its_own_settings_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for those of the current directory, nor where there is no git."""
    program = tmp_path / "git"
    program.write_text(
        f'#!/bin/sh\necho "$*" > {tmp_path}/asked\nprintf "user.name\\nHost\\0user.email\\nh@example.org\\0"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    assert git_identity.completed_by_host(Identity("Own", "o@example.org"), environ) == Identity("Own", "o@example.org")
    assert not (tmp_path / "asked").exists()
    assert git_identity.completed_by_host(Identity("Own"), environ) == Identity("Own", "h@example.org")
    assert "--global --includes" in (tmp_path / "asked").read_text()
    program.write_text("#!/bin/sh\nexit 1\n")
    assert git_identity.completed_by_host(Identity(), environ) == Identity()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert git_identity.completed_by_host(Identity(), {"PATH": str(tmp_path / "empty")}) == Identity()
