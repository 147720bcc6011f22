"""SSH hosts: what a manifest may say of them, which keys can be used, and what ssh in the bottle is told."""

import base64
import io
import json
import tarfile
from pathlib import Path

import pytest

from claude_bottle.bottle.plan import Plan, Run
from claude_bottle.errors import ManifestError
from claude_bottle.manifest import agent, git_identity, known_hosts, private_key, ssh_hosts
from claude_bottle.manifest.agent import Bottle
from claude_bottle.manifest.git_identity import Identity
from tests.support import golden, keys, plans

# As `ssh-keygen -H` of OpenSSH 9.2 wrote them: of git.example.com, of its port 2222, and of no other.
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAd6XFaoug5J6QN4nj+zyCWXlfz6SXnkKe9PFmVg+4D4"
HASHED = f"""\
|1|gJMB2B+wIpEdKZuupF8fkWZ2Mjc=|KNqb6EptEUcsHckSaZfPKTp8k/0= {KEY}
|1|H5X01iOGtuqvZXq0ZJ3qn2jsqVg=|g4LqDmRy96Ds5oBrvoVytMTGr5w= {KEY} comment
"""
ELSEWHERE = "a key that lives only in an ssh-agent or on a hardware token cannot be used"
SUPPORTED = "a bottle takes the file of a private key, as ssh-keygen writes it"

NAME = 'want a name of letters (an alias: lower-case ones), digits, ".", "_" and "-"'
PINNED = 'want the host\'s public key, such as "ssh-ed25519 AAAA...", or what `ssh-keyscan` prints of it'


def bottle(folder: Path, text: str) -> Bottle:
    plans.manifests(folder, bottle=text)
    home = folder / "home"
    plans.ssh(home)
    return agent.load_agent(folder, "demo", environ={}, home=home).bottle


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(ManifestError) as raised:
        bottle(folder, text)
    return [line.removeprefix(f"{folder}/bottles/default.yaml:") for line in str(raised.value).split("\n")]


def in_home(plan: Plan, name: str) -> str:
    with tarfile.open(fileobj=io.BytesIO(plan.home)) as tar:
        file = tar.extractfile(name)
        assert file is not None
        assert tar.getmember(name).mode == 0o600
        return file.read().decode()


def test_ssh_and_git_in_the_bottle(tmp_path: Path) -> None:
    plan = plans.plan(plans.everything(tmp_path), Run(terminal=True), HOST_KEY="x")
    files = (".ssh/config", ".ssh/known_hosts", ".ssh/second.pub", ".gitconfig")
    golden.same("ssh", "".join(f"== {name}\n{in_home(plan, name)}" for name in files))
    assert "PRIVATE" not in plan.home.decode("latin-1")


def test_a_bottle_without_ssh_hosts_has_no_file_of_theirs(tmp_path: Path) -> None:
    plan = plans.plan(plans.manifests(tmp_path), Run(terminal=True))
    assert plan.keys == ()
    assert b".ssh" not in plan.home
    assert b".gitconfig" not in plan.home


def test_ssh_hosts_are_reached_like_allowed_ones(tmp_path: Path) -> None:
    text = "egress: {allow: [a.example.com]}\nssh:\n  - {host: Git.Example.org, port: 2222, key: ~/ssh/plain}\n"
    found = bottle(tmp_path, text)
    assert list(map(str, found.reach)) == ["a.example.com", "git.example.org:2222"]
    assert [(host.alias, host.user, host.pins) for host in found.ssh] == [
        ("git.example.org", "git", (keys.public("[git.example.org]:2222"),))
    ]


