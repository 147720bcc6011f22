"""Remove what sessions have left whose launchers are dead."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from claude_bottle import PREFIX
from claude_bottle.cleanup import orphans
from claude_bottle.cleanup.orphans import Leftover
from claude_bottle.host import console
from claude_bottle.host.machine import Machine
from claude_bottle.process import forward, liveness
from claude_bottle.process.engine import EGRESS, Engine
from claude_bottle.process.liveness import Liveness
from claude_bottle.session import engines
from claude_bottle.session.planning import client_environment


@dataclass(frozen=True)
class Cleaned:
    """What was done: the leftovers found dead, those that are still there, and the sessions that were spared."""

    dead: tuple[Leftover, ...]
    stuck: tuple[Leftover, ...]
    spared: Mapping[str, Liveness]

    @property
    def living(self) -> int:
        """Return how many sessions there are whose launcher runs on this machine."""
        return len(self.spared) - self.elsewhere

    @property
    def elsewhere(self) -> int:
        """Return how many sessions of other hosts there are, which cannot be judged from here."""
        return sum(each == "elsewhere" for each in self.spared.values())


def cleanup(machine: Machine, *, dry_run: bool, notify: Callable[[Leftover], None]) -> Cleaned:
    """Remove what belongs to no living launcher, as far as this machine can know; nothing if `dry_run`.

    `notify` hears of each as soon as it is gone, or in a dry run of what would go. Raises EngineError.
    """
    env = client_environment(machine)
    found = (*orphans.listed(env), *orphans.stage_dirs(env))
    dead = orphans.dead(env, found, machine.owner)
    stuck = []
    for item in (*dead, *_unused_egress(env, found, dead)):
        if dry_run or orphans.remove(env, (item,), console.say):
            notify(item)
        else:
            stuck.append(item)
    # A stage dir may have no owner yet; the folder of a link belongs to a session that has others.
    judged = [item for item in found if item.owner and item not in dead and item.session != forward.NAME]
    seen = {item.session: liveness.liveness(item.owner, machine.owner) for item in judged if item.owner}
    return Cleaned(dead, tuple(stuck), seen)


def cleanup_all(machine: Machine, *, dry_run: bool, notify: Callable[[Leftover], None]) -> Cleaned:
    """Do that on every engine, one after the other; one that does not answer is printed."""
    said = set[Leftover]()

    def once(item: Leftover) -> None:
        if item.kind != "stage dir" or item not in said:  # it is on this machine, whatever the engine
            said.add(item)
            notify(item)

    places = engines.answering(machine)
    done = [
        each
        for _, each in engines.answers(places, lambda place: cleanup(place, dry_run=dry_run, notify=once), in_turn=True)
    ]
    return Cleaned(
        tuple(item for each in done for item in each.dead),
        tuple(item for each in done for item in each.stuck),
        {session: lives for each in done for session, lives in each.spared.items()},
    )


def _unused_egress(env: Mapping[str, str], found: Sequence[Leftover], dead: Sequence[Leftover]) -> tuple[Leftover, ...]:
    """Return the shared egress network if it is there and nobody living is on it, or about to be."""
    engine, gone = Engine(env), {item.name for item in dead}
    ours = ("--filter", f"name=^{EGRESS}$", "--filter", f"label={PREFIX}.role=egress")
    there = engine.ask("network", "ls", "--quiet", *ours)
    users = engine.ask("ps", "--all", "--filter", f"network={EGRESS}", "--format", "{{.Names}}")
    living = [item for item in found if item not in dead]
    starting = {item.session for item in living} - {item.session for item in living if item.role == "sidecar"}
    used = starting or set(users.stdout.decode().split()) - gone
    unknown = not there.ok or not users.ok
    return () if unknown or used or not there.stdout else (Leftover("network", EGRESS, "", None),)
