"""The table of steps: every docker command of a session, as data; what is shown is what is run."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum

from claude_bottle import PREFIX
from claude_bottle.bottle import agent, credential_proxy, docker_flags, firewall, home, key_holder, reach, sidecar
from claude_bottle.bottle.plan import SIDECAR_UID, Plan, egress_subnet
from claude_bottle.host import addresses
from claude_bottle.manifest.ssh_hosts import Key
from claude_bottle.process.engine import EGRESS, image_query, network_query
from claude_bottle.process.stream import Feed
from claude_bottle.repository import clone
from claude_bottle.selftest import receipt

Argv = tuple[str, ...]

ADDRESSES = "addresses"  # the step that asks the engine's host for its addresses
_READY = re.compile(rb"up ([A-Za-z0-9+/=]+)\n")


class Kind(Enum):
    """How a step runs and when it is ready."""

    COMMAND = "command"  # ready when it exits
    PROGRESS = "progress"  # the same; it prints progress for the user, and may take long
    LONG_RUNNING = "long-running"  # ready at its first line of output; runs until its stdin ends
    UNTIL_READY = "until-ready"  # long-running, until every step of the set-up is ready
    INTERACTIVE = "interactive"  # on the user's terminal, so by itself


@dataclass(frozen=True)
class Quote:
    """What ends a step's stdin: what another step has printed on its first line after "up ", between two texts."""

    step: str
    before: str = ""
    after: str = "\n"

    def filled(self, line: bytes) -> bytes:
        """Return the quote of a first line; of one that has anything but base64 after "up ", the two texts alone."""
        word = _READY.match(line)
        return f"{self.before}{word[1].decode() if word else ''}{self.after}".encode()


@dataclass(frozen=True)
class Step:
    """One docker command of a session.

    `env` are the *names* of variables in its client's environment; `needs` are the steps that must be ready before it
    starts, `stdin_after` those that must be ready before it is given its stdin: `stdin`, then, once those in
    `quote_after` are ready, `quote`, then what `stdin_from` prints. `undo` removes what the step may have made.
    `skip_if` is a command whose success means that its product exists; if `present`, the engine has said so already,
    and the step is skipped. An `optional` step may fail. With its undo ends the stdin of the step `ends_beside`, and
    begins the undo of the step `undone_beside`: each takes a while. `parting` is the last line on the stdin of a
    long-running step that ends in order.
    """

    name: str
    argv: Argv
    kind: Kind = Kind.COMMAND
    stdin: bytes = field(default=b"", repr=False)
    stdin_text: int = 0  # the bytes at its beginning that a dry run prints, instead of their number
    stdin_after: tuple[str, ...] = ()
    quote: Quote | None = None
    quote_after: tuple[str, ...] = ()
    stdin_from: Feed | None = None
    env: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    undo: Argv = ()
    skip_if: Argv = ()
    present: bool = False
    optional: bool = False
    ends_beside: str = ""
    parting: bytes = field(default=b"", repr=False)
    undone_beside: str = ""

    @property
    def runs_long(self) -> bool:
        """Return whether the step is ready at its first line of output and runs on until its stdin ends."""
        return self.kind in (Kind.LONG_RUNNING, Kind.UNTIL_READY)

    @property
    def removes_itself(self) -> bool:
        """Return whether nothing is left to undo once the step's client has succeeded."""
        return self.runs_long or "--rm" in self.argv


@dataclass(frozen=True)
class Table:
    """The steps of a session in the order in which they are shown; teardown walks them backwards."""

    setup: tuple[Step, ...]  # side by side, as far as their needs allow
    unlocks: tuple[tuple[Key, Step], ...]  # one by one, each asks for the key's passphrase
    claude: Step

    def __iter__(self) -> Iterator[Step]:
        """Yield every step."""
        yield from self.setup
        yield from (step for _, step in self.unlocks)
        yield self.claude

    @property
    def asking(self) -> tuple[Step, ...]:
        """Return the steps that come before the others: the plan is whole once they have said what they say."""
        found = {step.name: step for step in self.setup}
        asked = found.get(ADDRESSES)
        return () if not asked or asked.present else (*(found[name] for name in asked.needs), asked)

    @property
    def undos(self) -> tuple[Step, ...]:
        """Return the steps that have something to undo, in the order of their undos."""
        return tuple(step for step in reversed(tuple(self)) if step.undo)


def table(plan: Plan) -> Table:
    """Return the steps of a session."""
    setup = (
        *_images(plan),
        *_addresses(plan),
        *_egress(plan),
        _network(plan),
        *_sidecar(plan),
        *_keys(plan),
        _bottle(plan),
        _rules(plan, "lock", plan.name, firewall.lock(plan), needs=("bottle",)),
        _gate(plan),
        _home(plan),
        *_clone(plan),
        *_proof(plan),
        *_reaper(plan),
    )
    return Table(setup, _unlocks(plan), _claude(plan))