def test_a_key_is_given_once_with_all_its_hosts(tmp_path: Path) -> None:
    plan = plans.plan(plans.everything(tmp_path), Run(terminal=True), HOST_KEY="x")
    assert [(key.step, key.file.path.name, [host.alias for host in key.hosts]) for key in plan.keys] == [
        ("key-1", "plain", ["git.example.org", "second"]),
        ("key-2", "locked", ["code.example.net"]),
    ]
    copy = tmp_path / "bottles/ssh/copy"
    copy.write_text(keys.private("plain"))
    twins = (*plan.keys[0].hosts, ssh_hosts.SshHost("c", "c.example.org", 22, "git", private_key.read(copy), ("x",)))
    assert len(ssh_hosts.keys(twins)) == 1, "the same key by another path is the same to ssh-agent"


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    text = """\
ssh:
  - {host: "*.example.org", key: ~/ssh/plain}
  - {key: ~/none, prot: 1}
  - {host: git.example.org:22, user: a b, port: 70000, key: ~/ssh/plain}
  - host: other.example.org
    port: 2200
    key: ~/ssh/plain
  - {host: git.example.org, key: ~/ssh/plain}
  - {host: git.example.org, key: ~/ssh/plain}
  - {host: git.example.org, alias: "x y", known_host: ssh-ed25519 AAAA}
  - text
git: {name: "", mail: x}
"""
    home = tmp_path / "home"
    unknown = f'has no "known_host" here and is not in {home}/.ssh/known_hosts: get its key with `ssh-keyscan -p 2200'
    publish = 'compare it with what its owner has published, and give "<type> <key>" as "known_host"'
    assert faults(tmp_path, text) == [
        '2:12: ssh.host: "*.example.org": want one name, the port goes under "port"',
        '3:5: ssh: names no "host"',
        f"3:11: ssh.key: {home}/none cannot be read: No such file or directory: {ELSEWHERE}, {SUPPORTED}",
        '3:19: unknown key "ssh.prot"; did you mean "port"?',
        '4:12: ssh.host: "git.example.org:22": want one name, the port goes under "port"',
        f"4:38: ssh.user: {NAME}",
        "4:49: ssh.port: want a port, from 1 to 65535",
        f"5:5: ssh: [other.example.org]:2200 {unknown} other.example.org`, {publish}",
        '9:5: ssh: "git.example.org" stands here a second time: give one of them another name with "alias"',
        f'10:5: ssh: names no "key"; {SUPPORTED}',
        f"10:36: ssh.alias: {NAME}",
        f"10:55: ssh.known_host: {PINNED}",
        "11:5: ssh: want a mapping (key: value), found text",
        "12:13: git.name: must not be empty or have control characters",
        '12:17: unknown key "git.mail"; did you mean "email"?',
    ]


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


DSS = "ssh-dss " + base64.b64encode(b"\0\0\0\7ssh-dss" + 4 * b"\0\0\0\1x").decode()
ED25519, CUT = KEY.split()[1], "AAAAC3NzaC1lZDI1NTE5AAAAIAd6XFao"


@pytest.mark.parametrize(
    ("text", "pins"),
    [
        (f"{KEY} comment", (KEY,)),
        (f"git.example.com {KEY}\n", (KEY,)),
        (
            f"# git.example.com:22 SSH-2.0-x\ngit.example.com {KEY}\ngit.example.com {keys.public()}",
            (KEY, keys.public()),
        ),
        (HASHED, (KEY,)),
        (f"other.example.com {KEY}", ()),
        (f"@revoked git.example.com {KEY}", ()),
        (f"ssh-ed25519 {CUT}", ()),
        (f"ssh-ed25519 {ED25519[:-2]}", ()),
        (f"ssh-ed25519 {ED25519}AAAAAWFh", ()),
        (DSS, ()),
        (keys.public(kind="ssh-rsa"), ()),
    ],
)
def test_a_host_key_is_given_by_itself_or_as_in_known_hosts(tmp_path: Path, text: str, pins: tuple[str, ...]) -> None:
    manifest_ = f"ssh: [{{host: git.example.com, key: ~/ssh/plain, known_host: {json.dumps(text)}}}]\n"
    if pins:
        assert bottle(tmp_path, manifest_).ssh[0].pins == pins
    else:
        assert [fault.partition(" ")[2] for fault in faults(tmp_path, manifest_)] == [f"ssh.known_host: {PINNED}"]


@pytest.mark.parametrize(
    ("lines", "alias", "pins", "certificates"),
    [
        ("{host} {a}", "", "{a}", False),
        ("{host} {a}\n@revoked * {b}", "", "{a}|@revoked {b}", False),
        ("{host} {a}\n{host} {b}\n@revoked * {b}", "", "{a}|@revoked {b}", False),
        ("{host} {a}\n@revoked {host} {a}", "", "", False),
        ("@cert-authority *.example.com {a}", "", "@cert-authority {a}", True),
        ("@cert-authority {host} {a}\n@revoked {host} {a}", "", "", False),
        ("@cert-authority {host} {a}", "git.example.com", "@cert-authority {a}", True),
        ("@cert-authority {host} {a}", "other", "", False),
        ("@cert-authority {host} {a}\n{host} {b}", "other", "{b}", False),
    ],
)
def test_what_is_known_of_a_host_is_what_counts_for_the_key(
    tmp_path: Path, lines: str, alias: str, pins: str, *, certificates: bool
) -> None:
    def filled(text: str) -> str:
        return text.format(host="git.example.com", a=KEY, b=keys.public())

    alias_ = f"alias: {alias}, " if alias else ""
    known = json.dumps(f"{filled(lines)}\n")
    text = f"ssh: [{{host: git.example.com, {alias_}key: ~/ssh/plain, known_host: {known}}}]\n"
    if not pins:
        assert len(faults(tmp_path, text)) == 1
        return
    [host] = bottle(tmp_path, text).ssh
    assert host.pins == tuple(filled(pins).split("|"))
    config = ssh_hosts.files((host,), "pipelock:8888")["config"].decode()
    assert ("  HostKeyAlgorithms -*-cert-v01@openssh.com\n" not in config) is certificates


