"""What the user said yes to: recorded by agent in the state folder, and compared with the plan of the next start."""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

from claude_bottle.bottle import home
from claude_bottle.bottle.plan import Plan
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.egress import allowlist
from claude_bottle.host import own_file, proof
from claude_bottle.host.machine import Machine
from claude_bottle.manifest.api import ANY
from claude_bottle.manifest.credentials import Credential
from claude_bottle.session import preflight

_VERSION = "approval 1"  # of the record: one of another version counts as none
INCLUDED = ", with uncommitted changes"  # the end of a repository's entry
_MOST = 1 << 25  # bytes of a record; those of a manifest are far fewer


@dataclass(frozen=True)
class Entry:
    """A part of a plan: its group and name in the preflight, what people may see of it, and a code over all of it."""

    group: str
    name: str
    shown: str
    code: str

    def line(self, mark: str, more: str = "") -> str:
        """Return it as a line of the preflight, text of manifests made harmless."""
        return f"{mark} {self.group:<7} {escape_control_chars(': '.join(filter(None, (self.name, self.shown))) + more)}"


@dataclass(frozen=True)
class Approval:
    """An answered yes: when, in local time, and to what."""

    when: str
    entries: tuple[Entry, ...]


def entries(plan: Plan) -> tuple[Entry, ...]:
    """Return all that a plan takes from manifest and command line; literal values and contents only as a code."""
    return tuple(
        Entry(group, name, shown, proof.proof(plan.key, _VERSION, group, name, _canonical(content)))
        for group, name, shown, content in (*_agent(plan), *_bottle(plan), *_image(plan))
    )


def compared(before: Approval | None, now: tuple[Entry, ...]) -> str:
    """Return the preflight's lines on what has changed since the last yes."""
    if not before:
        return "plan    first time\n"
    lines = changes(before, now)
    if not lines:
        return f"plan    as approved on {before.when}\n"
    return "".join(f"{line}\n" for line in (f"plan    changed since you approved it on {before.when}", *lines))


def changes(before: Approval, now: tuple[Entry, ...]) -> list[str]:
    """Return a line for each part that is new, other or gone."""
    old, new = ({(entry.group, entry.name): entry for entry in each} for each in (before.entries, now))
    lines = []
    for key, entry in new.items():
        if key not in old:
            lines.append(entry.line("+"))
        elif entry.code != old[key].code:
            was = old[key].shown
            lines.append(entry.line("~", " (content changed)" if entry.shown == was else f" (was {was})"))
    return [*lines, *(entry.line("-") for key, entry in old.items() if key not in new)]


def read(machine: Machine, agent: Path) -> Approval | None:
    """Return what was approved of an agent, by the path of its manifest; None without a record that proves whole."""
    try:
        code, _, body = own_file.read(_file(machine, agent), private=True, most=_MOST).decode("ascii").partition("\n")
    except (OSError, ValueError):
        return None
    body = body.removesuffix("\n")
    if not proof.is_proof(code, machine.key, _VERSION, _real(agent), body):
        return None
    when, found = json.loads(body)
    return Approval(when, tuple(Entry(*entry) for entry in found))


def write(machine: Machine, agent: Path, now: tuple[Entry, ...]) -> None:
    """Record a yes, in place of an older one; nothing without the user's key. Raises OSError."""
    if machine.key:
        body = json.dumps((time.strftime("%Y-%m-%d %H:%M"), [astuple(entry) for entry in now]))
        code = proof.proof(machine.key, _VERSION, _real(agent), body)
        own_file.write(_file(machine, agent), f"{code}\n{body}")


