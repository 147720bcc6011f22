"""Why a host is allowed or refused: for an agent without docker, for a session from its labels and its sidecar."""

import json
from pathlib import Path

import pytest

from claude_bottle.bottle import home, reach
from claude_bottle.egress import allowlist
from claude_bottle.egress.allowlist import Host
from claude_bottle.manifest.bottle import Bottle
from tests.support import plans
from tests.support.labels import KEY, LIST, row
from tests.support.owners import ELSEWHERE, OBSERVER
from tests.support.scene import Scene

BOTTLE = """\
env: {KEY: "${NOT_SET}"}
egress:
  allow:
    - api.openai.com
    - "*.example.com"
    - git.example.org:8443
    - www.example.com
ssh:
  - {host: ssh.example.net, port: 2222, key: ssh/plain, known_host: PIN}
credentials:
  - host: signed.example.net
    header: {Authorization: "Bearer ${TOKEN}"}
""".replace("PIN", plans.SSH_HOST.partition("known_host: ")[2].removesuffix("}"))
HOSTS = allowlist.DEFAULTS
DEFAULT = "; of its requests, what Claude Code needs"


NOT_PUBLIC = "is not a public name, and a bottle reaches nothing else; write it in full"
FRONT = "a host of anthropic.com could front for the API and carry a foreign credential there"
UNLISTED = "refused, its session's list does not have it\nto allow it at once: ./cli.py allow demo-1"
SAVED = "to allow it, in later sessions, in {path}:\negress:\n  allow: [d.test:22]\n"


def wide(scene: Scene) -> Path:
    path = scene.agents / "bottles" / "default.yaml"
    path.write_text(BOTTLE)
    plans.ssh(path.parent)
    return path


@pytest.mark.parametrize(
    ("host", "reason", "lines"),
    [
        ("api.openai.com", "by this line", ["4:7: egress.allow: api.openai.com"]),
        ("API.OpenAI.com:443", "by this line", ["4:7: egress.allow: api.openai.com"]),
        ("a.b.example.com", "by this line", ["5:7: egress.allow: *.example.com"]),
        ("example.com", "by this line", ["5:7: egress.allow: *.example.com"]),
        ("www.example.com", "by this line", ["7:7: egress.allow: www.example.com"]),  # the exact one counts
        ("git.example.org:8443", "by this line", ["6:7: egress.allow: git.example.org:8443"]),
        ("git.example.org", "by this line", ["6:7: egress.allow: git.example.org:8443"]),  # 443 is always open
        (
            "api.openai.com:8443",
            "by these lines: each port is open on every host",
            ["4:7: egress.allow: api.openai.com", "6:7: egress.allow: git.example.org:8443"],
        ),
        ("ssh.example.net:2222", "by this line", ["9:12: ssh: ssh.example.net:2222"]),
        (
            "signed.example.net",
            "by this line; of its requests, the methods and paths of its credential",
            ["11:11: credentials: signed.example.net"],
        ),
        (  # which is passed on unopened
            "signed.example.net:8443",
            "by these lines: each port is open on every host",
            ["11:11: credentials: signed.example.net", "6:7: egress.allow: git.example.org:8443"],
        ),
    ],
)
def test_what_an_agents_manifest_allows(scene: Scene, host: str, reason: str, lines: list[str]) -> None:
    path = wide(scene)
    said = "".join(f"{path}:{line}\n" for line in lines)
    assert scene.run("why", "demo", host) == (0, f"{named(host)}: allowed, {reason}\n{said}", "")
    assert scene.log == []


def named(text: str) -> str:
    return str(allowlist.parse_host(text))


@pytest.mark.parametrize("host", ["api.anthropic.com", "platform.claude.com"])
def test_what_every_bottle_may_reach(scene: Scene, host: str) -> None:
    line = next(number for number, text in enumerate(HOSTS.read_text().splitlines(), 1) if text.startswith(f"{host}:"))
    more = f"{DEFAULT} and api.paths" if host == allowlist.API else DEFAULT
    expected = f"{host}: allowed, by this line{more}\n{HOSTS}:{line}:1: default: {host}\n"
    assert scene.run("why", "demo", host) == (0, expected, "")


