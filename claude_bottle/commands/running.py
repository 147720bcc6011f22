"""The commands about sessions that run, or have run: what they do and what they print."""

import shlex
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from claude_bottle import PREFIX
from claude_bottle.bottle import docker_flags
from claude_bottle.bottle.plan import PASSED_ON
from claude_bottle.cleanup import orphans, stack
from claude_bottle.cleanup.orphans import Leftover
from claude_bottle.cleanup.stack import Teardown, say
from claude_bottle.commands import allow as allowing
from claude_bottle.documents.escaping import harmless
from claude_bottle.egress.allowlist import Host
from claude_bottle.egress.log import BLOCKED, Tally
from claude_bottle.errors import BottleError, DockerError, IsolationError, LeftBehindError, ManifestError
from claude_bottle.host.machine import ROOT, Machine
from claude_bottle.manifest.agent import Agent
from claude_bottle.process import command
from claude_bottle.process import terminal as tty
from claude_bottle.process.container import AGENT
from claude_bottle.process.engine import EGRESS, Engine
from claude_bottle.repository import fetch
from claude_bottle.repository.clone import Work
from claude_bottle.session import registry
from claude_bottle.session import start as story
from claude_bottle.session.planning import client_environment
from claude_bottle.session.registry import Session

PROGRAM = "cli.py"

_PATIENCE = 60.0  # seconds for a launcher to end: it waits 30 s for its steps, then undoes them
_PAUSE = 0.1  # seconds between two looks at the engine
_HEADER = ("SESSION", "AGENT", "BOTTLE", "AGE", "MODE", "ALLOWED", "BLOCKED")


def list_json(machine: Machine) -> list[dict[str, str | int]]:
    """Return the sessions with their counts, for machines."""
    return [
        {
            "session": session.id,
            "agent": session.agent,
            "bottle": session.bottle,
            "started": session.started.isoformat(),
            "age": session.age(),
            "mode": session.mode,
            "allowed": tally.allowed,
            "blocked": tally.blocked,
        }
        for session, tally in _tallied(machine)
    ]


def list_rows(machine: Machine) -> list[tuple[str, ...]]:
    """Return the table of the sessions, its header first."""
    return [
        _HEADER,
        *(
            (
                *(harmless(text) for text in (session.id, session.agent, session.bottle)),
                *(registry.duration(session.age()), harmless(session.mode), str(tally.allowed), str(tally.blocked)),
            )
            for session, tally in _tallied(machine)
        ),
    ]


def shell(machine: Machine, name: str) -> int:
    """Run a shell in a session's bottle, as its agent's user; return the shell's exit code."""
    env = client_environment(machine)
    session = registry.find(registry.listed(env), name)
    terminal = ("--tty", *docker_flags.DETACH) if machine.interactive else ()
    passed = (word for variable in PASSED_ON if machine.environ.get(variable) for word in ("--env", variable))
    argv = ("docker", "exec", "--interactive", *terminal, "--user", AGENT, *passed, session.container, "bash")
    with Teardown():  # a signal must end docker's client too
        return tty.run(argv, env) if machine.interactive else command.attach(argv, env, silent=False)


def logs(machine: Machine, name: str, *, follow: bool, blocked: bool) -> None:
    """Print what a session's sidecar let through and what not, a request a line."""
    env = client_environment(machine)
    session = registry.find(registry.listed(env), name)
    if not Engine(env).ask("container", "inspect", "--format", "{{.Id}}", session.sidecar).ok:
        raise DockerError(f"{session.sidecar} is not there: the session is starting, or ending")
    tally = Tally()
    with Teardown():
        for line in command.lines(("docker", "logs", *(("--follow",) if follow else ()), session.sidecar), env):
            event = tally.add(line)
            if event and (not blocked or event.verdict == BLOCKED):
                print(event, flush=follow)


def stop(machine: Machine, names: Sequence[str], *, every: bool) -> None:
    """End sessions: their own launchers where these run here, else by removing what they have; wait until all are gone.

    `every` are those that launchers of this machine and this user have started, and dead ones.
    """
    env = client_environment(machine)
    found = registry.listed(env)
    chosen = list(dict.fromkeys(registry.find(found, name) for name in names))
    if every:
        chosen = [session for session in found if session.owner.liveness(machine.owner) in ("ours", "dead")]
        others = len(found) - len(chosen)
        print(f"{_many(others, 'session')} of others left alone" if others else "", end="\n" if others else "")
    asked = {session.id for session in chosen if stack.ask_to_end(session.owner, machine.owner)}
    for session in chosen:
        if session.id not in asked:
            _remove(env, session.id)
    left = _await_end(env, asked, _PATIENCE)
    # One that has a repository brings its work back first: as long as that may take, if its launcher lives.
    working = {s.id: s.owner for s in chosen if s.id in left and Work.of_label(s.repository)}
    for name in working:
        say(f"{harmless(name)} still brings its work back: waiting for it")

    def living() -> bool:
        return any(owner.liveness(machine.owner) == "ours" for owner in working.values())

    for name in left - working.keys() | _await_end(env, working, fetch.SECONDS, living):
        say(f"{harmless(name)} does not end by itself: removing what it has")
        _remove(env, name)
    for session in chosen:
        print(f"stopped {harmless(session.id)}")


