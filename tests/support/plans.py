"""Plans for the tests of what is built from a plan: everything in them is fixed, so that golden files can be."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from claude_bottle.bottle.image import Image
from claude_bottle.bottle.plan import Plan, Request, Run, make
from claude_bottle.host.machine import Machine
from claude_bottle.host.owner import Owner
from claude_bottle.manifest import agent as manifest
from claude_bottle.manifest.git_identity import Identity
from claude_bottle.process.engine import EGRESS, Egress, EngineFacts
from claude_bottle.repository.clone import Repository, Work
from tests.support import keys

BASE = Image("claude-bottle:ba5e00000000", ("docker", "build", "--tag", "claude-bottle:ba5e00000000", "-"), b"context")
OWN = Image("claude-bottle:b0771e000000", ("docker", "build", "--tag", "claude-bottle:b0771e000000", "own"), b"")
CHOSEN = Egress("vpn", IPv4Network("198.51.100.0/26"), IPv4Address("198.51.100.1"))

EVERYTHING = """\
env:
  LITERAL: "1"
  API_KEY: ${HOST_KEY}
  GH_TOKEN: {placeholder: true}
  NPM_CONFIG_REGISTRY: https://npm.example.org:8443/all/
credentials:
  - host: api.example.net
    header: {Authorization: "Bearer ${HOST_KEY}", X-Team: "7-${HOST_KEY}"}
    methods: [GET, POST]
    paths: [/v1/, /graphql]
  - {host: "code.example.net:8443", basic: {user: ada, password: "${HOST_KEY}"}}
api: {paths: [POST /v1/files, /v1/skills/], server_side_fetch: true}
egress:
  allow: ["*.example.com", "git.example.org:22"]
  registries: [npm, pypi]
ca_certs: [ca.pem]
limits: {cpus: 0.5, memory: 1g, pids: 64, requests: 800, time: 2h}
ssh:
  - {host: git.example.org, key: ssh/plain}
  - {host: git.example.org, port: 2222, user: deploy, alias: second, key: ssh/plain}
  - {host: code.example.net, key: ssh/locked, known_host: PINNED}
git: {name: Ada "L", email: ada@example.org}
image: {preset: [python, node], dockerfile: Dockerfile.own}
""".replace("PINNED", keys.public("pinned"))
TOKEN = "sk-ant-oat01-planted-0123456789-AA"
AGENT = """\
description: Does all that can be asked for
bottle: everything
skills: [look]
prompt: |
  --not-an-option
"""
SSH_HOST = f"{{host: git.example.org, key: ssh/plain, known_host: {keys.public('pinned')}}}"


def machine(**environ: str) -> Machine:
    """Return a machine that never changes, with nothing in its environment but what is given."""
    return Machine(
        {"TERM": "xterm", "LANG": "C.UTF-8", **environ},
        Path("/nobody"),
        interactive=True,
        owner=Owner("host", "boot", 1, "2"),
    )


def manifests(folder: Path, bottle: str = "", agent: str = "") -> Path:
    """Write an agent `demo` whose bottle is `default`, and return their folder."""
    for inner in ("bottles", "skills/look"):
        (folder / inner).mkdir(parents=True)
    (folder / "demo.yaml").write_text(agent or "description: Looks around\n")
    (folder / "bottles" / "default.yaml").write_text(bottle or "egress: {allow: []}\n")
    return folder


def everything(folder: Path) -> Path:
    """Write an agent and a bottle that use every key of a manifest."""
    manifests(folder, agent=AGENT)
    bottles = folder / "bottles"
    (bottles / "everything.yaml").write_text(EVERYTHING)
    (bottles / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    ssh(bottles)
    (bottles / "Dockerfile.own").write_text("ARG BASE_IMAGE\nFROM $BASE_IMAGE\n")
    (folder / "skills/look/SKILL.md").write_text("---\nname: look\ndescription: Look\n---\nLook.\n")
    return folder


def ssh(folder: Path) -> None:
    """Write keys into `ssh/` and known hosts into `.ssh/` of a folder."""
    for inner in ("ssh", ".ssh"):
        (folder / inner).mkdir(parents=True)
    (folder / "ssh/plain").write_text(keys.private("plain"))
    (folder / "ssh/locked").write_text(keys.private("locked", encrypted=True))
    names = ("git.example.org", "[git.example.org]:2222")
    (folder / ".ssh/known_hosts").write_text("".join(f"{name} {keys.public(name)} why\n" for name in names))


def plan(folder: Path, run: Run, *, name: str = "demo", egress: Egress | None = None, **environ: str) -> Plan:
    """Plan a session of an agent in `folder`, with fixed images and a fixed session id."""
    here = machine(CLAUDE_BOTTLE_PIPELOCK_IMAGE="pipelock:test", **environ)
    agent = manifest.load_agent(folder, name, environ=here.environ, home=folder / "bottles")
    presets = tuple(Image(f"claude-bottle:{name}", ("docker", "build", name), b"") for name in agent.bottle.presets)
    images = (BASE, *presets, *((OWN,) if agent.bottle.dockerfile else ()))
    asked = Request(here, agent, run, images, "0a1b2c3d", bytes(20), agent.bottle.git or Identity())
    return make(asked, EngineFacts(egress or Egress(EGRESS)))


def with_repository(made: Plan) -> Plan:
    """Return a plan that takes a repository in, with uncommitted changes on top."""
    work = Work(Path("/home/me/it's mine"), "c" * 40, "5" * 40)
    notes = ("1 uncommitted change included as a commit on top",)
    origin, author = "https://example.com/x", Identity("A User")
    taken = Repository(work, "main cccccccccc", b"a" * 40 + b"\n", origin, author, notes, with_changes=True)
    return replace(made, repository=taken)