@pytest.mark.parametrize(
    ("host", "reason", "item"),
    [
        ("example.org", "no line allows it", "example.org"),
        ("example.org:22", "no line allows it", "example.org:22"),
        ("example.com.evil.test", "no line allows it", "example.com.evil.test"),
        ("notexample.com", "no line allows it", "notexample.com"),
        ("9gag.example.org", "no line allows it", '"9gag.example.org"'),
        ("nas.internal", "no line allows it", "nas.internal"),
        ("api.openai.com:22", "port 22 is not open", "api.openai.com:22"),
    ],
)
def test_what_would_allow_a_host(scene: Scene, host: str, reason: str, item: str) -> None:
    path = wide(scene)
    remedy = f"to allow it, in {path}:\negress:\n  allow: [{item}]\n"
    assert scene.run("why", "demo", host) == (0, f"{host}: refused, {reason}\n{remedy}", "")


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("10.0.0.1", "refused, only names can be allowed, not IP addresses in any notation"),
        ("192.0.2.7:8443", "refused, only names can be allowed, not IP addresses in any notation"),
        ("0x7f000001", "refused, only names can be allowed, not IP addresses in any notation"),
        ("fe80::1", "refused, only names can be allowed, not IPv6 addresses"),
        ("nas", f'refused, "nas" {NOT_PUBLIC}'),
        ("x.localhost", f'refused, "x.localhost" {NOT_PUBLIC}'),
        ("statsig.anthropic.com", f"refused, {FRONT}"),
        ("api.anthropic.com:8443", "refused, only port 443 of api.anthropic.com passes through the credential proxy"),
        ("localhost:3000", "allowed, the bottle itself, without the proxy; never this machine"),
        ("127.0.0.2", "allowed, the bottle itself, without the proxy; never this machine"),
        ("::1", "allowed, the bottle itself, without the proxy; never this machine"),
        ("[::1]:3000", "allowed, the bottle itself, without the proxy; never this machine"),
        ("bottle", "allowed, the bottle itself, without the proxy; never this machine"),
    ],
)  # fmt: skip
def test_what_no_line_can_change(scene: Scene, host: str, said: str) -> None:
    assert scene.run("why", "demo", host) == (0, f"{host}: {said}\n", "")
    assert json.loads(scene.run("why", "demo", host, "--json")[1])["to_allow"] == {"manifest": None, "command": None}


@pytest.mark.parametrize(
    "host", ["https://a.test", "a.test/x", "me@a.test", "a.test:0", "a.test:x", "a b.test", "*.a.test", "a_b.test", ""]
)
def test_what_is_no_host_is_wrong_usage_in_one_line(scene: Scene, host: str) -> None:
    code, out, err = scene.run("why", "demo", host)
    assert (code, out, err.count("\n"), err.startswith(f'claude-bottle: "{host}"')) == (2, "", 1, True), err


def test_a_manifest_with_errors_is_refused_with_every_fault(scene: Scene) -> None:
    path = scene.agents / "bottles" / "default.yaml"
    path.write_text("egress: {allow: [10.0.0.1, ok.test]}\nlimit: {}\n")
    code, out, err = scene.run("why", "demo", "ok.test")
    assert (code, out, [line.partition(": ")[0] for line in err.splitlines()]) == (
        64,
        "",
        [f"{path}:1:18", f"{path}:2:1"],
    )


def test_json_has_the_same(scene: Scene) -> None:
    path = wide(scene)
    seen = [json.loads(scene.run("why", "demo", host, "--json")[1]) for host in ("www.example.com", "a.test:22")]
    line = {"file": str(path), "line": 7, "column": 7, "key": "egress.allow"}
    nothing, saved = {"manifest": None, "command": None}, {"file": str(path), "egress.allow": "a.test:22"}
    assert seen == [
        {"host": "www.example.com", "allowed": True, "reason": "by this line", "lines": [line], "to_allow": nothing},
        {"host": "a.test:22", "allowed": False, "reason": "no line allows it", "lines": [],
         "to_allow": {"manifest": saved, "command": None}},
    ]  # fmt: skip


