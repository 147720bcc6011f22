"""What a session will be able to do, shown before it starts: the summary, the question, the dry run."""

from collections.abc import Iterator, Mapping

from claude_bottle.bottle.plan import Conversation, Plan
from claude_bottle.documents.escaping import escape_control_chars, quoted
from claude_bottle.egress import allowlist
from claude_bottle.errors import RefusedError
from claude_bottle.host import console
from claude_bottle.manifest import duration
from claude_bottle.manifest.api import ANY
from claude_bottle.manifest.bottle import Bottle, Limits
from claude_bottle.manifest.credentials import Credential
from claude_bottle.manifest.environment import EnvVar
from claude_bottle.manifest.ssh_hosts import SshHost
from claude_bottle.process import forward
from claude_bottle.process.engine import DEBUG_LOG
from claude_bottle.session.steps import Step, Table

_PROMPT_SHOWN = 60  # characters
_STDIN_SHOWN = 4096  # bytes
_GIB, _MIB = 1 << 30, 1 << 20


def summary(plan: Plan, building: str) -> str:
    """Return the preflight's text; `building` is what is said of the image. Manifests' text is made harmless."""
    return "".join(f"{line.rstrip()}\n" for line in _lines(plan, building))


def ask(question: str) -> None:
    """Ask on the terminal, No being the default; raises RefusedError unless the answer is yes."""
    if not console.ask(question):
        raise RefusedError("not started")


def link(url: str, env: Mapping[str, str]) -> str:
    """Return the command that opens the way to an engine for the others; nothing if there is none to open."""
    if not forward.can_be_forwarded(url):
        return ""
    host, argv = forward.shown(url, env)
    return f"# link, which all others go through: DOCKER_HOST={host}\n{quoted(*argv)}\n"


def commands(table: Table) -> str:
    """Return every docker command of a session, quoted for a shell, teardown included."""
    undos = [f"# undo {step.name}\n{quoted(*step.undo)}\n" for step in table.undos]
    return "".join((*map(command, table), *undos))


def command(step: Step) -> str:
    """Return one step's docker command, quoted for a shell, with its stdin if that is text for people."""
    condition = f"{quoted(*step.skip_if)} > /dev/null 2>&1 ||\n" if step.skip_if else ""
    # Rules stand there whole, so that they can be read; of a tar stream, a program or certificates the size is told.
    shown = step.stdin[: step.stdin_text] if step.stdin_text <= _STDIN_SHOWN else b""
    rest = len(step.stdin) - len(shown)
    size = "" if step.stdin_from or not rest else f": {rest} {'more ' if shown else ''}bytes on stdin"
    size += f", then the first line of {step.quote.step}" if step.quote else ""
    text = f" <<'END'\n{shown.decode()}END\n" if shown else "\n"
    return f"# {step.name}{size}\n{condition}{_feed(step)}{quoted(*step.argv)}{text}"


def _feed(step: Step) -> str:
    if not step.stdin_from:
        return ""
    head, asked = (quoted("printf", "%s", text.decode()) for text in (step.stdin, step.stdin_from.stdin))
    return f"{{ {head}; {asked} | {quoted(*step.stdin_from.argv)}; }} |\n"


def _lines(plan: Plan, building: str) -> Iterator[str]:
    agent, bottle = plan.agent, plan.agent.bottle
    yield f"agent   {escape_control_chars(agent.name):<13} {escape_control_chars(agent.description)}"
    if agent.skills:
        yield "  skills  " + escape_control_chars(", ".join(skill.name for skill in agent.skills))
        yield from (f"  note    {escape_control_chars(note)}" for skill in agent.skills for note in skill.notes)
    if plan.prompt is not None:
        yield f"  prompt  {shortened(plan.prompt)} ({len(plan.prompt)} characters)"
    if plan.run.arguments:
        yield "  claude  " + quoted(*plan.run.arguments)
    yield from _resumed(plan.run.resumed)
    yield from _repository(plan)
    yield f"bottle  {escape_control_chars(bottle.name)}"
    yield from _environment(bottle)
    yield from _signs(bottle, plan.token_source)
    yield from (f"  ssh     {escape_control_chars(_ssh(host))}" for host in bottle.ssh)
    yield from (f"  git     {escape_control_chars(who)}" for who in (str(plan.identity),) if who)
    yield "  egress  " + allowlist.summary(plan.allow)
    yield from (f"          {name}: any host under {name[2:]}" for name in plan.allow if name.startswith("*."))
    yield from _registries(bottle)
    if len(plan.ports) > 1:
        yield f"  ports   {', '.join(map(str, plan.ports))}, each open on every allowed host"
    if plan.certificates:
        yield "  trusts  " + escape_control_chars(", ".join(str(path) for path in bottle.ca_certs))
    yield f"  limits  {limits(bottle.limits)}"
    yield from _room(plan)
    claude = f", Claude Code {plan.image.claude}" if plan.image.claude else ""
    yield f"image   {plan.image.tag}{claude} {building}"
    yield from (f"  preset  {preset}" for preset in bottle.presets)
    yield from (f"engine  {escape_control_chars(name)}" for name in (plan.engine,) if name)
    if plan.facts.debug:
        yield f"warning {DEBUG_LOG}"
    shipped = plan.images[-2] if bottle.dockerfile else plan.image
    own, before = (plan.facts.paths.get(image.tag) for image in (plan.image, shipped))
    if own and before and own != before:  # not known of an image that is still to be built
        yield f"  path    {escape_control_chars(own)}"


