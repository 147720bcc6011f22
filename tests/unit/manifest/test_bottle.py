"""Bottles: sizes, hosts, paths, and the whole message for what is wrong."""

import os
import re
from dataclasses import replace

import pytest

from claude_bottle.manifest.bottle import Limits
from tests.support import keys
from tests.support.manifests import CERTIFICATE, Place, bottle_faults
from tests.support.scene import ROOT

PIDS = "must be a whole number, from 64 (claude and its tools need some) to 4194304"
REQUESTS = "must be a whole number, from 1 to 1000000"
SIZE = "expected a size such as 4g, 512m or a number of bytes, or none"
NAME = "a host name must not be empty or contain spaces or control characters"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("env: [A]", "1:6: env: expected a mapping (key: value), got a list"),
        ("env:", "1:5: env: expected a mapping (key: value), got nothing"),
        ("egress: {allow: github.com}", "1:17: egress.allow: expected a list, got a string"),
        ("egress: {allow: [1.5]}", "1:18: egress.allow: expected a string, got a number (add quotes)"),
        ("env: {A: yes, B: true}", "1:18: env.B: expected a string, got true or false (add quotes)"),
        ('env: {A: "x\\0"}', "1:10: env.A: contains a NUL character, which cannot be passed on"),
        ("limits: {cpus: two}", "1:16: limits.cpus: expected a number, got a string"),
        ("limits: {cpus: true}", "1:16: limits.cpus: expected a number, got true or false"),
        ("limits: {cpus: 0}", "1:16: limits.cpus: must be from 0.01 to 4096"),
        ("limits: {cpus: .nan}", "1:16: limits.cpus: must be from 0.01 to 4096"),
        ("limits: {memory: 4 gallons}", f"1:18: limits.memory: {SIZE}, got a string"),
        ("limits: {pids: 1.5}", f"1:16: limits.pids: {PIDS}"),
        ("limits: {pids: .inf}", f"1:16: limits.pids: {PIDS}"),
        ("image: {}", '1:8: image: missing key "preset", "dockerfile" or "claude"'),
        ("image: {preset: nod}", '1:17: image.preset: no preset "nod"; did you mean "node"?'),
        ("image: {preset: zzz}", '1:17: image.preset: no preset "zzz"; there are go, java, node, python, rust'),
        ("image: {preset: [go, pythn]}", '1:22: image.preset: no preset "pythn"; did you mean "python"?'),
        ("image: {preset: 1}", "1:17: image.preset: expected a string, got a number (add quotes)"),
        ("egress: {alow: []}", '1:10: unknown key "egress.alow"; did you mean "allow"?'),
        ("limits: {time: 90}", "1:16: limits.time: expected a time such as 90s, 30m, 2h or 1h30m, got a number"),
        ("limits: {cpus: 1, time: 2d}", "1:25: limits.time: expected a time such as 90s, 30m, 2h or 1h30m"),
        ("limits: {time: 0s}", "1:16: limits.time: must be from 1s to 720h"),
        ("limits: {time: none}", "1:16: limits.time: expected a time such as 90s, 30m, 2h or 1h30m"),
        ("limits: {requests: 0}", f"1:20: limits.requests: {REQUESTS}"),
        ("limits: {requests: 1000001}", f"1:20: limits.requests: {REQUESTS}"),
        ("limits: {requests: 1.5}", f"1:20: limits.requests: {REQUESTS}"),
        ("limits: {requests: .inf}", f"1:20: limits.requests: {REQUESTS}"),
        ("limits: {requests: many}", "1:20: limits.requests: expected a number, got a string"),
        (
            "zzz: 1",
            '1:1: unknown key "zzz"; known keys: env, credentials, api, ssh, git, egress, ca_certs, limits, image',
        ),
        ('egress: {allow: ["a.com\\x1b[2J"]}', rf'1:18: egress.allow: "a.com\x1b[2J": {NAME}'),
    ],
)  # fmt: skip
def test_a_type_fault_names_key_wanted_and_found(place: Place, text: str, fault: str) -> None:
    found = bottle_faults(place, text)
    assert found == [f"bottles/default.yaml:{fault}"]
    assert found[0].isprintable()


def _place_of_examples(place: Place) -> dict[str, str]:
    """Write the files that the documented examples name; return the host's variables that they name."""
    place.write("home/corp-ca.pem", CERTIFICATE)
    place.write("home/.ssh/bottle_ed25519", keys.private("plain"))
    place.write("home/.ssh/known_hosts", f"github.com {keys.public('pinned')}\n")
    for path in ("agents/bottles/python/Dockerfile", "agents/bottles/Dockerfile.mine"):
        place.write(path)
    return {"API_KEY": "a", "GITHUB_TOKEN": "g"}


def test_the_commented_example_of_the_default_bottle_is_one(place: Place) -> None:
    text = (ROOT / "agents/bottles/default.yaml").read_text(encoding="utf-8")
    example = re.findall(r"^# (.*)$", text.partition("optional:\n")[2].partition('# "requests')[0], re.MULTILINE)
    place.write("agents/bottles/default.yaml", "\n".join(example))
    bottle = place.load(environ=_place_of_examples(place)).bottle
    assert [str(credential.host) for credential in bottle.credentials] == ["api.github.com", "github.com"]
    assert bottle.dockerfile
    assert bottle.allow