def _images(plan: Plan) -> tuple[Step, ...]:
    def step(name: str, image: str, argv: Argv, context: bytes, needs: tuple[str, ...] = ()) -> Step:
        present = image in plan.facts.present
        skip_if = image_query(image)
        return Step(name, argv, Kind.PROGRESS, stdin=context, needs=needs, skip_if=skip_if, present=present)

    names = ("image", *(f"{preset}-image" for preset in plan.agent.bottle.presets), "bottle-image")
    under = ((), *((name,) for name in names))
    built = (
        step(n, each.tag, each.argv, each.context, u) for n, u, each in zip(names, under, plan.images, strict=False)
    )
    pull = ("docker", "pull", plan.sidecar_image)
    return (*built, step("sidecar-image", plan.sidecar_image, pull, b""))


def _addresses(plan: Plan) -> tuple[Step, ...]:
    if not plan.elsewhere:
        return ()
    name, first = f"{plan.name}-addresses", addresses.LISTS[0]  # the last one is not there without IPv6
    argv = (
        *("docker", "run", "--name", name, "--pull", "never", "--rm", "--log-driver", "none"),
        # An engine that maps users gives its host's network to no container that it maps.
        *("--network", "host", "--userns", "host", "--user", f"{SIDECAR_UID}:{SIDECAR_UID}", "--read-only"),
        *docker_flags.unprivileged(),
        "--no-healthcheck",
        *docker_flags.labels(plan, "addresses"),
        *docker_flags.proxy_variables(),
        *("--entrypoint", "bash", plan.base.tag, "-c", f"cat {' '.join(addresses.LISTS)} || [ -e {first} ]"),
    )
    return (Step(ADDRESSES, argv, needs=("image",), undo=_remove(name), present=not plan.asks_addresses),)


def _egress(plan: Plan) -> tuple[Step, ...]:
    if plan.egress.name != EGRESS:
        return ()
    argv = (
        *("docker", "network", "create", "--driver", "bridge"),
        *("--subnet", str(egress_subnet(plan.range))),
        # Without it a sidecar reaches the next one, where the gate does not stop it.
        *(("--opt", "com.docker.network.bridge.enable_icc=false") if plan.facts.icc_off else ()),
        # Names of networks are no lock: of ten creates at once up to eight succeed; of one bridge name, one.
        *("--opt", "com.docker.network.bridge.name=cb-egress"),
        *("--label", f"{PREFIX}.role=egress"),
        EGRESS,
    )
    return (Step("egress", argv, skip_if=network_query(EGRESS), present=EGRESS in plan.facts.present),)


def _network(plan: Plan) -> Step:
    argv = (
        # Without --internal it has a route to everything.
        *("docker", "network", "create", "--driver", "bridge", "--internal"),
        *("--subnet", str(plan.addresses)),
        # Without it the network's gateway address is the host, open to the bottle.
        *("--opt", "com.docker.network.bridge.inhibit_ipv4=true"),
        *docker_flags.labels(plan, "network"),
        plan.name,
    )
    # Not before the images: a build can take minutes and fail.
    needs = tuple(step.name for step in _images(plan))
    return Step("network", argv, needs=needs, undo=("docker", "network", "rm", plan.name))


def _sidecar(plan: Plan) -> tuple[Step, ...]:
    name, copy = plan.sidecar, ("docker", "cp", "-", f"{plan.sidecar}:/config")
    files = (home.Entry("pipelock.yaml", plan.config), home.Entry(reach.FILE, plan.reach))
    config = home.archive(files, SIDECAR_UID)
    needs = tuple(step.name for step in (*_images(plan), *_egress(plan)))
    return (
        Step("sidecar", sidecar.create(plan), needs=needs, undo=_remove(name)),
        Step("sidecar-config", copy, stdin=config, needs=("sidecar",)),
        Step("sidecar-connect", sidecar.connect(plan), needs=("network", "sidecar")),
        Step("sidecar-start", ("docker", "start", name), needs=("sidecar-config", "sidecar-connect")),
    )


def _keys(plan: Plan) -> tuple[Step, ...]:
    if not plan.keys:
        return ()
    needs = tuple(step.name for step in _images(plan))
    remove = ("docker", "volume", "rm", plan.key_volume)
    volume = Step("key-volume", key_holder.volume(plan), needs=needs, undo=remove)
    undo = _remove(plan.key_holder)
    holder = Step("key-holder", key_holder.run(plan), Kind.LONG_RUNNING, needs=(volume.name,), undo=undo)
    adds = ((key, key_holder.add(plan, key)) for key in plan.keys)
    return (volume, holder, *(Step(key.step, argv, stdin=key.private, needs=(holder.name,)) for key, argv in adds))