def cleanup(machine: Machine, *, dry_run: bool) -> None:
    """Remove what belongs to no living launcher, as far as this machine can know; raises LeftBehindError."""
    env = client_environment(machine)
    found = (*orphans.listed(env), *orphans.stage_dirs())
    dead = orphans.dead(found, machine.owner)
    clean = True
    for item in (*dead, *_unused_egress(env, found, dead)):
        done = dry_run or orphans.remove(env, (item,), say)
        clean = clean and done
        if done:
            print(f"{'would remove' if dry_run else 'removed'} {harmless(str(item))}")
    judged = [item for item in found if item not in dead]
    seen = {
        item.session: item.owner.liveness(machine.owner) for item in judged if item.owner
    }  # a stage dir may lack it
    elsewhere = sum(liveness == "elsewhere" for liveness in seen.values())
    for count, what in ((len(seen) - elsewhere, "of living launchers"), (elsewhere, "of other hosts, not judged")):
        if count:
            print(f"{_many(count, 'session')} {what}")
    if not (dead or seen):
        print("no session has left anything")
    if not clean:
        raise LeftBehindError("not everything could be removed")


def allow(machine: Machine, name: str, hosts: Sequence[Host], *, save: bool) -> None:
    """Let a running session reach more hosts at once; `save` writes them into its bottle's manifest as well."""
    env = client_environment(machine)
    session = registry.find(registry.listed(env), name)
    if save and session.owner.liveness(machine.owner) == "elsewhere":
        raise ManifestError(f"{session.manifest}: not saved, it is on another machine; nothing was allowed")
    saving = allowing.saving(session, hosts) if save else None
    new = allowing.allow(env, session, hosts)
    named = ", ".join(map(str, hosts))
    print(f"in force: {named}" if new else f"in force before: {named}; the sidecar's list is as it was")
    if saving:
        saving.write()
        print(f"{'saved in' if saving.after != saving.before else 'there already:'} {harmless(str(saving.path))}")


def verify(
    machine: Machine, agents: Sequence[Agent], *, verbose: bool, told: Callable[[str], None]
) -> tuple[dict[str, dict[str, object]], int]:
    """Prove the isolation of each agent's bottle; return the results, and the exit code of the first that failed.

    `told` hears of each as soon as it is known.
    """
    results, code = dict[str, dict[str, object]](), 0
    for name, receipt in story.verify(machine, agents, verbose=verbose):
        if isinstance(receipt, BottleError):
            results[name], text = {"passed": False, "error": str(receipt)}, f"  {receipt}"
            code = code or receipt.exit_code
        else:
            results[name], text = receipt.as_json(), "\n".join((*receipt.lines(), receipt.line()))
            code = code or (IsolationError.exit_code if receipt.failed else 0)
        told(f"{harmless(name)}\n{text}")
    return results, code


def completion(script: str, aliases: Sequence[str]) -> str:
    """Return click's completion script for this very cli.py, and for aliases of it.

    Click's scripts call the program by its bare name, which is on no PATH.
    """
    program = shlex.quote(str(ROOT / PROGRAM))
    names = [PROGRAM, *map(shlex.quote, aliases)]
    for old, new in (
        ("bash_complete $1", f"bash_complete {program}"),
        (f"zsh_complete {PROGRAM}", f"zsh_complete {program}"),
        (f"    (( ! $+commands[{PROGRAM}] )) && return 1\n", ""),
        (f"(commandline -t) {PROGRAM}", f"(commandline -t) {program}"),
        (f"_completion {PROGRAM}\n", f"_completion {' '.join(names)}\n"),
        (f"--command {PROGRAM}", " ".join(f"--command {name}" for name in names)),
    ):
        script = script.replace(old, new)
    return script


def _tallied(machine: Machine) -> Iterator[tuple[Session, Tally]]:
    env = client_environment(machine)
    found = registry.listed(env)
    return zip(found, registry.all_egress(env, found), strict=True)


def _remove(env: Mapping[str, str], session: str) -> None:
    """Remove all of a session, in order; raises LeftBehindError."""
    stages = tuple(item for item in orphans.stage_dirs() if item.session == session)
    if not orphans.remove(env, (*orphans.listed(env, session), *stages), say):
        raise LeftBehindError(f"not all of session {harmless(session)} could be removed")


def _await_end(
    env: Mapping[str, str], asked: Collection[str], patience: float, go_on: Callable[[], bool] = lambda: True
) -> set[str]:
    """Wait until nothing is left of sessions whose launchers end; return those of which something is."""
    end = time.monotonic() + patience
    left = set(asked)
    while left and time.monotonic() < end and go_on():
        left &= {item.session for item in (*orphans.listed(env), *orphans.stage_dirs())}
        time.sleep(_PAUSE if left else 0)
    return left


def _unused_egress(env: Mapping[str, str], found: Sequence[Leftover], dead: Sequence[Leftover]) -> tuple[Leftover, ...]:
    """Return the shared egress network if it is there and nobody living is on it, or about to be."""
    engine, gone = Engine(env), {item.name for item in dead}
    ours = ("--filter", f"name=^{EGRESS}$", "--filter", f"label={PREFIX}.role=egress")
    there = engine.ask("network", "ls", "--quiet", *ours)
    users = engine.ask("ps", "--all", "--filter", f"network={EGRESS}", "--format", "{{.Names}}")
    living = [item for item in found if item not in dead]
    starting = {item.session for item in living} - {item.session for item in living if item.role == "sidecar"}
    used = starting or set(users.stdout.decode().split()) - gone
    return () if used or not there.stdout else (Leftover("network", EGRESS, "", None),)


def _many(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
