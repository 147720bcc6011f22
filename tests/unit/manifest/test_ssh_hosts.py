"""SSH hosts: what a manifest may say of them, and what ssh in the bottle is told."""

import base64
import io
import json
import tarfile
from pathlib import Path

import pytest

from claude_bottle.bottle.plan import Plan, Run
from claude_bottle.errors import ManifestError
from claude_bottle.manifest import agent, private_key, ssh_hosts
from claude_bottle.manifest.agent import Bottle
from tests.support import golden, keys, plans
from tests.support.keys import ELSEWHERE, HASHED, KEY, SUPPORTED

NAME = 'must have only letters (an alias: lower-case ones), digits, ".", "_" and "-"'
PINNED = 'must be the host\'s public key, such as "ssh-ed25519 AAAA...", or what `ssh-keyscan` prints of it'


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


@pytest.mark.parametrize(("host", "domain"), [("api.anthropic.com", "anthropic.com"), ("git.Claude.AI", "claude.ai")])
def test_no_ssh_passes_by_the_credential_proxy(tmp_path: Path, host: str, domain: str) -> None:
    text = f"ssh: [{{host: {host}, key: ~/ssh/plain, known_host: {KEY}}}]\n"
    assert faults(tmp_path, text) == [f'1:14: ssh.host: "{host}": ssh to {domain} would pass by the credential proxy']


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
        '2:12: ssh.host: "*.example.org": must be one name; the port goes under "port"',
        '3:5: ssh: missing required key "host"',
        f"3:11: ssh.key: {home}/none cannot be read: No such file or directory: {ELSEWHERE}, {SUPPORTED}",
        '3:19: unknown key "ssh.prot"; did you mean "port"?',
        '4:12: ssh.host: "git.example.org:22": must be one name; the port goes under "port"',
        f"4:38: ssh.user: {NAME}",
        "4:49: ssh.port: must be a port, from 1 to 65535",
        f"5:5: ssh: [other.example.org]:2200 {unknown} other.example.org`, {publish}",
        '9:5: ssh: duplicate host "git.example.org"; give one of them another name with "alias"',
        f'10:5: ssh: missing required key "key"; {SUPPORTED}',
        f"10:36: ssh.alias: {NAME}",
        f"10:55: ssh.known_host: {PINNED}",
        "11:5: ssh: expected a mapping (key: value), got a string",
        "12:13: git.name: must not be empty or contain control characters",
        '12:17: unknown key "git.mail"; did you mean "email"?',
    ]


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
        "1:7: env.SSH_AUTH_SOCK: is set by claude-bottle itself if the bottle has ssh hosts"
    ]
    assert bottle(tmp_path / "without", text).ssh == ()


def test_names_are_no_longer_than_a_file_can_have(tmp_path: Path) -> None:
    label = "a" * 50
    long = ".".join([label] * 5)[:251]
    text = f"ssh: [{{host: {long}, alias: {long}, key: ~/ssh/plain, known_host: {KEY}}}]\n"
    assert [fault.partition(" ")[2] for fault in faults(tmp_path, text)] == [
        "ssh.host: must be at most 250 characters",
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