def _unlocks(plan: Plan) -> tuple[tuple[Key, Step], ...]:
    def step(key: Key) -> Step:
        return Step(f"{key.step}-unlock", key_holder.unlock(plan, key), Kind.INTERACTIVE, needs=(key.step,))

    return tuple((key, step(key)) for key in plan.locked_keys)


def _bottle(plan: Plan) -> Step:
    needs = ("network", *(("key-volume",) if plan.keys else ()))
    undo = _remove(plan.name)
    parting = docker_flags.parting(plan)
    return Step("bottle", agent.run(plan), Kind.LONG_RUNNING, needs=needs, undo=undo, parting=parting)


def _home(plan: Plan) -> Step:
    # After the lock, as the clone: what an image's own programs do is shut in. All but the last line beside the gate.
    after, quoted, program = ("lock",), ("gate",), receipt.search_program(plan)
    argv, given, quote = agent.fill(plan, len(program)), plan.home + program, Quote("gate")
    return Step("home", argv, stdin=given, needs=("bottle",), stdin_after=after, quote=quote, quote_after=quoted)


def _rules(plan: Plan, role: str, target: str, rules: bytes, needs: tuple[str, ...]) -> Step:
    name, owned = f"{plan.name}-{role}", docker_flags.owned_by(plan, role)
    argv, undo = docker_flags.nft(name, f"container:{target}", plan.base.tag, owned, rules), _remove(name)
    return Step(role, argv, Kind.UNTIL_READY, stdin=rules, stdin_text=len(rules), needs=needs, undo=undo)


def _gate(plan: Plan) -> Step:
    rules, needs = firewall.gate(plan), ("sidecar-start",)
    if not plan.ended:
        return _rules(plan, "gate", plan.sidecar, rules, needs)
    tar = credential_proxy.files(plan.ended, plan.signing.settings, plan.certificates)
    target, owned = f"container:{plan.sidecar}", docker_flags.owned_by(plan, "gate")
    argv = credential_proxy.run(plan.gate, target, plan.base.tag, owned, rules, tar, remote=plan.remote)
    given, undo = rules + tar, _remove(plan.gate)
    gate = Step("gate", argv, Kind.LONG_RUNNING, stdin=given, stdin_text=len(rules), needs=needs, undo=undo)
    return replace(gate, ends_beside="bottle", undone_beside="sidecar")


def _clone(plan: Plan) -> tuple[Step, ...]:
    if not plan.repository:
        return ()
    taken, head = plan.repository, clone.head(plan.repository, plan.branch)
    argv = clone.command(plan.name, taken, plan.branch)
    after, feed = ("lock", "home"), clone.pack(taken)
    return (Step("clone", argv, stdin=head, stdin_from=feed, needs=("bottle",), stdin_after=after),)


def _proof(plan: Plan) -> tuple[Step, ...]:
    # Nothing else may start in the bottle meanwhile: what docker has just started is not confined yet.
    filled = ("home", *(step.name for step in _clone(plan)))
    whole = ("lock", "gate", *filled)
    program, question = receipt.probe_input(plan, plan.known)
    argv, undo = receipt.probe_argv(plan, len(program)), _remove(receipt.probe_name(plan))
    quote = Quote("gate", *receipt.probe_call(question))
    probe = Step(
        # Ready at its one line: claude need not wait for the end of its container.
        *("selftest", argv, Kind.UNTIL_READY, program),
        needs=("bottle",),
        # The program loads beside the gate, and looks at nothing until it has the question.
        stdin_after=("lock",),
        quote=quote,
        quote_after=whole,
        undo=undo,
    )
    holder = ("key-holder",) if plan.keys else ()
    return (
        probe,
        Step("inspect", receipt.inspect_argv(plan), needs=("bottle", "gate", *holder)),
        # Optional, since not every engine's ps can do it; the probe sees the same.
        Step("processes", receipt.processes_argv(plan), needs=filled, optional=True),
    )


def _reaper(plan: Plan) -> tuple[Step, ...]:
    if not plan.keeps_work:
        return ()
    # Nothing may start in the bottle beside the proof.
    needs = (*(step.name for step in _clone(plan)), "selftest", "processes")
    return (Step("reaper", agent.reaper(plan), Kind.LONG_RUNNING, needs=needs),)


def _claude(plan: Plan) -> Step:
    more = (*_keys(plan), *(step for _, step in _unlocks(plan)), *_clone(plan), *_reaper(plan))
    rest = (step.name for step in more)
    needs = ("gate", "selftest", "inspect", "processes", *rest)
    return Step("claude", agent.claude(plan), Kind.INTERACTIVE, env=plan.env_names, needs=needs)


def _remove(container: str) -> Argv:
    return ("docker", "rm", "--force", "--volumes", container)
