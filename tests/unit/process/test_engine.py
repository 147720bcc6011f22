"""What an engine is asked, and that whatever it answers ends in one line."""

import grp
import os
import socket
from ipaddress import IPv4Address, IPv4Network

import pytest

from claude_bottle.errors import BottleError, DockerError, EngineError, ManifestError
from claude_bottle.process.engine import EGRESS, Egress, Engine, Versions
from tests.support.clients import NO_ENGINE, NO_IMAGE, NO_NETWORK
from tests.support.scene import Scene


@pytest.mark.parametrize(
    "answer", ["20.10.24+dfsg1 20.10.24+dfsg1", "28.2.2 20.10.0", "29.0.0-rc.1 29.0.0-rc.1", "dev dev", "28 28"]
)
def test_versions_of_every_spelling_are_new_enough(scene: Scene, answer: str) -> None:
    scene.rule("version", stdout=f"{answer}\n")
    assert Engine(scene.environ).versions() == Versions(*answer.split())


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ({"stdout": "28.2.2 19.03.15\n"}, "Docker Engine 19.03.15 is too old: 20.10 is the oldest that works"),
        ({"stdout": "28.2.2\0\n"}, r"docker cannot be used: docker version names no engine: 28.2.2\x00"),
        *(
            ({"stdout": "28.2.2\n", "code": 1, "stderr": f"{said}\n"}, f"docker cannot be used: {said}")
            for said in NO_ENGINE.values()
        ),
    ],
)
def test_an_engine_that_cannot_be_used_is_one_line(scene: Scene, what: dict[str, object], reason: str) -> None:
    scene.rule("version", **what)
    with pytest.raises(EngineError) as caught:
        Engine(scene.environ).versions()
    assert str(caught.value).startswith(reason)
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize("said", NO_ENGINE.values(), ids=NO_ENGINE)
@pytest.mark.parametrize("chosen", ["vpn", None])
def test_a_missing_engine_is_no_missing_object(scene: Scene, said: str, chosen: str | None) -> None:
    scene.without_engine(said)
    with pytest.raises(EngineError, match=r"^docker cannot be used: "):
        Engine(scene.environ).facts(["x"], chosen)
    assert len([event for event in scene.log if event.starts("docker version")]) == 1


@pytest.mark.parametrize("said", NO_NETWORK.values(), ids=NO_NETWORK)
def test_a_missing_network_is_a_wrong_setting(scene: Scene, said: str) -> None:
    scene.rule("IPAM", code=1, stderr=f"{said}\n")
    with pytest.raises(ManifestError, match=r"^CLAUDE_BOTTLE_EGRESS_NETWORK: vpn: .*vpn"):
        Engine(scene.environ).facts(["x"], "vpn")


@pytest.mark.parametrize("said", NO_IMAGE.values(), ids=NO_IMAGE)
def test_a_missing_image_is_to_be_built(scene: Scene, said: str) -> None:
    scene.rule("image inspect --format [{{json .Config.Env}},{{json .Config.Labels}}] x", code=1, stderr=f"{said}\n")
    assert Engine(scene.environ).facts(["x", "y"]).present == {"y", EGRESS}


@pytest.mark.parametrize("what", ["image inspect", "network inspect"])
def test_an_engine_that_refuses_to_say_what_exists_is_an_error(scene: Scene, what: str) -> None:
    """It may exist: nothing is built or made on a guess."""
    scene.rule(what, code=1, stderr="Error response from daemon: layer is corrupt\n")
    with pytest.raises(DockerError, match=r"cannot be inspected: layer is corrupt$"):
        Engine(scene.environ).facts(["x"])


def test_only_a_failure_without_an_answer_costs_a_query(scene: Scene) -> None:
    scene.rule("inspect one", code=1, stderr="Error response from daemon: no luck\n")
    scene.rule("inspect two", code=1, stderr="no luck\n")
    engine = Engine(scene.environ)
    for name, queries in (("none", 0), ("one", 0), ("two", 1)):
        engine.ask("inspect", name)
        assert len([event for event in scene.log if event.starts("docker version")]) == queries


