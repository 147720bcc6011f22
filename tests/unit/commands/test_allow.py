"""More hosts for a running session: what is said, and what cannot be saved; docker is a fake one."""

import pytest

from claude_bottle.bottle import home
from claude_bottle.commands.allow import Allowed
from claude_bottle.egress.allowlist import parse_host
from tests.support.labels import LIST, row
from tests.support.owners import ELSEWHERE, OBSERVER
from tests.support.scene import ROOT, Patches, Scene


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
