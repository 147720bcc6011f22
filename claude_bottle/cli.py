"""The commands: parse, call, exit. The only user of click."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from claude_bottle.documents.escaping import columns, harmless
from claude_bottle.errors import BottleError, EngineError, ManifestError
from claude_bottle.host.machine import Machine, read_machine

if TYPE_CHECKING:
    from claude_bottle.manifest.agent import Agent


class _Commands(click.Group):
    """A group that tells a BottleError in its own words and exits with its code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BottleError as error:
            # A manifest's lines begin with path:line:column, which editors and people follow.
            prefix = "" if isinstance(error, ManifestError) else "claude-bottle: "
            click.echo(prefix + "\n".join(map(harmless, str(error).split("\n"))), err=True)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            sys.exit(130)  # click would say "Aborted!" and exit with 1


def _machine(agents: Path | None) -> Machine:
    from claude_bottle.process import liveness

    machine = read_machine(liveness.this_process())
    if agents is None:
        return machine
    return replace(machine, environ={**machine.environ, "CLAUDE_BOTTLE_AGENTS": str(agents)})


def _load(machine: Machine, name: str | None = None) -> "tuple[Agent, ...]":
    """Return one agent, or all."""
    from claude_bottle.manifest import agent as manifest

    if name is None:
        return manifest.load_agents(machine.agents, environ=machine.environ, home=machine.home)
    return (manifest.load_agent(machine.agents, name, environ=machine.environ, home=machine.home),)


def _agents_option(command: Callable[..., Any]) -> Callable[..., Any]:
    kind = click.Path(path_type=Path)
    return click.option("--agents", type=kind, metavar="DIR", help="Folder of the manifests.")(command)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Run Claude Code in bottles: isolated containers whose only way out is an allowlist."""


@main.command()
@click.argument("agent")
@click.argument("claude_arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- CLAUDE_ARGUMENTS]")
@click.option("--print", "question", metavar="QUESTION", help="Answer one question on stdout, without a terminal.")
@click.option("-y", "--yes", is_flag=True, help="Start without asking.")
@click.option("--dry-run", is_flag=True, help="Show what would be run; call no docker.")
@click.option("-v", "--verbose", is_flag=True, help="Tell each step and how long it took.")
@click.option("--repo", type=click.Path(path_type=Path), metavar="PATH", help="The git repository to work on.")
@click.option("--ref", metavar="REF", help="The revision of it to begin with, instead of HEAD.")
@click.option("--with-changes", is_flag=True, help="Take uncommitted changes along.")
@_agents_option
def start(
    *, agent: str, claude_arguments: tuple[str, ...], question: str | None, yes: bool, dry_run: bool, verbose: bool,
    repo: Path | None, ref: str | None, with_changes: bool, agents: Path | None,
) -> None:  # fmt: skip
    """Start AGENT in its bottle; words after -- go to claude."""
    from claude_bottle.bottle.plan import Run
    from claude_bottle.repository import source
    from claude_bottle.session import start as session

    machine = _machine(agents)
    [loaded] = _load(machine, agent)
    run = Run(terminal=machine.interactive and question is None, question=question, arguments=claude_arguments)
    wanted = source.wanted(loaded.repo, repo, ref, with_changes=with_changes)
    if dry_run:
        session.dry_run(machine, loaded, run, wanted)
        return
    sys.exit(session.start(machine, loaded, session.Options(run, yes, verbose, wanted)))


@main.command()
@click.argument("agent", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the receipts as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Tell each step and how long it took.")
@_agents_option
def verify(*, agent: str | None, as_json: bool, verbose: bool, agents: Path | None) -> None:
    """Prove the isolation of AGENT's bottle, or of all, without running claude; exit 66 on a fault."""
    from claude_bottle.commands import running

    machine = _machine(agents)
    told = (lambda _: None) if as_json else click.echo
    results, code = running.verify(machine, _load(machine, agent), verbose=verbose, told=told)
    if as_json:
        click.echo(json.dumps(results, indent=2))
    sys.exit(code)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(*, as_json: bool) -> None:
    """Tell what a start will find here; exit 69 where it cannot work."""
    from dataclasses import asdict

    from claude_bottle.commands import doctor

    findings = list(doctor.examine(_machine(None)))
    told = "\n".join(harmless(finding.line) for finding in findings)
    click.echo(json.dumps(list(map(asdict, findings)), indent=2) if as_json else told)
    if any(finding.fault for finding in findings):
        sys.exit(EngineError.exit_code)


