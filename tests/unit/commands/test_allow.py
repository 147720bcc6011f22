"""More hosts for a running session: what is said, and what cannot be saved; docker is a fake one."""

import json
import sys
from pathlib import Path

import pexpect
import pytest

from claude_bottle.bottle import home, reach
from claude_bottle.commands.allow import Allowed
from claude_bottle.egress import allowlist
from claude_bottle.egress.allowlist import parse_host
from claude_bottle.manifest.bottle import Bottle
from tests.support.labels import LIST, row
from tests.support.owners import ELSEWHERE, OBSERVER
from tests.support.scene import PATCHED, ROOT, Patches, Scene


@pytest.mark.parametrize(
    ("hosts", "new", "line"),
    [
        (("a.test", "b.test:8443"), True, "now allowed: a.test, b.test:8443"),
        (("a.test",), False, "a.test was already allowed; nothing changed"),
        (("a.test", "b.test"), False, "a.test, b.test were already allowed; nothing changed"),
    ],
)
def test_the_outcome_is_one_line(hosts: tuple[str, ...], new: bool, line: str) -> None:
    assert str(Allowed(tuple(map(parse_host, hosts)), new, None)) == line


def test_a_manifest_of_another_machine_is_not_written_and_nothing_allowed(scene: Scene) -> None:
    scene.rule(LIST, stdout=row("demo-1", ELSEWHERE))
    code, out, err = scene.run("allow", "demo-1", "a.test", "--save")
    assert (code, out) == (64, "")
    assert err == "/agents/bottles/default.yaml: not saved, it is on another machine; nothing was allowed\n"
    assert not [event for event in scene.log if event.starts("docker cp")]


def test_a_manifest_that_came_with_the_program_is_not_written_and_nothing_allowed(scene: Scene) -> None:
    path = ROOT / "agents" / "bottles" / "default.yaml"
    before = path.read_bytes()
    scene.rule(LIST, stdout=row("demo-1", OBSERVER, manifest=str(path)))
    installed: Patches = {"host.installation.INSTALLED": True}
    code, out, err = scene.run("allow", "demo-1", "a.test", "--save", patches=installed)
    assert (code, out, err.count("\n")) == (64, "", 1)
    assert err.startswith(f"{path}: not saved, it belongs to the program, whose next upgrade replaces it; nothing was")
    assert path.read_bytes() == before
    assert not [event for event in scene.log if event.starts("cp")]


def test_a_host_that_is_none_is_wrong_usage(scene: Scene) -> None:
    scene.rule(LIST, stdout=row("demo-1", OBSERVER))
    assert scene.run("allow", "demo-1", "a.test:port")[0] == 2
    assert scene.log == []


@pytest.mark.parametrize("host", ["*.anthropic.com", "www.claude.com", "api.anthropic.com:8443"])
def test_a_host_that_could_front_for_the_api_is_wrong_usage(scene: Scene, host: str) -> None:
    code, _, err = scene.run("allow", "demo-1", host)
    assert code == 2
    assert f'"{host}": ' in err
    assert scene.log == []


@pytest.mark.parametrize(
    ("host", "refused"), [("a.test:8443", True), ("a.test", False), ("b.test:8443", False), ("*.a.test:8443", False)]
)
def test_a_host_with_credentials_gets_no_port_while_the_session_runs(scene: Scene, host: str, *, refused: bool) -> None:
    names = "".join(f'  - "{name}"\n' for name in ("*.a.test", "a.test", "b.test"))  # all allowed already
    config = f'trusted_domains:\n  - "a.test"\n\napi_allowlist:\n{names}'.encode()
    tar = home.archive([home.Entry("pipelock.yaml", config)], 0)
    scene.rule(LIST, stdout=row("demo-1", OBSERVER))
    scene.rule("/config/pipelock.yaml -", stdout=tar.decode())
    code, _, err = scene.run("allow", "demo-1", host)
    opened = [event for event in scene.log if event.starts("-allow ")]
    if refused:
        assert (code, err.count("\n"), opened) == (2, 1, [])
        assert err.startswith(
            "claude-bottle: a.test:8443: the ports of a host with credentials are fixed at a session's"
        )
    else:
        assert (code, err, len(opened)) == (0, "", int(":" in host))