@pytest.mark.parametrize(("mode", "hint"), [(0o660, "is not in the group "), (0o600, "this user may not use ")])
def test_who_may_not_use_the_socket_is_told_how_to_join(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, mode: int, hint: str
) -> None:
    class Refused(socket.socket):
        def connect(self, _: object) -> None:
            raise PermissionError

    path = scene.folder / "docker.sock"
    path.touch()
    path.chmod(mode)
    if not path.stat().st_gid:  # root's own group is no group to join
        os.chown(path, -1, next(each for each in grp.getgrall() if each.gr_gid).gr_gid)
    group = grp.getgrgid(path.stat().st_gid)
    monkeypatch.setattr("claude_bottle.process.engine.socket.socket", Refused)
    scene.without_engine("whatever a client says")
    with pytest.raises(EngineError, match=r"^docker cannot be used: whatever a client says; this ") as caught:
        Engine({**scene.environ, "DOCKER_HOST": f"unix://{path}"}).versions()
    assert hint in str(caught.value)
    assert (f"`sudo usermod -aG {group.gr_name} $USER`, then log in again" in str(caught.value)) == (mode == 0o660)


PODMAN = "podman is not supported: bottles need Docker Engine, 20.10 or newer"
COMPONENTS = "Podman Engine Conmon OCI Runtime (crun) Engine"


@pytest.mark.parametrize("client", ["26.1.5+dfsg1", "28.2.2"])
def test_podman_is_named_as_what_it_is(scene: Scene, client: str) -> None:
    """As podman 5.4.2 answers docker's clients."""
    scene.rule("version", stdout=f"{client} 5.4.2 {COMPONENTS}\n")
    scene.rule("info", stdout="false 5.4.2\n")
    scene.rule("image", code=1, stderr="Error response from daemon: failed to find image x: x: No such image\n")
    said = f"unable to find network with name or ID {EGRESS}: network not found"
    scene.rule("network", code=1, stderr=f"Error response from daemon: {said}\n")
    for ask in (Engine(scene.environ).versions, lambda: Engine(scene.environ).facts(["x", "y"])):
        with pytest.raises(EngineError, match=f"^{PODMAN}$"):
            ask()
    asked = [event.argv[1] for event in scene.log if event.kind == "start"]
    assert sorted(asked[1:]) == ["image", "info", "network", "ps", "version"]


def test_podmans_own_docker_command_is_named_as_what_it_is(scene: Scene) -> None:
    """As podman 5.4.2 answers under the name of docker."""
    scene.rule("--version", stdout="podman version 5.4.2\n")
    scene.rule(
        "version", code=125, stdout="5.4.2 ", stderr="Error: template: version:1:9: can't evaluate field Client\n"
    )
    scene.rule("info", code=125, stderr="Error: template: info:1:2: can't evaluate field Debug\n")
    scene.rule("image", code=125, stderr="Error: x: image not known\n")
    scene.rule("network", code=125, stderr=f"Error: network {EGRESS}: unable to find network: network not found\n")
    for ask in (Engine(scene.environ).versions, lambda: Engine(scene.environ).facts(["x"])):
        with pytest.raises(EngineError, match=f"^{PODMAN}$"):
            ask()


def test_an_engine_that_is_too_old_is_refused_before_anything_is_made_of_its_facts(scene: Scene) -> None:
    scene.rule("version", stdout="28.2.2 19.03.15 Engine containerd runc docker-init\n")
    scene.rule("info", stdout="false 19.03.15\n")
    with pytest.raises(EngineError, match=r"^Docker Engine 19\.03\.15 is too old"):
        Engine(scene.environ).facts(["x"], "vpn")


@pytest.mark.parametrize("said", ["false 20.10.24+dfsg1\n", "true 29.7.2\n", "false dev\n", ""])
def test_one_that_works_is_not_asked_again(scene: Scene, said: str) -> None:
    scene.rule("info", stdout=said)
    Engine(scene.environ).facts(["x"])
    assert [event for event in scene.log if event.starts("version")] == []


@pytest.mark.parametrize(
    ("said", "debug"), [("true 20.10.24\n", True), ("false 20.10.24\n", False), ("true\n", True), ("", False)]
)
def test_a_debug_engine_is_seen_beside_the_other_facts(scene: Scene, said: str, *, debug: bool) -> None:
    scene.rule("info", stdout=said)
    assert Engine(scene.environ).facts(["x"]).debug == debug
    scene.rule("IPAM", stdout='[{"Subnet": "10.9.0.0/24"}]\n')
    assert Engine(scene.environ).facts(["x"], "vpn").debug == debug