@main.command()
@_agents_option
@click.option("--pull", is_flag=True, help="Look for a newer base image.")
@click.option("--no-cache", is_flag=True, help="Build every layer anew.")
def build(*, agents: Path | None, pull: bool, no_cache: bool) -> None:
    """Build the image of every bottle."""
    from claude_bottle.session import start as session

    machine = _machine(agents)
    session.build(machine, _load(machine), pull=pull, no_cache=no_cache)


@main.command()
@_agents_option
def agents(agents: Path | None) -> None:
    """List the agents, their bottles and what these may reach."""
    from claude_bottle.egress import allowlist

    loaded = _load(_machine(agents))
    rows = [(a.name, a.bottle.name, allowlist.summary(allowlist.allowlist(a.bottle.reach))) for a in loaded]
    click.echo(columns([("AGENT", "BOTTLE", "EGRESS"), *(tuple(map(harmless, row)) for row in rows)]))


@main.command()
@click.argument("agent", required=False)
@_agents_option
def check(agent: str | None, agents: Path | None) -> None:
    """Check the manifests of AGENT, or all; exit 64 on a fault."""
    count = len(_load(_machine(agents), agent))
    click.echo(f"{count} agent{'' if count == 1 else 's'} checked, no fault found")


@main.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the sessions as JSON.")
def list_(*, as_json: bool) -> None:
    """List the sessions that run, with how many requests were allowed and blocked."""
    from claude_bottle.commands import running

    machine = _machine(None)
    click.echo(json.dumps(running.list_json(machine), indent=2) if as_json else columns(running.list_rows(machine)))


@main.command()
@click.argument("session")
def shell(*, session: str) -> None:
    """Open a shell in the bottle of SESSION, which any unambiguous beginning names."""
    from claude_bottle.commands import running

    sys.exit(running.shell(_machine(None), session))


@main.command()
@click.argument("session")
@click.option("-f", "--follow", is_flag=True, help="Go on until the session ends.")
@click.option("--blocked", is_flag=True, help="Only what was refused.")
def logs(*, session: str, follow: bool, blocked: bool) -> None:
    """Show what SESSION asked of its sidecar: time, verdict, host, reason."""
    from claude_bottle.commands import running

    running.logs(_machine(None), session, follow=follow, blocked=blocked)


@main.command()
@click.argument("session")
def fetch(*, session: str) -> None:
    """Bring the work of SESSION, as it is now, back as a branch of the repository that it was started with."""
    from claude_bottle.commands import fetch as work

    work.fetch(_machine(None), session)


@main.command()
@click.argument("session")
def diff(*, session: str) -> None:
    """Show what SESSION has changed in its repository so far."""
    from claude_bottle.commands import fetch as work

    click.echo_via_pager(work.diff(_machine(None), session))


@main.command()
@click.argument("session", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All that this user has started on this machine.")
def stop(*, session: tuple[str, ...], every: bool) -> None:
    """End each SESSION and wait until nothing of it is left."""
    from claude_bottle.commands import running

    if bool(session) == every:
        raise click.UsageError("name sessions, or give --all")
    running.stop(_machine(None), session, every=every)


@main.command()
@click.option("--dry-run", is_flag=True, help="Only tell what would be removed.")
def cleanup(*, dry_run: bool) -> None:
    """Remove what sessions have left whose launcher is dead; exit 75 if something cannot be removed."""
    from claude_bottle.commands import running

    running.cleanup(_machine(None), dry_run=dry_run)


@main.command()
@click.argument("session")
@click.argument("hosts", nargs=-1, required=True, metavar="HOST...")
@click.option("--save", is_flag=True, help="Write the hosts into the manifest of the bottle, too.")
def allow(*, session: str, hosts: tuple[str, ...], save: bool) -> None:
    """Let SESSION, which runs, reach each HOST, a name or name:port, at once."""
    from claude_bottle.commands import running
    from claude_bottle.egress import allowlist

    try:
        wanted = [allowlist.parse_host(host) for host in hosts]
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    running.allow(_machine(None), session, wanted, save=save)


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.argument("names", nargs=-1, metavar="[ALIAS]...")
def completion(*, shell: str, names: tuple[str, ...]) -> None:
    """Print the completion script of SHELL for cli.py and each ALIAS of it."""
    from click.shell_completion import get_completion_class

    from claude_bottle.commands import running

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101  (one of click's own three)
    script = kind(main, {}, running.PROGRAM, "_CLI_PY_COMPLETE").source()
    click.echo(running.completion(script, names), nl=False)
