"""The command line: parse, call the command, print, exit. The only user of click."""

import contextlib
import gc
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from claude_bottle import PREFIX, __version__
from claude_bottle.documents.escaping import escape_control_chars
from claude_bottle.errors import BottleError, EngineError, LeftBehindError, MachineError, ManifestError
from claude_bottle.host import console
from claude_bottle.host.machine import Machine, machine_fault, read_machine

if TYPE_CHECKING:
    from claude_bottle.egress.allowlist import Host
    from claude_bottle.fleet.packing import Options as PackingOptions
    from claude_bottle.manifest.agent import Agent
    from claude_bottle.session.background import Background
    from claude_bottle.session.start import Options


class _Commands(click.Group):
    """A group that prints a BottleError, or an OSError, as one line and exits with its code."""

    def main(self, *args: Any, **extra: Any) -> Any:
        # Python looks for garbage while it imports, and again at its end: a fifth of a dry run's time, for nothing.
        gc.set_threshold(50_000)
        console.occupy()
        try:
            sys.exit(super().main(*args, **{**extra, "standalone_mode": False}))  # else its messages could fail
        except click.ClickException as error:
            if sys.stderr:
                with contextlib.suppress(OSError):
                    error.show(sys.stderr)
            sys.exit(error.exit_code)
        except OSError as error:
            sys.exit(_failed(error))
        except click.Abort:
            sys.exit(130)
        finally:
            console.give_up()
            gc.freeze()

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BottleError as error:
            sys.exit(_failed(error))
        except KeyboardInterrupt:
            sys.exit(130)  # click would print "Aborted!" and exit with 1


def _failed(error: BaseException) -> int:
    """Print a BottleError or an OSError; return its exit code."""
    if isinstance(error, BottleError):
        # Manifest errors begin with path:line:column, which editors recognize, so they get no prefix.
        show = console.show if isinstance(error, ManifestError) else console.say
        show("\n".join(map(escape_control_chars, str(error).split("\n"))))
        return error.exit_code
    assert isinstance(error, OSError)  # noqa: S101  (there is no other)
    console.say(escape_control_chars(f"system error: {machine_fault(error)}"))
    return MachineError.exit_code


def _machine(agents: Path | None) -> Machine:
    from claude_bottle.process import liveness

    machine = read_machine(liveness.this_process())
    if agents is None:
        return machine
    return replace(machine, environ={**machine.environ, "CLAUDE_BOTTLE_AGENTS": str(agents)})


def _check(machine: Machine, name: str | None = None) -> "tuple[Agent, ...]":
    from claude_bottle.commands import check

    return check.check(machine, name)