def test_the_example_of_the_documentation_is_one(place: Place) -> None:
    text = (ROOT / "docs/manifests.md").read_text(encoding="utf-8")
    example = text.partition("# agents/bottles/python-dev.yaml\n")[2].partition("```")[0]
    place.write("agents/bottles/default.yaml", example)
    bottle = place.load(environ=_place_of_examples(place)).bottle
    assert bottle.limits.requests == 800
    assert bottle.api.paths == (("POST", "/v1/files"),)
    assert [host.port for host in bottle.ssh] == [22]
    assert [credential.paths for credential in bottle.credentials] == [(), ("/acme/site.git/",)]


@pytest.mark.parametrize(("text", "requests"), [("limits: {requests: 1}", 1), ("limits: {cpus: 1}", None)])
def test_messages_to_the_api_are_limited_if_asked_for(place: Place, text: str, requests: int | None) -> None:
    place.write("agents/bottles/default.yaml", text)
    assert place.load().bottle.limits.requests == requests


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("*.anthropic.com", "a host of anthropic.com could front for the API"),
        ("api.anthropic.com:8443", "only port 443 of api.anthropic.com passes"),
    ],
)
def test_no_host_may_front_for_the_api(place: Place, host: str, reason: str) -> None:
    (fault,) = bottle_faults(place, f"egress: {{allow: [a.test, '{host}']}}")
    assert fault.startswith(f'bottles/default.yaml:1:26: egress.allow: "{host}": {reason}')


@pytest.mark.parametrize("key", ["cpus", "memory", "pids"])
def test_a_limit_may_be_done_without(place: Place, key: str) -> None:
    place.write("agents/bottles/default.yaml", f"limits: {{{key}: none}}")
    bottle = place.load().bottle
    assert bottle.limits == replace(Limits(), **{key: None})
    assert bottle.unlimited == (key,)


@pytest.mark.parametrize("memory", ["511m", "6m", "536870911", "0", "-4", "2000t", '"536870911b"'])
def test_too_little_or_too_much_memory_is_told(place: Place, memory: str) -> None:
    (fault,) = bottle_faults(place, f"limits: {{memory: {memory}}}")
    assert re.search(r"limits\.memory: (must be|expected) ", fault)


@pytest.mark.parametrize("memory", ["512m", "512M", "536870912", '"536870912"', "0.5 GB", "524288KiB"])
def test_sizes_are_binary_in_any_spelling(place: Place, memory: str) -> None:
    place.write("agents/bottles/default.yaml", f"limits: {{memory: {memory}}}")
    assert place.load().bottle.limits.memory == 512 * 1024**2


@pytest.mark.parametrize("version", ["latest", "2.1", '"2.1.331\\n"', "2.1.٣", "2.1.331-beta", '""', "^2.1.331"])
def test_only_a_whole_version_of_claude_is_one(place: Place, version: str) -> None:
    (fault,) = bottle_faults(place, f"image: {{claude: {version}}}")
    assert re.search(r":1:17: image\.claude: (must be a version such as 2\.1\.331$|expected a string)", fault)


def test_a_version_of_claude_needs_no_dockerfile(place: Place) -> None:
    place.write("agents/bottles/default.yaml", "image: {claude: 2.1.332}")
    bottle = place.load().bottle
    assert (bottle.claude, bottle.dockerfile) == ("2.1.332", None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ca_certs: [none.pem]", "none.pem cannot be read: No such file or directory"),
        ("ca_certs: [.]", " cannot be read: not a file"),
        ("ca_certs: [large.pem]", "large.pem cannot be read: larger than 1 MiB"),
        ("ca_certs: [pipe]", "pipe cannot be read: not a file"),
        (f"ca_certs: [{17 * 'x,'}]", "ca_certs: more than 16 files"),
        ("image: {dockerfile: large.pem}", "large.pem cannot be read: larger than 1 MiB"),
        ("image: {dockerfile: ''}", "image.dockerfile: is empty; give a path"),
        ("ca_certs: [default.yaml]", "contains no PEM certificate"),
        ("ca_certs: [~/key.pem]", "/home/key.pem contains a private key"),
        ("image: {dockerfile: none}", "bottles/none cannot be read: No such file or directory"),
        ("image: {dockerfile: .}", "bottles cannot be read: not a file"),
        ("image: {dockerfile: ~/Dockerfile}", "/home/Dockerfile is outside "),
        ("image: {dockerfile: ../../home/Dockerfile}", "/home/Dockerfile is outside "),
        ("image: {dockerfile: out/Dockerfile}", "bottles/out/Dockerfile is outside "),
        ('image: {dockerfile: "a\\0b"}', "contains a NUL character"),
    ],
)
def test_a_path_must_lead_to_what_is_wanted(place: Place, text: str, reason: str) -> None:
    place.write("home/key.pem", f"{CERTIFICATE}-----BEGIN EC PRIVATE KEY-----\n")
    place.write("home/Dockerfile")
    os.truncate(place.write("agents/bottles/large.pem", CERTIFICATE), (1 << 20) + 1)
    os.mkfifo(place.agents / "bottles/pipe")
    (place.agents / "bottles/out").symlink_to(place.root / "home")
    (fault,) = bottle_faults(place, text)
    assert reason in fault