def served(scene: Scene, *more: str) -> None:
    """Have a session `demo-1` that was told of a.test, and whose sidecar lets `more` through as well."""
    bottle = Bottle("default", Path("/"), allow=(parse_host("a.test"),))
    data = reach.reach("demo-1", bottle)
    names = allowlist.allowlist((*bottle.reach, *map(parse_host, more)))
    scene.rule(LIST, stdout=row("demo-1", OBSERVER))
    for name, content in (("pipelock.yaml", allowlist.config(names)), ("reach.json", data)):
        scene.rule(f"/config/{name} -", stdout=home.archive([home.Entry(name, content)], 0).decode())


def test_the_agent_is_told_whoever_is_in_the_way_of_that(scene: Scene) -> None:
    served(scene, "b.test")  # another `allow` has just added its name
    scene.rule("--directory /home/agent/.claude-bottle", fifo="never")
    code, out, err = scene.run("allow", "demo-1", "b.test:8443", patches={"commands.allow._RENEWAL": 0.5})
    assert (code, out, err) == (0, "now allowed: b.test:8443\n", "")
    copied = [event.more["stdin"] for event in scene.log if event.ends("cp -")]
    told = [event.argv[-6:] for event in scene.log if event.starts("exec")]
    assert copied == ["reach.json"]  # the sidecar's list had the name already
    assert told == [("/usr/bin/tar", "--extract", "--file", "-", "--directory", "/home/agent/.claude-bottle")]


@pytest.mark.parametrize("words", [(), ("a.test", "--ask")])
def test_hosts_or_the_question_are_wanted(scene: Scene, words: tuple[str, ...]) -> None:
    code, _, err = scene.run("allow", "demo-1", *words)
    assert (code, err.splitlines()[-1]) == (2, "Error: name one or more hosts, or pass --ask")


def test_without_a_terminal_nothing_can_be_asked(scene: Scene) -> None:
    code, out, err = scene.run("allow", "demo-1", "--ask")
    assert (code, out, err) == (65, "", "claude-bottle: cannot ask: stdin is not a terminal; name the hosts instead\n")
    assert scene.log == []


def refusals(*hosts: str) -> str:
    lines = ({"event": "blocked", "scanner": "allowlist", "target": f"{host}:443"} for host in hosts)
    return "".join(f"{json.dumps(line)}\n" for line in lines)


def asking(scene: Scene) -> "pexpect.spawn[str]":
    """Run `allow demo-1 --ask` on a terminal."""
    command = [str(PATCHED), "{}", "allow", "demo-1", "--ask"]
    return pexpect.spawn(sys.executable, command, env=scene.environ, cwd=str(ROOT), encoding="utf-8", timeout=300)


def test_each_host_is_asked_for_once_and_no_answer_is_old(scene: Scene) -> None:
    served(scene)
    hosts = ("b.test", "b.test", "a.test", "10.0.0.1", "www.claude.com", "c.test", "b.test")  # a.test is allowed
    scene.rule("logs --follow", fifo="logs", stdout=refusals(*hosts))
    child = asking(scene)
    child.send("y\ry\ry\r")  # before there is a question
    child.expect("y\r\ny\r\ny\r\n")
    (scene.folder / "removed").touch()
    with scene.held("logs"):
        pass
    child.expect_exact("b.test was refused. Allow it? [y/N] ")
    child.send("n\r")
    child.expect_exact("c.test was refused. Allow it? [y/N] ")
    child.send("\r")
    rest = child.read()
    child.close()
    assert (rest.strip(), child.exitstatus) == ("", 0)
    assert [event for event in scene.calls if event.starts("cp -")] == []  # nothing was allowed


def test_questions_end_after_twenty_hosts(scene: Scene) -> None:
    served(scene)
    (scene.folder / "removed").touch()
    names = (f"h{number}.{domain}" for domain in ("claude.com", "test") for number in range(25))
    scene.rule("logs --follow", stdout=refusals(*names))
    child = asking(scene)
    for number in range(20):
        child.expect_exact(f"h{number}.test was refused. Allow it? [y/N] ")
        child.send("\r")
    rest = child.read()
    child.close()
    assert (rest.strip(), child.exitstatus) == ("claude-bottle: stopped after 20 questions; run it again for more", 0)