@pytest.mark.parametrize("crooked", ["\n\n{}", "{}\n\n", "{}"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_key_is_handed_over_as_ssh_add_wants_it(tmp_path: Path, crooked: str, ending: str) -> None:
    (tmp_path / "key").write_bytes(crooked.format(keys.private().strip()).replace("\n", ending).encode())
    host = ssh_hosts.SshHost("a", "a.example.org", 22, "git", private_key.read(tmp_path / "key"), ("x",))
    assert ssh_hosts.keys([host])[0].private.decode() == keys.private()


def test_a_bottle_with_ssh_hosts_has_no_other_agent(tmp_path: Path) -> None:
    text = "env: {SSH_AUTH_SOCK: /x}\n"
    assert faults(tmp_path, f"{text}ssh: [{{host: git.example.org, key: ~/ssh/plain}}]\n") == [
        "1:7: env.SSH_AUTH_SOCK: is set by claude-bottle itself where the bottle has ssh hosts"
    ]
    assert bottle(tmp_path / "without", text).ssh == ()


def test_names_are_no_longer_than_a_file_can_have(tmp_path: Path) -> None:
    label = "a" * 50
    long = ".".join([label] * 5)[:251]
    text = f"ssh: [{{host: {long}, alias: {long}, key: ~/ssh/plain, known_host: {KEY}}}]\n"
    assert [fault.partition(" ")[2] for fault in faults(tmp_path, text)] == [
        "ssh.host: want a name of at most 250 characters",
        f"ssh.alias: {NAME}",
    ]
    assert bottle(tmp_path / "fits", text.replace(long, long[:250])).ssh[0].alias == long[:250]


def test_a_host_of_which_only_revoked_keys_are_known_is_unknown(tmp_path: Path) -> None:
    plans.ssh(tmp_path / "home2")
    text = "ssh: [{host: git.example.org, key: ~/ssh/plain}]\n"
    plans.manifests(tmp_path / "m", bottle=text)
    (tmp_path / "home2/.ssh/known_hosts").write_text(f"@revoked git.example.org {KEY}\n")
    with pytest.raises(ManifestError, match=r"`ssh-keyscan git\.example\.org`"):
        agent.load_agent(tmp_path / "m", "demo", environ={}, home=tmp_path / "home2")


def test_git_identity_is_the_manifests_else_the_hosts() -> None:
    host = git_identity.told(b'user.name\nFirst\0user.email\na@example.org\0user.name\nAda "L" \\\xc3\xa9\0')
    assert host == Identity('Ada "L" \\é', "a@example.org")
    assert Identity(email="b@example.org").completed(host) == Identity('Ada "L" \\é', "b@example.org")
    assert host.config().decode() == '[user]\n\tname = "Ada \\"L\\" \\\\é"\n\temail = "a@example.org"\n'
    assert (git_identity.told(b""), Identity().config(), str(Identity())) == (Identity(), b"", "")
    assert git_identity.told(b"user.name\nx\x1b[2J\0user.email\n\0") == Identity()
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
    assert git_identity.settled(Identity("Own", "o@example.org"), environ) == Identity("Own", "o@example.org")
    assert not (tmp_path / "asked").exists()
    assert git_identity.settled(Identity("Own"), environ) == Identity("Own", "h@example.org")
    assert "--global --includes" in (tmp_path / "asked").read_text()
    program.write_text("#!/bin/sh\nexit 1\n")
    assert git_identity.settled(Identity(), environ) == Identity()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert git_identity.settled(Identity(), {"PATH": str(tmp_path / "empty")}) == Identity()