def _room(plan: Plan) -> Iterator[str]:
    """Yield that the memory of the bottles that run and of this one is more than the engine's, by their limits."""
    own, others, there = plan.agent.bottle.limits.memory or 0, plan.facts.bottles, plan.facts.memory
    if own and there and own + sum(others) > there:
        beside = f" and {_gib(sum(others))} of {len(others)} running" if others else ""
        yield f"  warning its memory{beside} may be more than the engine's {_gib(there)}"


def _gib(count: int) -> str:
    return f"{count / _GIB:.1f} GiB"


def _resumed(resumed: Conversation | None) -> Iterator[str]:
    if resumed:
        size = f"{len(resumed.data) / 1024:.1f} KiB"
        yield f"  resume  session {resumed.session}, {size}: an old conversation can carry an old injection"


def _repository(plan: Plan) -> Iterator[str]:
    if plan.repository:
        yield f"repo    {escape_control_chars(f'{plan.repository.work.repository} at {plan.repository.ref}')}"
        yield f"  back    as branch {plan.branch}"
        yield from (f"  note    {escape_control_chars(note)}" for note in plan.repository.notes)


def _environment(bottle: Bottle) -> Iterator[str]:
    if bottle.env:
        yield f"  env     {', '.join(map(_variable, bottle.env))}"
    if bottle.readable:
        yield f"  note    the agent can read {', '.join(bottle.readable)}"


def _registries(bottle: Bottle) -> Iterator[str]:
    yield from (f"  {each.name:<7} {escape_control_chars(each.where)}" for each in bottle.registries)
    if bottle.registries:
        yield "          anyone can publish here: data can leave"


def _variable(variable: EnvVar) -> str:
    return f"{variable.name} ({origin(variable)})" if variable.source or variable.placeholder else variable.name


def origin(variable: EnvVar) -> str:
    """Return where a variable's value comes from."""
    if variable.source is None:
        return "placeholder" if variable.placeholder else "literal"
    return "from host" if variable.source == variable.name else f"from host {variable.source}"


def _signs(bottle: Bottle, source: str) -> Iterator[str]:
    """Yield who gets which credential, for which requests, and what more than usual the API may be asked for."""
    signed = [f"{each.host} (from {' and '.join(each.sources)})" for each in bottle.credentials]
    yield f"  signs   {', '.join((f'{allowlist.API} (from {source})', *signed))}"
    for credential in bottle.credentials:
        yield from (f"          {credential.host}: {rules}" for rules in (only(credential),) if rules)
    if bottle.api.paths:
        further = (path if method == ANY else f"{method} {path}" for method, path in bottle.api.paths)
        yield f"  widens  {allowlist.API} also takes {', '.join(further)}"
    if bottle.api.server_side_fetch:
        yield f"  widens  {allowlist.API} may fetch addresses and run code for the agent"


def only(credential: Credential) -> str:
    """Return the methods and paths that a credential is for; empty if for all."""
    parts = [", ".join(part) for part in (credential.methods, credential.paths) if part]
    return f"only {' of '.join(parts)}" if parts else ""


def limits(of: Limits) -> str:
    """Return limits as people read them, which may round a size."""
    many = "" if of.requests == 1 else "s"
    requests = "" if of.requests is None else f", {of.requests} request{many} to the API"
    cpus = "cpus not limited" if of.cpus is None else f"{of.cpus:g} cpus"
    memory = "memory not limited" if of.memory is None else f"{_size(of.memory)} memory"
    pids = "processes not limited" if of.pids is None else f"{of.pids} processes"
    time = "" if of.time is None else f", ends after {duration.written(of.time)}"
    return f"{cpus}, {memory}, {pids}{requests}{time}"


def _ssh(host: SshHost) -> str:
    alias = "" if host.alias == host.host else f"{host.alias} is "
    return f"{alias}{ssh(host)}"


def ssh(host: SshHost) -> str:
    """Return an ssh host without its alias."""
    asked = ", whose passphrase is asked for" if host.key.encrypted else ""
    return f"{host.host} as {host.user}, port {host.port}, key {host.key.path}{asked}"


def shortened(prompt: str, most: int = _PROMPT_SHOWN) -> str:
    """Return the beginning of a prompt as one harmless line."""
    line = escape_control_chars(" ".join(prompt.split()))
    return line if len(line) <= most else line[:most].rstrip() + " ..."


def _size(count: int) -> str:
    return f"{count / _GIB:g} GiB" if count >= _GIB else f"{count / _MIB:g} MiB"