def forget(machine: Machine, agent: Path) -> bool:
    """Remove the record of an agent, whatever its state; return whether there was one. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        _file(machine, agent).unlink()
        return True
    return False


def _file(machine: Machine, agent: Path) -> Path:
    name = hashlib.sha256(os.fsencode(_real(agent))).hexdigest()
    return machine.key_file.with_name("approvals") / name


def _real(agent: Path) -> str:
    return str(agent.parent.resolve() / agent.name)  # a link of the file's own may be gone by now


# Group, name, what is shown, and the content; what a code covers need not be shown, but not the other way round.
_Part = tuple[str, str, str, object]


def _agent(plan: Plan) -> Iterator[_Part]:
    yield "agent", "description", "", plan.agent.description
    contents = home.skill_contents(plan.home)
    for skill in plan.agent.skills:
        yield "skills", skill.name, str(skill.folder), (skill.folder, contents.get(skill.name))
    if plan.prompt is not None:
        yield "prompt", "", f"{len(plan.prompt)} characters", plan.prompt
    if words := plan.run.arguments:
        yield "claude", "", f"{len(words)} argument{'' if len(words) == 1 else 's'}", words
    if resumed := plan.run.resumed:
        yield "resume", "", f"session {resumed.session}", resumed
    if repository := plan.repository:
        asked = (repository.work.repository, repository.asked, repository.with_changes)
        included = INCLUDED if repository.with_changes else ""
        yield "repo", "", f"{repository.work.repository} at {repository.asked}{included}", asked


def _bottle(plan: Plan) -> Iterator[_Part]:
    bottle = plan.agent.bottle
    yield "bottle", "", bottle.name, bottle.name
    yield from (("env", variable.name, preflight.origin(variable), variable) for variable in bottle.env)
    yield from (("signs", str(each.host), _signed(each), each) for each in bottle.credentials)
    yield from (("widens", path if method == ANY else f"{method} {path}", "", "") for method, path in bottle.api.paths)
    if bottle.api.server_side_fetch:
        yield "widens", f"{allowlist.API} may fetch addresses and run code", "", ""
    private = {host.alias: key.private for key in plan.keys for host in key.hosts}
    yield from (("ssh", host.alias, preflight.ssh(host), (host, private.get(host.alias))) for host in bottle.ssh)
    yield "git", "", str(plan.identity) or "nobody", plan.identity
    yield from (("egress", str(host), "", "") for host in sorted({*allowlist.defaults(), *bottle.allow}))
    # A mirror's path may be a secret of the host's.
    reached = ((each.name, ", ".join(map(str, each.hosts)), (each.hosts, each.recorded)) for each in bottle.registries)
    yield from (("registry", *each) for each in reached)
    yield "network", "", plan.egress.name, plan.egress.name
    if bottle.ca_certs:
        yield "trusts", "", ", ".join(map(str, bottle.ca_certs)), (bottle.ca_certs, plan.certificates)
    yield "limits", "", preflight.limits(bottle.limits), bottle.limits


def _signed(credential: Credential) -> str:
    names = ", ".join(header.name for header in credential.headers)
    rules = preflight.only(credential)
    return f"{names} from {' and '.join(credential.sources)}{f', {rules}' if rules else ''}"


def _image(plan: Plan) -> Iterator[_Part]:
    yield "image", "", plan.image.tag, tuple(each.tag for each in plan.images)  # each a hash of what it is built from
    yield from (("image", f"preset {name}", "", "") for name in plan.agent.bottle.presets)
    if plan.agent.bottle.dockerfile:
        yield "image", "Dockerfile", str(plan.agent.bottle.dockerfile), plan.agent.bottle.dockerfile
    if plan.image.claude:
        yield "image", "Claude Code", plan.image.claude, plan.image.claude
    yield "image", "sidecar", plan.sidecar_image, plan.sidecar_image


def _canonical(content: object) -> str:
    """Return one text for equal contents, another for others; of bytes their hash."""

    def plain(value: object) -> object:
        if isinstance(value, bytes):
            return hashlib.sha256(value).hexdigest()
        return str(value) if isinstance(value, Path) else astuple(value)  # type: ignore[call-overload]

    return json.dumps(content, default=plain)
