"""Package registries in a manifest: their presets, and mirrors of the user's own."""

import pytest

from claude_bottle.egress.allowlist import Host
from claude_bottle.manifest.bottle import PRESETS
from claude_bottle.manifest.registries import PRESET
from tests.support.manifests import Place, bottle_faults

BOTTLE = "image: {{preset: [node, python, go]}}\negress: {{registries: [npm, pypi, go]}}\nenv: {{{0}}}\n"
SHAPE = "must be https, a host, maybe a port and a path, and nothing else: no other URL gets through"
SECRET = 'has a user name or a password in its URL, which the agent could read; use "credentials"'
PRIVATE = "has a private address, and a bottle reaches none"


def test_every_preset_has_a_registry() -> None:
    assert sorted(PRESET.values()) == sorted(PRESETS)


def test_there_is_none_by_default(place: Place) -> None:
    place.write("agents/bottles/default.yaml", "image: {preset: node}")
    assert place.load().bottle.registries == ()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("egress: {registries: npm}", "1:22: egress.registries: expected a list, got a string"),
        ("egress: {registries: [1]}", "1:23: egress.registries: expected a string, got a number (add quotes)"),
        (
            "egress: {registries: [nmp]}",
            '1:23: egress.registries: no registry "nmp"; did you mean "npm"?',
        ),
        (
            "egress: {registries: [npm]}",
            '1:23: egress.registries: the image has no npm; the preset "node" has it',
        ),
        (
            "image: {preset: [node, go]}\negress: {registries: [npm, go, crates]}",
            '2:32: egress.registries: the image has no cargo; the preset "rust" has it',
        ),
    ],
)
def test_a_fault_is_told_by_its_place(place: Place, text: str, fault: str) -> None:
    assert bottle_faults(place, text) == [f"bottles/default.yaml:{fault}"]


@pytest.mark.parametrize(
    ("env", "hosts"),
    [
        ("NPM_CONFIG_REGISTRY: https://npm.corp.test:8443/a/b/", {"npm": ["https://npm.corp.test:8443/a/b/"]}),
        ("npm_config_registry: https://NPM.corp.test", {"npm": ["https://npm.corp.test"]}),
        ("PIP_INDEX_URL: https://a.test/s, UV_INDEX_URL: https://b.test/s", {"pypi": ["https://a.test/s", "https://b.test/s"]}),
        ("GOPROXY: 'https://a.test,https://b.test|direct'", {"go": ["https://a.test", "https://b.test"]}),
        ("PIP_INDEX_URL: '${MIRROR}'", {"pypi": ["https://from.host.test/x"]}),
    ],
)  # fmt: skip
def test_a_mirror_stands_in_for_a_registry(place: Place, env: str, hosts: dict[str, list[str]]) -> None:
    place.write("agents/bottles/default.yaml", BOTTLE.format(env))
    found = place.load(environ={"MIRROR": "https://from.host.test/x"}).bottle
    assert {each.name: [mirror.url for mirror in each.mirrors] for each in found.registries if each.mirrors} == hosts
    recorded = {name: (Host(f"recorded.{name}.test"),) for name in PRESET}
    for registry in (each.known(recorded) for each in found.registries):
        if registry.name in hosts:
            assert registry.where == ", ".join(hosts[registry.name])
        else:
            assert (registry.where, registry.hosts) == (f"recorded.{registry.name}.test", recorded[registry.name])


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("https://ada:secret@npm.corp.test/", SECRET),
        ("https://secret@npm.corp.test/", SECRET),
        ("https://@npm.corp.test/", SECRET),
        ("http://npm.corp.test/", SHAPE),
        ("npm.corp.test", SHAPE),
        ("https:///secret", SHAPE),
        ("https://npm.corp.test/?secret", SHAPE),
        ("https://npm.corp.test:secret/", "is no URL"),
        ("https://10.1.2.3/", PRIVATE),
        ("https://[fd00::1]/", PRIVATE),
        ("https://localhost:4873/", PRIVATE),
    ],
)
@pytest.mark.parametrize("source", ["'{0}'", "'${{MIRROR}}'"])
def test_no_other_url_is_one(place: Place, source: str, url: str, fault: str) -> None:
    place.write("agents/bottles/default.yaml", BOTTLE.format("NPM_CONFIG_REGISTRY: " + source.format(url)))
    (found,) = place.faults(environ={"MIRROR": url})
    assert found == f"bottles/default.yaml:3:28: env.NPM_CONFIG_REGISTRY: {fault}"


def test_a_variable_without_its_registry_is_an_ordinary_one(place: Place) -> None:
    place.write("agents/bottles/default.yaml", "env: {NPM_CONFIG_REGISTRY: 'http://localhost:4873/'}")
    assert place.load().bottle.reach == ()