def running(scene: Scene, manifest: Path, allowed: tuple[str, ...] = (), key: bytes = KEY) -> None:
    """Have a session `demo-1` of a bottle that may reach a.test, and since its start also `allowed`."""
    bottle = Bottle("default", manifest, allow=(Host("a.test"),))
    later = tuple(map(allowlist.parse_host, allowed))
    names = allowlist.allowlist((*bottle.reach, *later))
    config = allowlist.config((*names, "signed.test"), ("api.anthropic.com", "signed.test"))
    files = {"pipelock.yaml": config, "reach.json": reach.widened(reach.reach("demo-1", bottle), names, later)}
    scene.rule(LIST, stdout=row("demo-1", OBSERVER, manifest=str(manifest), key=key))
    for name, data in files.items():
        scene.rule(f"/config/{name} -", stdout=home.archive([home.Entry(name, data)], 0).decode())


AT_START = "by the manifest as it was at the session's start"
SIGNED_SAVED = "to allow it, in {path}:\negress:\n  allow: [signed.test:8443]\n"
SINCE = "by `./cli.py allow` since the session's start"


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("a.test", "allowed, by this line\n{path}:1:18: egress.allow: a.test\n"),
        ("b.test", f"allowed, {SINCE}\n"),
        ("c.test:8443", f"allowed, {SINCE}\n"),
        ("a.test:8443", f"allowed, {SINCE}\n{{path}}:1:18: egress.allow: a.test\n"),
        ("later.test", f"{UNLISTED} later.test\n"),  # the file has it since
        ("d.test:22", f"{UNLISTED} d.test:22\n{SAVED}"),
        ("signed.test", f"allowed, {AT_START}; of its requests, the methods and paths of its credential\n"),
        ("signed.test:8443", f"refused, port 8443 is not open\n{SIGNED_SAVED}"),  # though it is for others
        ("localhost", "allowed, the bottle itself, without the proxy; never this machine\n"),
    ],
)
def test_what_a_session_may_reach(scene: Scene, host: str, said: str) -> None:
    path = scene.agents / "bottles" / "default.yaml"
    path.write_text("egress: {allow: [a.test, later.test]}\n")
    running(scene, path, ("b.test", "c.test:8443"))
    assert scene.run("why", "demo-1", host) == (0, f"{host}: {said.format(path=path)}", "")


@pytest.mark.parametrize("proven", [False, True], ids=["unproven", "elsewhere"])
def test_no_file_is_read_that_only_a_label_names(scene: Scene, *, proven: bool) -> None:
    path = scene.agents / "bottles" / "default.yaml"
    path.write_text("egress: {allow: [a.test]}\n")
    if proven:
        scene.rule(LIST, stdout=row("demo-1", ELSEWHERE, manifest=str(path)))
    running(scene, path, key=b"another's")
    assert scene.run("why", "demo-1", "a.test") == (0, f"a.test: allowed, {AT_START}\n", "")
    refused = (
        "b.test: refused, its session's list does not have it\nto allow it at once: ./cli.py allow demo-1 b.test\n"
    )
    assert scene.run("why", "demo-1", "b.test") == (0, refused, "")


def test_an_agents_exact_name_wins_and_the_option_forces_a_session(scene: Scene) -> None:
    path = scene.agents / "bottles" / "default.yaml"
    running(scene, path, ("b.test",))
    assert "no line allows it" in scene.run("why", "demo", "b.test")[1]
    assert scene.log == []
    for words in (("demo", "--session"), ("demo-",)):
        assert scene.run("why", words[0], "b.test", *words[1:]) == (0, f"b.test: allowed, {SINCE}\n", "")


def test_a_name_of_neither_is_one_line(scene: Scene) -> None:
    scene.rule(LIST, stdout="")
    code, out, err = scene.run("why", "dmo", "a.test")
    assert (code, out) == (2, "")
    assert err == 'claude-bottle: no session "dmo"; none is running; did you mean "demo"?\n'


def test_the_line_of_a_registry_is_named_for_each_of_its_hosts(scene: Scene) -> None:
    path = scene.agents / "bottles" / "default.yaml"
    path.write_text(
        "egress: {registries: [npm]}\nimage: {preset: node}\nenv: {NPM_CONFIG_REGISTRY: https://npm.example.org:8443/x}\n"
    )
    code, out, _ = scene.run("why", "demo", "npm.example.org:8443")
    assert (code, out.splitlines()[0]) == (0, "npm.example.org:8443: allowed, by this line")
    assert out.splitlines()[1].endswith("1:23: egress.registries: npm.example.org:8443")
    code, out, _ = scene.run("why", "demo", "other.example.org")
    assert out.startswith("other.example.org: refused, no line allows it\n")