def test_the_chosen_network_brings_its_subnet_and_gateway(scene: Scene) -> None:
    scene.rule(
        "IPAM", stdout='[{"Subnet": "fd00::/64"}, {"Subnet": "198.51.100.128/26", "Gateway": "198.51.100.129"}]\n'
    )
    found = Engine(scene.environ).egress("vpn")
    assert found == Egress("vpn", IPv4Network("198.51.100.128/26"), IPv4Address("198.51.100.129"))


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ({"code": 1, "stderr": "Error: No such network: vpn\n"}, ManifestError),
        ({"stdout": '[{"Subnet": "fd00::/64"}]\n'}, ManifestError),
        ({"stdout": "null\n"}, ManifestError),
        *(
            ({"stdout": text}, DockerError)
            for text in ("<html>\n", "7\n", '["a"]\n', '[{"Subnet": 7}]\n', '[{"Subnet": "10.9.0.0"}, 1]\n', "[[]]\n")
        ),
        ({"stdout": '[{"Subnet": "10.9.0.0/24", "Gateway": "none"}]\n'}, DockerError),
    ],
)
def test_a_chosen_network_that_cannot_be_used_is_one_line(
    scene: Scene, what: dict[str, object], kind: type[BottleError]
) -> None:
    scene.rule("IPAM", **what)
    with pytest.raises(kind) as caught:
        Engine(scene.environ).egress("vpn")
    assert str(caught.value).count("\n") == 0


def test_networks_that_vanish_meanwhile_do_not_count(scene: Scene) -> None:
    scene.rule("IPAM", stdout='[{"Subnet": "10.9.0.0/24"}]\nnull\n', code=1, stderr="Error: No such network: cc\n")
    assert Engine(scene.environ).subnets() == (IPv4Network("10.9.0.0/24"),)


@pytest.mark.parametrize("what", [{"network ls": {"code": 1}}, {"IPAM": {"code": 1}}, {"IPAM": {"stdout": "?\n"}}])
def test_networks_that_cannot_be_listed_are_one_line(scene: Scene, what: dict[str, dict[str, object]]) -> None:
    for match, answer in what.items():
        scene.rule(match, **answer)
    with pytest.raises(DockerError):
        Engine(scene.environ).subnets()


@pytest.mark.parametrize("together", [True, False], ids=["all there", "one by one"])
def test_path_and_claude_of_each_image_that_is_there_are_known(scene: Scene, together: bool) -> None:
    lines = {
        "one": '[["A=1","PATH=/x:/bin"],{"claude-bottle.claude-code":"2.1.331","a":"b"}]',
        "two": "[null,null]",
        "three": '[["PATH=/bin"],{}]',
        "four": "no JSON",
        "five": "[null,[]]",
        "six": "7",
    }
    names = list(lines)
    if together:
        scene.rule("Config.Labels}}] one two", stdout="".join(f"{line}\n" for line in lines.values()))
    else:
        scene.rule("Config.Labels}}] one two", code=1, stdout=f"{lines['one']}\n", stderr="No such image: two\n")
        scene.rule("Config.Labels}}] two", code=1, stderr="No such image: two\n")
        for name, line in lines.items():
            scene.rule(f"Config.Labels}}}}] {name}", stdout=f"{line}\n")
    found = Engine(scene.environ).facts(names)
    assert found.paths == {"one": "/x:/bin", "three": "/bin"}
    assert found.claude == {"one": "2.1.331"}
    assert set(names) - found.present == (set() if together else {"two"})


@pytest.mark.parametrize(
    ("info", "labels", "memory", "bottles"),
    [
        ("false 20.10.24 25282224128", "4294967296\n\n1073741824\n", 25282224128, (4294967296, 1073741824)),
        ("false 20.10.24 <no value>", "x\n-1\n\u0663\n9999999999999999999\n", 0, ()),
        ("false 20.10.24", "", 0, ()),
    ],
)
def test_memory_and_the_limits_of_the_bottles_that_run(
    scene: Scene, info: str, labels: str, memory: int, bottles: tuple[int, ...]
) -> None:
    """A label may be somebody else's; of a bottle without a limit it is empty."""
    scene.rule("info --format", stdout=f"{info}\n")
    scene.rule("ps --filter label=claude-bottle.role=agent", stdout=labels)
    facts = Engine(scene.environ).facts(["x"])
    assert (facts.memory, facts.bottles) == (memory, bottles)
