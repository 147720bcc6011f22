"""Bottles: sizes, hosts, paths, and the whole message for what is wrong."""

import os

import pytest

from tests.support.manifests import CERTIFICATE, Place, bottle_faults

PIDS = "want a whole number of processes, from 64 (claude and its tools need some) to 4194304"
SIZE = "want a size such as 4g, 512m or a number of bytes"
NAME = "a host name must not be empty or contain spaces or control characters"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("env: [A]", "1:6: env: want a mapping (key: value), found a list"),
        ("env:", "1:5: env: want a mapping (key: value), found nothing"),
        ("egress: {allow: github.com}", "1:17: egress.allow: want a list, found text"),
        ("egress: {allow: [1.5]}", "1:18: egress.allow: want text (quote it), found a number"),
        ("env: {A: yes, B: true}", "1:18: env.B: want text (quote it), found true or false"),
        ('env: {A: "x\\0"}', "1:10: env.A: holds a NUL character, which cannot be passed on"),
        ("limits: {cpus: two}", "1:16: limits.cpus: want a number, found text"),
        ("limits: {cpus: true}", "1:16: limits.cpus: want a number, found true or false"),
        ("limits: {cpus: 0}", "1:16: limits.cpus: want a number of cpus, from 0.01 to 4096"),
        ("limits: {cpus: .nan}", "1:16: limits.cpus: want a number of cpus, from 0.01 to 4096"),
        ("limits: {memory: 4 gallons}", f"1:18: limits.memory: {SIZE}, found text"),
        ("limits: {pids: 1.5}", f"1:16: limits.pids: {PIDS}"),
        ("limits: {pids: .inf}", f"1:16: limits.pids: {PIDS}"),
        ("image: {}", '1:8: image: names no "dockerfile"'),
        ("egress: {alow: []}", '1:10: unknown key "egress.alow"; did you mean "allow"?'),
        ("zzz: 1", '1:1: unknown key "zzz"; known here: env, ssh, git, egress, ca_certs, limits, image'),
        ('egress: {allow: ["a.com\\x1b[2J"]}', rf'1:18: egress.allow: "a.com\x1b[2J": {NAME}'),
    ],
)  # fmt: skip
def test_a_type_fault_names_key_wanted_and_found(place: Place, text: str, fault: str) -> None:
    found = bottle_faults(place, text)
    assert found == [f"bottles/default.yaml:{fault}"]
    assert found[0].isprintable()


@pytest.mark.parametrize("memory", ["511m", "6m", "536870911", "0", "-4", "2000t", '"536870911b"'])
def test_too_little_or_too_much_memory_is_told(place: Place, memory: str) -> None:
    (fault,) = bottle_faults(place, f"limits: {{memory: {memory}}}")
    assert "limits.memory: want " in fault


@pytest.mark.parametrize("memory", ["512m", "512M", "536870912", '"536870912"', "0.5 GB", "524288KiB"])
def test_sizes_are_binary_in_any_spelling(place: Place, memory: str) -> None:
    place.write("agents/bottles/default.yaml", f"limits: {{memory: {memory}}}")
    assert place.load().bottle.limits.memory == 512 * 1024**2


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
        ("ca_certs: [default.yaml]", "holds no PEM certificate"),
        ("ca_certs: [~/key.pem]", "/home/key.pem holds a private key"),
        ("image: {dockerfile: none}", "bottles/none cannot be read: No such file or directory"),
        ("image: {dockerfile: .}", "bottles cannot be read: not a file"),
        ("image: {dockerfile: ~/Dockerfile}", "/home/Dockerfile lies outside of "),
        ("image: {dockerfile: ../../home/Dockerfile}", "/home/Dockerfile lies outside of "),
        ("image: {dockerfile: out/Dockerfile}", "bottles/out/Dockerfile lies outside of "),
        ('image: {dockerfile: "a\\0b"}', "holds a NUL character"),
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
