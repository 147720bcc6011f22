"""What an engine is asked, and that whatever it answers ends in one line."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from claude_bottle.errors import BottleError, DockerError, EngineError, ManifestError
from claude_bottle.process.engine import Egress, Engine, Versions
from tests.support.scene import Scene

DOWN = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n"


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
        ({"stdout": "<no value>\n\0\n"}, "docker version failed: "),
        ({"stdout": "28.2.2\n", "code": 1, "stderr": DOWN}, "does not answer, is it running? (Cannot connect"),
        (
            {"code": 1, "stderr": "permission denied while trying to connect to the Docker daemon socket\n"},
            "permission",
        ),
        (
            {"code": 1, "stderr": 'error during connect: Get "http://x": bash: docker: command not found\n'},
            "not answer",
        ),
    ],
)
def test_an_engine_that_cannot_be_used_is_one_line(scene: Scene, what: dict[str, object], reason: str) -> None:
    scene.rule("version", **what)
    with pytest.raises(EngineError) as caught:
        Engine(scene.environ).versions()
    assert reason in str(caught.value)
    assert str(caught.value).count("\n") == 0


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
def test_the_path_of_each_image_that_is_there_is_known(scene: Scene, together: bool) -> None:
    lines = {"one": '["A=1","PATH=/x:/bin"]', "two": "null", "three": '["PATH=/bin"]', "four": "no JSON"}
    names = list(lines)
    if together:
        scene.rule("Config.Env}} one two", stdout="".join(f"{line}\n" for line in lines.values()))
    else:
        scene.rule("Config.Env}} one two", code=1, stdout=f"{lines['one']}\n", stderr="No such image: two\n")
        scene.rule("Config.Env}} two", code=1, stderr="No such image: two\n")
        for name, line in lines.items():
            scene.rule(f"Config.Env}}}} {name}", stdout=f"{line}\n")
    found = Engine(scene.environ).facts(names)
    assert found.paths == {"one": "/x:/bin", "three": "/bin"}
    assert set(names) - found.present == (set() if together else {"two"})