def _many(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


class _Text(click.ParamType[Any]):
    """A text that is not empty: an unset variable of a script must not choose a default in silence."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value else self.fail("must not be empty", param, ctx)


class _Time(click.ParamType[Any]):
    """A span of time, in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from claude_bottle.manifest import duration

        try:
            return duration.parse(value)
        except ValueError as error:
            return self.fail(str(error), param, ctx)


class _Name(click.ParamType[Any]):
    """A name for a session."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from claude_bottle.session import names

        return value if names.is_name(value) else self.fail(f"must be of {names.SHAPE}", param, ctx)


class _Folder(_Text):
    """A path that is not empty: `Path("")` would be the current directory."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return Path(super().convert(value, param, ctx))


def _agents_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--agents", type=_Folder(), metavar="DIR", help="Folder of the manifests.")(command)


def _on_option(command: Callable[..., Any]) -> Callable[..., Any]:
    names, told = _completer("engines"), "Use a docker context of CLAUDE_BOTTLE_ENGINES, or any."
    return click.option("--on", type=_Text(), metavar="ENGINE", shell_complete=names, help=told)(command)


def _completer(kinds: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return a completion function for "agents", "sessions", "kept", "engines" or "refs", or for more than one kind."""

    def complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
        from claude_bottle.commands import completion

        return completion.offered(kinds, _machine(ctx.params.get("agents")), ctx.params, ctx.args, incomplete)

    return complete


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": console.WIDTH}
)
@click.version_option(__version__, prog_name=PREFIX, message="%(prog)s %(version)s")
def main() -> None:
    """Run Claude Code in bottles: isolated containers whose only way out is an allowlist."""


@main.command()
@click.argument("agent", shell_complete=_completer("agents"))
@click.argument("claude_arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- CLAUDE_ARGUMENTS]")
@click.option(
    "--print", "question", type=_Text(), metavar="QUESTION", help="Answer one question on stdout, without a terminal."
)
@click.option("-y", "--yes", is_flag=True, help="Skip the prompt.")
@click.option(
    "--yes-if-unchanged", is_flag=True, help="Skip the prompt if nothing changed since the last y, else exit with 65."
)
@click.option("--dry-run", is_flag=True, help="Print every docker command of the session and run none.")
@click.option("-v", "--verbose", is_flag=True, help="Print each step and its duration.")
@click.option("--repo", type=_Folder(), metavar="PATH", help="Git repository to work on.")
@click.option(
    "--ref",
    type=_Text(),
    metavar="REF",
    shell_complete=_completer("refs"),
    help="Revision to start from, instead of HEAD.",
)  # fmt: skip
@click.option("--with-changes", is_flag=True, help="Include uncommitted changes.")
@click.option(
    "--for", "time", type=_Time(), metavar="TIME", help="End after a time such as 90m, whatever the manifest has."
)
@click.option("--detach", is_flag=True, help="Go on in the background, and print the session's id.")
@click.option("--name", type=_Name(), metavar="NAME", help="Name the session, for other commands.")
@_on_option
@click.option("--keep", is_flag=True, help="Keep the conversation and its results when the session ends.")
@click.option(
    "--resume",
    type=_Text(),
    metavar="SESSION",
    shell_complete=_completer("kept"),
    help="Go on with a kept conversation in a new bottle.",
)
@click.option("--task", is_flag=True, hidden=True)  # by which `run` starts its launchers
@_agents_option
def start(
    *, agent: str, claude_arguments: tuple[str, ...], question: str | None, yes: bool, yes_if_unchanged: bool,
    dry_run: bool, verbose: bool, repo: Path | None, ref: str | None, with_changes: bool, time: int | None, keep: bool,
    resume: str | None, detach: bool, name: str | None, on: str | None, task: bool, agents: Path | None,
) -> None:  # fmt: skip
    """Start an agent in its bottle.

    Arguments after -- go to claude, as in: start AGENT -- --model opus
    """
    from claude_bottle.bottle.plan import Run
    from claude_bottle.repository import source
    from claude_bottle.session import resuming, time_limit
    from claude_bottle.session import start as session

    if yes and yes_if_unchanged:
        raise click.UsageError("--yes and --yes-if-unchanged exclude each other")
    if task:
        _task(_machine(agents), agent)
    machine, background = _machine(agents), None
    [loaded] = _check(machine, agent)
    if detach and not dry_run:
        # A yes covers neither a key's passphrase nor what an old conversation did not reach.
        locked = any(host.key.encrypted for host in loaded.bottle.ssh)
        background = _background(asks=not (yes or yes_if_unchanged) or locked or (yes and resume is not None))
        machine = _machine(agents)  # of the new process, which is the owner of what it makes
    machine = _on(machine, on, dry_run=dry_run)
    loaded = time_limit.limited(loaded, time) if time else loaded
    terminal = (machine.interactive or detach) and question is None
    run = Run(terminal=terminal, question=question, arguments=claude_arguments, name=name or "")
    wanted = source.wanted(loaded.repo, repo, ref, with_changes=with_changes)
    resumed = resuming.find(machine, resume) if resume else None
    if resumed:
        run, wanted = replace(run, resumed=resumed.conversation), resumed.wanted(wanted, named=ref is not None)
    if dry_run:
        session.dry_run(machine, loaded, run, wanted, resumed)
        return
    options = session.Options(run, yes, yes_if_unchanged, verbose, wanted, keep=keep or machine.is_on("KEEP"))
    _run(machine, loaded, replace(options, resumed=resumed, background=background))


def _on(machine: Machine, on: str | None, *, dry_run: bool = False) -> Machine:
    """Return the machine with the engine that the user wants."""
    from claude_bottle.session import engines

    if dry_run and on == engines.ANY:
        raise click.UsageError("a dry run asks no engine: name one instead of any")
    return engines.chosen(machine, on) if on else machine


def _run(machine: Machine, agent: "Agent", options: "Options") -> None:
    from claude_bottle.session import names
    from claude_bottle.session import start as session

    def started() -> int:
        with names.held(machine, options.run.name):
            return session.start(machine, agent, options)

    sys.exit(options.background.run(started, _failed) if options.background else started())


def _task(machine: Machine, agent: str) -> NoReturn:
    """Run the session that `run` has ordered on stdin."""
    from claude_bottle.session import start as session
    from claude_bottle.session.task import Launcher, Order

    launcher = Launcher(Order.read())

    def started() -> int:
        [loaded] = _check(machine, agent)
        return session.start(*launcher.prepared(machine, loaded), launcher.options())

    sys.exit(launcher.run(started, _failed))


def _background(*, asks: bool) -> "Background":
    """Return in a new process, which is the launcher from now on; this one exits once the session is proven."""
    from claude_bottle.process import background
    from claude_bottle.session.background import Background

    parted = background.split(asks=asks)
    if isinstance(parted, background.Back):
        return Background(parted)
    if parted.said:
        console.output(parted.said)
    sys.exit(parted.code)


@main.command()
@click.argument("tasks", type=click.Path(path_type=Path, dir_okay=False))
@click.option("-j", "at_once", type=click.IntRange(min=1), metavar="N", help="So many at a time.")
@_on_option
@click.option("--out", type=_Folder(), metavar="DIR", help="Folder of the results, instead of <TASKS>.results.")
@click.option("--retry", is_flag=True, help="Also run tasks that have failed.")
@click.option("-y", "--yes", is_flag=True, help="Skip the prompt.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
@_agents_option
def run(
    *, tasks: Path, at_once: int | None, on: str | None, out: Path | None, retry: bool, yes: bool, as_json: bool,
    agents: Path | None,
) -> None:  # fmt: skip
    """Run a list of tasks, each in its own session.

    TASKS is a YAML file. A task that is done is not run again unless it changed; exits with 1 if one failed.
    """
    from claude_bottle.commands import run as listed

    options = listed.Options(out or listed.folder(tasks), at_once, on, yes, retry)
    done = listed.run(_machine(agents), tasks, options)
    text = json.dumps([one.as_json() for one in done.lines], indent=2) if as_json else listed.table(done.lines)
    (console.report if done.code > 1 else console.output)(text)  # the terminal may have gone
    sys.exit(done.code)


@main.command()
@click.argument("agent", shell_complete=_completer("agents"))
@_agents_option
def forget(*, agent: str, agents: Path | None) -> None:
    """Remove the record of your last yes to an agent.

    The next start shows the agent as a new one.
    """
    from claude_bottle.commands import forget

    console.report(forget.forget(_machine(agents), agent))


@main.command()
@click.option("-v", "--verbose", is_flag=True, help="Print each step and its duration.")
def login(*, verbose: bool) -> None:
    """Sign in to Claude, and keep the token where you choose.

    Runs `claude setup-token` in a bottle of its own. CLAUDE_BOTTLE_OAUTH_TOKEN, if set, overrides the token.
    """
    from claude_bottle.commands import login

    console.report(login.login(_machine(None), verbose=verbose))


@main.command()
def logout() -> None:
    """Remove the token that login has kept."""
    from claude_bottle.commands import login

    console.report(login.logout(_machine(None)))


@main.group()
def fleet() -> None:
    """Run sessions on other machines, where nobody waits."""


def _task_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        (
            click.argument("agent", shell_complete=_completer("agents")),
            click.option("--print", "question", type=_Text(), metavar="QUESTION", required=True, help="Its question."),
            click.option("--repo", type=_Folder(), metavar="PATH", help="Git repository to work on."),
            click.option("--ref", type=_Text(), metavar="REF", help="Revision to start from, instead of HEAD."),
            click.option("--with-changes", is_flag=True, help="Include uncommitted changes."),
            click.option("--for", "time", type=_Time(), metavar="TIME", help="End after a time such as 90m."),
            _agents_option,
        )
    ):
        command = option(command)
    return command


def _packed(
    machine: Machine, *, agent: str, question: str, repo: Path | None, ref: str | None, with_changes: bool,
    time: int | None,
) -> "tuple[Agent, PackingOptions]":  # fmt: skip
    from claude_bottle.fleet.packing import Options
    from claude_bottle.repository import source

    [loaded] = _check(machine, agent)
    return loaded, Options(question, source.wanted(loaded.repo, repo, ref, with_changes=with_changes), time)


@fleet.command()
@_task_options
@click.option("-y", "--yes", is_flag=True, help="Skip the prompt.")
@_on_option
def submit(*, agents: Path | None, on: str | None, yes: bool, **task: Any) -> None:
    """Start a task in a container of an engine, and print its id.

    It needs this machine no longer. `fleet result` fetches what came of it.
    """
    from claude_bottle.commands import fleet

    machine = _machine(agents)
    console.output(fleet.submit(machine, *_packed(machine, **task), on=on, yes=yes))


@fleet.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the tasks as JSON.")
def list_tasks(*, as_json: bool) -> None:
    """List the tasks of all engines that CLAUDE_BOTTLE_ENGINES names."""
    from claude_bottle.commands import fleet

    found = fleet.listed(_machine(None))
    console.output(found.as_json() if as_json else found.table())


@fleet.command("result")
@click.argument("task", nargs=-1, required=True)
def task_result(*, task: tuple[str, ...]) -> None:
    """Print the answer of tasks that have ended, fetch their work, remove them.

    Exits with the first exit code that is not 0. A task whose work cannot be landed stays, until `fleet remove`.
    """
    from claude_bottle.commands import fleet

    machine, codes = _machine(None), []
    for name in task:
        found = fleet.result(machine, name)
        console.show("".join(f"{escape_control_chars(line)}\n" for line in found.said.splitlines()))
        console.emit(found.answer)
        fleet.land(machine, name, console.show)
        fleet.remove(machine, name)
        codes.append(found.task.code)
    sys.exit(next((code for code in codes if code), 0))


@fleet.command()
@click.argument("task", nargs=-1, required=True)
def cancel(*, task: tuple[str, ...]) -> None:
    """End tasks in order: their work and what they printed stay for `fleet result`."""
    from claude_bottle.commands import fleet

    machine = _machine(None)
    for name in task:
        console.report(f"{fleet.cancel(machine, name)} has ended")


@fleet.command("remove")
@click.argument("task", nargs=-1, required=True)
def remove_task(*, task: tuple[str, ...]) -> None:
    """Remove tasks that have ended, with all that they have printed and left."""
    from claude_bottle.commands import fleet

    machine = _machine(None)
    for name in task:
        fleet.remove(machine, name)


@fleet.command()
def nodes() -> None:
    """List the engines that CLAUDE_BOTTLE_ENGINES names."""
    from claude_bottle.commands import fleet

    console.output(fleet.nodes(_machine(None)))


@fleet.command()
@_task_options
def pack(*, agents: Path | None, **task: Any) -> None:
    """Pack a start, as a tar on stdout that holds no secret.

    It has the manifests, all files that they name, and the repository's history.
    """
    from claude_bottle.fleet import packing

    machine = _machine(agents)
    packing.pack(machine, *_packed(machine, **task), console.binary(out=True))


@fleet.command("secrets")
@click.argument("agent", shell_complete=_completer("agents"))
@_agents_option
def task_secrets(*, agent: str, agents: Path | None) -> None:
    """Print the values of an agent's secrets, for the --secrets-fd of `fleet run`.

    One JSON object: the token, variables, and private keys. For a pipe; refuses a terminal.
    """
    from claude_bottle.fleet import packing

    machine = _machine(agents)
    [loaded] = _check(machine, agent)
    console.binary(out=True).write(json.dumps(packing.secrets(machine, loaded)).encode())


@fleet.command("run")
@click.option("--secrets-fd", type=int, metavar="N", required=True, help="Descriptor to read the secrets from.")
@click.option("--out", type=_Folder(), metavar="DIR", default="/out", show_default=True, help="Folder for the work.")
@click.option("-v", "--verbose", is_flag=True, help="Print each step and its duration.")
def run_task(*, secrets_fd: int, out: Path, verbose: bool) -> None:
    """Run a packed start that comes on stdin.

    The answer goes to stdout, receipt and report to stderr, the work as bundles of git into DIR; exits with the agent's
    code. SIGTERM ends it in order.
    """
    from claude_bottle.fleet import launcher, payload

    try:
        with open(secrets_fd, "rb") as file:
            values = payload.secrets(file.read())
    except OSError as error:
        raise click.UsageError(f"descriptor {secrets_fd} cannot be read: {error.strerror}") from None
    sys.exit(launcher.run(_machine(None), launcher.Given(console.binary(out=False), values, out, verbose)))


@main.command()
@click.argument("agent", required=False, shell_complete=_completer("agents"))
@click.option("--json", "as_json", is_flag=True, help="Print the receipts as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Print each step and its duration.")
@_agents_option
def verify(*, agent: str | None, as_json: bool, verbose: bool, agents: Path | None) -> None:
    """Prove that bottles are isolated, without running claude.

    Checks the bottle of AGENT, or of every agent; exits with 66 if a check fails.
    """
    from claude_bottle.commands import check, verify
    from claude_bottle.host.machine import MadeUp

    machine = _machine(agents)
    done = []
    for one in verify.verify(machine, check.check(machine, agent, MadeUp()), verbose=verbose):
        done.append(one)
        if not as_json:
            console.output(str(one))
    if as_json:
        console.output(json.dumps({one.agent: one.as_json() for one in done}, indent=2))
    sys.exit(next((one.exit_code for one in done if one.exit_code), 0))


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(*, as_json: bool) -> None:
    """Check this machine for problems.

    Exits with 69 if a session cannot start here.
    """
    from dataclasses import asdict

    from claude_bottle.commands import doctor

    findings = list(doctor.examine(_machine(None)))
    text = "\n".join(escape_control_chars(finding.line) for finding in findings)
    console.output(json.dumps(list(map(asdict, findings)), indent=2) if as_json else text)
    if any(finding.fault for finding in findings):
        sys.exit(EngineError.exit_code)


@main.command()
@_agents_option
@click.option("--pull", is_flag=True, help="Pull a newer base image if there is one.")
@click.option("--no-cache", is_flag=True, help="Rebuild every layer.")
@click.option("--to", type=_Text(), metavar="ENGINE", help="Then send them to an engine of CLAUDE_BOTTLE_ENGINES.")
def build(*, agents: Path | None, pull: bool, no_cache: bool, to: str | None) -> None:
    """Build the images of all bottles."""
    from claude_bottle.commands import build

    machine = _machine(agents)
    checked, place = _check(machine), build.target(machine, to) if to else None
    build.build(machine, checked, pull=pull, no_cache=no_cache)
    if place:
        build.send(machine, checked, place, console.report)


@main.command()
@_agents_option
def agents(agents: Path | None) -> None:
    """List agents, their bottles and the hosts they may reach."""
    from claude_bottle.commands import agents as listing

    console.output(listing.table(listing.lines(_check(_machine(agents)))))


@main.command()
@click.argument("agent", required=False, shell_complete=_completer("agents"))
@_agents_option
def check(agent: str | None, agents: Path | None) -> None:
    """Check the manifests for errors.

    Checks the manifests of AGENT, or all; exits with 64 if there is an error.
    """
    from claude_bottle.commands import check as manifests

    checked = _check(_machine(agents), agent)
    for note in manifests.notes(checked):
        console.say(note)
    console.output(f"{_many(len(checked), 'agent')} checked, no errors found")


@main.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the sessions as JSON.")
@click.option("--stats", is_flag=True, help="Add what each bottle uses of CPU and memory.")
@click.option("--watch", is_flag=True, help="Renew the list every five seconds, until q or Ctrl-C.")
def list_(*, as_json: bool, stats: bool, watch: bool) -> None:
    """List running sessions with their states and request counts.

    Sessions in the background that have ended are listed until `history --remove` removes what is kept of them.
    """
    from claude_bottle.commands import list as listing

    if watch and as_json:
        raise click.UsageError("--watch and --json exclude each other")
    machine = _machine(None)
    if watch:
        listing.watch(machine, usage=stats)
        return
    found, error = listing.listed(machine, usage=stats)
    if found or not error:
        text = json.dumps([one.as_json() for one in found], indent=2) if as_json else listing.table(found, usage=stats)
        console.output(text)
    if error:
        raise error


@main.command()
@click.argument("session", required=False, shell_complete=_completer("sessions"))
def attach(*, session: str | None) -> None:
    """Join the terminal of a session in the background.

    Without SESSION, of the only one. Ctrl-\\ d leaves it running; else exits as the session does.
    """
    from claude_bottle.commands import attach

    sys.exit(attach.attach(_machine(None), session))


@main.command()
@click.argument("session", nargs=-1, required=True, shell_complete=_completer("sessions"))
def wait(*, session: tuple[str, ...]) -> None:
    """Wait for the end of sessions in the background.

    Exits with the first code that is not 0, in the order given; with 68 for a session without a record.
    """
    from claude_bottle.commands import wait

    sys.exit(wait.wait(_machine(None), session))


@main.command()
@click.argument("session", shell_complete=_completer("sessions"))
def shell(*, session: str) -> None:
    """Open a shell in the bottle of a running session.

    SESSION is an id from `list`, or any unambiguous beginning of one.
    """
    from claude_bottle.commands import shell

    sys.exit(shell.shell(_machine(None), session))


@main.command()
@click.argument("session", shell_complete=_completer("sessions"))
@click.argument("ports", metavar="PORT[:LOCAL]")
def port(*, session: str, ports: str) -> None:
    """Open a server in the bottle as a port of this machine.

    Runs until Ctrl-C or the session's end. LOCAL, of 127.0.0.1, is the same number unless given.
    """
    from claude_bottle.commands import port as forwarding

    forwarding.port(_machine(None), session, forwarding.parse(ports), console.report)


@main.command()
@click.argument("session", shell_complete=_completer("sessions"))
@click.option("-f", "--follow", is_flag=True, help="Keep printing until the session ends.")
@click.option("--blocked", is_flag=True, help="Print refused requests only.")
def logs(*, session: str, follow: bool, blocked: bool) -> None:
    """Show the requests of a session.

    A line each: time, verdict, host, method and path if known, reason.
    """
    from contextlib import closing

    from claude_bottle.commands import logs

    with closing(logs.logs(_machine(None), session, follow=follow, blocked=blocked)) as events:
        for event in events:
            console.output(str(event))


@main.command()
@click.argument("session", required=False, shell_complete=_completer("kept"))
@click.option("--json", "as_json", is_flag=True, help="Print what is kept as JSON.")
@click.option("--remove", is_flag=True, help="Remove what is kept of SESSION, or of --all.")
@click.option("--all", "every", is_flag=True, help="With --remove: all that is kept.")
def history(*, session: str | None, as_json: bool, remove: bool, every: bool) -> None:
    """List kept sessions, show or remove one.

    What `start --keep` has kept; SESSION is an id, or any unambiguous beginning of one.
    """
    from claude_bottle.commands import history

    machine = _machine(None)
    if (every and not remove) or (remove and (bool(session) == every or as_json)):
        raise click.UsageError("pass SESSION or --all with --remove, and --all only then")
    if remove:
        for one in history.remove(machine, session):
            console.report(f"removed {one}")
        return
    if session:
        shown = history.shown(machine, session)
        console.output(json.dumps(shown.as_json(whole=True), indent=2) if as_json else str(shown))
        return
    found = history.kept(machine)
    console.output(json.dumps([one.as_json() for one in found], indent=2) if as_json else history.table(found))


@main.command()
@click.argument("session", shell_complete=_completer("kept"))
def answer(*, session: str) -> None:
    """Print the kept answer of a session.

    SESSION is an id, or any unambiguous beginning of one.
    """
    from claude_bottle.commands import history

    found = history.answer(_machine(None), session)
    for note in found.notes:
        console.say(note)
    console.emit(found.data)


@main.command()
@click.argument("session", shell_complete=_completer("sessions"))
@click.option("--tags", is_flag=True, help="Also fetch the agent's tags, as bottle/SESSION/TAG.")
def fetch(*, session: str, tags: bool) -> None:
    """Fetch the current work of a running session as a branch.

    The branch is created in the repository the session was started with.
    """
    from claude_bottle.commands import fetch as work

    work.fetch(_machine(None), session, console.report, tags=tags)


@main.command()
@click.argument("session", shell_complete=_completer("sessions"))
def diff(*, session: str) -> None:
    """Show the changes a running session has made so far."""
    from claude_bottle.commands import fetch as work

    click.echo_via_pager(work.diff(_machine(None), session))


@main.command()
@click.argument("session", nargs=-1, shell_complete=_completer("sessions"))
@click.option("--all", "every", is_flag=True, help="Stop all sessions this user started on this machine.")
def stop(*, session: tuple[str, ...], every: bool) -> None:
    """Stop sessions and wait until nothing is left of them."""
    from claude_bottle.commands import stop

    if bool(session) == every:
        raise click.UsageError("name one or more sessions, or pass --all")
    machine = _machine(None)
    choice = stop.choose(machine, session, every=every)
    if choice.others:
        console.report(f"{_many(choice.others, 'session')} of other users or hosts left alone")
    stop.stop(choice)
    for one in choice.sessions:
        console.report(f"stopped {escape_control_chars(one.id)}")


@main.command()
@click.option("--dry-run", is_flag=True, help="Only print what would be removed.")
def cleanup(*, dry_run: bool) -> None:
    """Remove the leftovers of dead sessions.

    Exits with 75 if something cannot be removed.
    """
    from claude_bottle.commands import cleanup

    verb = "would remove" if dry_run else "removed"
    done = cleanup.cleanup_all(
        _machine(None), dry_run=dry_run, notify=lambda item: console.report(f"{verb} {escape_control_chars(str(item))}")
    )
    for count, whose in ((done.living, "still running"), (done.elsewhere, "on other hosts, not checked")):
        if count:
            console.report(f"{_many(count, 'session')} {whose}")
    if not (done.dead or done.living or done.elsewhere):
        console.report("nothing to remove")
    if done.stuck:
        raise LeftBehindError("not everything could be removed")


@main.command()
@click.argument("target", metavar="AGENT|SESSION", shell_complete=_completer("agents sessions"))
@click.argument("host", metavar="HOST[:PORT]")
@click.option("--session", "as_session", is_flag=True, help="Take the name for a session's, even if an agent has it.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@_agents_option
def why(*, target: str, host: str, as_session: bool, as_json: bool, agents: Path | None) -> None:
    """Explain why a host is allowed or refused.

    Names the line that allows it, or what would. A name that resolves to a private address is refused all the same.
    """
    from claude_bottle.commands import why

    answer = why.why(_machine(agents), target, host, session=as_session)
    console.output(json.dumps(answer.as_json(), indent=2) if as_json else str(answer))


@main.command()
@click.argument("session", shell_complete=_completer("sessions"))
@click.argument("hosts", nargs=-1, metavar="HOST...")
@click.option("--ask", is_flag=True, help="Ask for each host that is refused, as it comes.")
@click.option("--save", is_flag=True, help="Also add the hosts to the bottle's manifest.")
def allow(*, session: str, hosts: tuple[str, ...], ask: bool, save: bool) -> None:
    """Allow a running session to reach more hosts.

    HOST is a name or name:port; it can be reached at once.
    """
    from contextlib import closing

    from claude_bottle.commands import allow
    from claude_bottle.egress import allowlist

    if bool(hosts) == ask:
        raise click.UsageError("name one or more hosts, or pass --ask")
    try:
        wanted = [allowlist.parse_further(host) for host in hosts]
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    machine = _machine(None)
    if not ask:
        _allow(machine, session, wanted, save=save)
        return
    with closing(allow.refused(machine, session)) as refused:
        for found, host in refused:
            more = "" if host.port == allowlist.HTTPS else ", with its port on every allowed host"
            if console.ask(f"{host} was refused. Allow it{more}?", afresh=True):
                _allow(machine, found, [host], save=save)


def _allow(machine: Machine, session: str, hosts: "list[Host]", *, save: bool) -> None:
    from claude_bottle.commands import allow

    done = allow.allow(machine, session, hosts, save=save)
    console.report(str(done))
    if done.saving:
        done.saving.write()
        console.report(str(done.saving))


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.argument("names", nargs=-1, metavar="[ALIAS]...")
def completion(*, shell: str, names: tuple[str, ...]) -> None:
    """Print a completion script for bash, zsh or fish.

    The script completes this program and each ALIAS of it.
    """
    from click.shell_completion import ShellComplete

    from claude_bottle.commands import completion as scripts
    from claude_bottle.host import installation

    class Script(ShellComplete):
        source_template = scripts.TEMPLATES[shell]

        def source_vars(self) -> Any:
            return {**super().source_vars(), **scripts.variables(names)}

    variable = f"_{installation.NAME}_COMPLETE".replace("-", "_").replace(".", "_").upper()  # as click derives it
    console.output(Script(main, {}, installation.NAME, variable).source())
