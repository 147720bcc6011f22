"""The table of steps: every docker command of a session, as data; what is shown is what is run."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from claude_bottle import PREFIX
from claude_bottle.bottle import docker_flags, firewall, home, key_holder, sidecar
from claude_bottle.bottle.image import Image
from claude_bottle.bottle.plan import PROXY_PORT, SIDECAR_UID, Plan, egress_subnet
from claude_bottle.process.engine import EGRESS
from claude_bottle.process.stream import Feed
from claude_bottle.repository import clone
from claude_bottle.selftest import receipt

Argv = tuple[str, ...]

DETACH = "ctrl-@,ctrl-^,ctrl-@"  # cannot be switched off; the default would hold Ctrl-P back
# The bottle's first process waits for the end of its stdin, a pipe that the launcher holds: its lifeline. Over a link
# that can be cut silently it also wants a line every 45 s; locally not, so that a suspended launcher keeps its bottle.
_LIFELINE = "while read -r{} _; do :; done"
_WITH_PROMPT = f'p=$(cat ~/{home.PROMPT}; echo x); exec "$@" -- "${{p%x}}"'  # x: $( ) would strip trailing newlines


@dataclass(frozen=True)
class Step:
    """One docker command of a session.

    `stdin` is what it reads, once the steps `after` are ready; `env` are the *names* handed on through the client's
    environment; `needs` are the steps that must be ready before it. Ready is ended, or, for a step that `holds`, its
    first line on stdout: its stdin stays open, and when that ends, so does the step. `undo` removes what the step may
    have made; `unless` is a command whose success makes the step needless.
    """

    name: str
    argv: Argv
    stdin: bytes = field(default=b"", repr=False)
    env: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    feed: Feed | None = None  # what follows `stdin`
    undo: Argv = ()
    unless: Argv = ()
    holds: bool = False
    shown: bool = False  # its output is progress for the user
    transient: bool = False  # it holds until every step is ready
    asks: bool = False  # on the user's terminal, so by itself, when all before it are done


def table(plan: Plan) -> tuple[Step, ...]:
    """Return the steps of a session in the order in which they are shown; teardown walks them backwards."""
    return (
        *_images(plan),
        *_egress(plan),
        _network(plan),
        *_sidecar(plan),
        *_keys(plan),
        _bottle(plan),
        _rules(plan, "lock", plan.name, firewall.lock(plan), needs=("bottle",)),
        _rules(plan, "gate", plan.sidecar, firewall.gate(plan), needs=("sidecar-start",)),
        *_certificates(plan),
        *_clone(plan),
        *_proof(plan),
        *_locked_keys(plan),
        _claude(plan),
    )


def skips(table: Iterable[Step]) -> dict[str, Argv]:
    """Return the commands whose success makes a step needless, by the steps' names."""
    return {step.name: step.unless for step in table if step.unless}


def _images(plan: Plan) -> tuple[Step, ...]:
    rows = [_build("image", plan.base)]
    if plan.image != plan.base:
        rows.append(_build("bottle-image", plan.image, needs=("image",)))
    pull = ("docker", "pull", plan.sidecar_image)
    return (*rows, Step("sidecar-image", pull, unless=_inspect(plan.sidecar_image), shown=True))


def _build(name: str, image: Image, needs: tuple[str, ...] = ()) -> Step:
    return Step(name, image.argv, stdin=image.context, needs=needs, unless=_inspect(image.tag), shown=True)


def _inspect(image: str) -> Argv:
    return ("docker", "image", "inspect", "--format", "{{.Id}}", image)


def _egress(plan: Plan) -> tuple[Step, ...]:
    if plan.egress.name != EGRESS:
        return ()
    argv = (
        *("docker", "network", "create", "--driver", "bridge"),
        *("--subnet", str(egress_subnet(plan.range))),
        # Without it a sidecar reaches the next one, where the gate does not stop it.
        *(("--opt", "com.docker.network.bridge.enable_icc=false") if plan.icc_off else ()),
        # Names of networks are no lock: of ten creates at once up to eight succeed; of one bridge name, one.
        *("--opt", "com.docker.network.bridge.name=cb-egress"),
        *("--label", f"{PREFIX}.role=egress"),
        EGRESS,
    )
    return (Step("egress", argv, unless=("docker", "network", "inspect", "--format", "{{.Id}}", EGRESS)),)


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
    config = home.archive([home.Entry("pipelock.yaml", plan.config)], SIDECAR_UID)
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
    argv, remove = key_holder.run(plan, _lifeline(plan)), ("docker", "volume", "rm", plan.key_volume)
    volume = Step("key-volume", key_holder.volume(plan), needs=needs, undo=remove)
    holder = Step("key-holder", argv, needs=(volume.name,), undo=_remove(plan.key_holder), holds=True)
    adds = ((key, key_holder.add(plan, key)) for key in plan.keys)
    return (volume, holder, *(Step(key.step, argv, stdin=key.private, needs=(holder.name,)) for key, argv in adds))


def _locked_keys(plan: Plan) -> tuple[Step, ...]:
    locked = [(key, key_holder.unlock(plan, key, DETACH)) for key in plan.locked_keys]
    return tuple(Step(f"{key.step}-unlock", argv, needs=(key.step,), asks=True) for key, argv in locked)


def _lifeline(plan: Plan) -> str:
    return _LIFELINE.format(" -t 45" if plan.remote else "")


def _bottle(plan: Plan) -> Step:
    limits = plan.agent.bottle.limits
    proxy = f"http://pipelock:{PROXY_PORT}"
    fill = docker_flags.fed(plan.home, "tar --extract --file - --directory /home/agent")
    script = f"{fill} && {_lifeline(plan)}"
    argv = (
        *("docker", "run", "--name", plan.name, "--pull", "never"),
        # --init reaps the zombies that tools leave; --rm: a restart would lose the lock; without the last, a signal
        # to the client goes to the bottle.
        *("--interactive", "--rm", "--init", "--sig-proxy=false"),
        *("--network", plan.name, "--ip", str(plan.bottle_address)),
        # The lock closes Docker's DNS; these keep an unlocked bottle from asking the host's resolver (CVE-2024-29018).
        *("--add-host", f"pipelock:{plan.sidecar_address}"),
        *("--dns", "0.0.0.0", "--dns-opt", "timeout:1", "--dns-opt", "attempts:1"),
        *docker_flags.without_ipv6(plan),
        *("--user", "1000:1000", "--workdir", clone.WORKDIR),
        *docker_flags.unprivileged(),
        *("--pids-limit", str(limits.pids), *docker_flags.memory(limits.memory)),
        # Not --cpus, which is an error above the engine's count.
        *("--cpu-period", "100000", "--cpu-quota", str(int(limits.cpus * 100_000))),
        # A core dump would hold the token.
        *("--ulimit", "core=0"),
        "--no-healthcheck",
        # Nothing of the bottle is to stay on the engine's disk.
        *("--log-driver", "none"),
        *docker_flags.labels(plan, "agent"),
        *docker_flags.described(plan),
        *docker_flags.proxy_variables(proxy),
        *key_holder.mounted(plan),
        *("--entrypoint", "bash", plan.image.tag, "-c", script),
    )
    needs = ("network", *(("key-volume",) if plan.keys else ()))
    return Step("bottle", argv, stdin=plan.home, needs=needs, undo=_remove(plan.name), holds=True)


def _rules(plan: Plan, role: str, target: str, rules: bytes, needs: tuple[str, ...]) -> Step:
    name = f"{plan.name}-{role}"
    owned = docker_flags.owned(plan.session, role, plan.owner)
    argv = docker_flags.nft(name, f"container:{target}", plan.base.tag, owned, rules)
    return Step(role, argv, stdin=rules, needs=needs, undo=_remove(name), holds=True, transient=True)


def _certificates(plan: Plan) -> tuple[Step, ...]:
    if not plan.certificates:
        return ()
    argv = ("docker", "exec", "--interactive", "--user", "0:0", plan.name)
    append = ("bash", "-c", "cat >> /etc/ssl/certs/ca-certificates.crt")
    return (Step("certificates", argv + append, stdin=plan.certificates, needs=("bottle",)),)


def _clone(plan: Plan) -> tuple[Step, ...]:
    if not plan.repository:
        return ()
    taken, head = plan.repository, clone.head(plan.repository, plan.branch)
    argv = ("docker", "exec", "--interactive", plan.name, *clone.command(taken, plan.branch))
    # After the lock: what an image's own git does as it checks files out is shut in, too.
    return (Step("clone", argv, stdin=head, feed=clone.pack(taken), needs=("bottle",), after=("lock",)),)


def _proof(plan: Plan) -> tuple[Step, ...]:
    # Nothing else may start in the bottle meanwhile: what docker has just started is not confined yet.
    whole = ("lock", "sidecar-start", *(step.name for step in (*_certificates(plan), *_clone(plan))))
    program = receipt.probe_input(plan, plan.known)
    holder = ("key-holder",) if plan.keys else ()
    return (
        # Beside the gate, of which nothing can be seen from inside the bottle.
        Step("selftest", receipt.probe_argv(plan), stdin=program, needs=("bottle",), after=whole),
        Step("inspect", receipt.inspect_argv(plan), needs=("bottle", "sidecar-start", *holder)),
    )


def _claude(plan: Plan) -> Step:
    literal = [f"{v.name}={v.literal}" for v in plan.agent.bottle.env if v.literal is not None]
    tty = ("--tty", "--detach-keys", DETACH) if plan.run.terminal else ()
    argv = (
        *("docker", "exec", "--interactive", *tty),
        *(word for name in plan.env_names for word in ("--env", name)),
        *(word for pair in literal for word in ("--env", pair)),
        plan.name,
        *_command(plan),
    )
    rest = (step.name for step in (*_keys(plan), *_locked_keys(plan), *_clone(plan)))
    return Step("claude", argv, env=plan.env_names, needs=("gate", "selftest", "inspect", *rest))


def _command(plan: Plan) -> Argv:
    print_ = ("--print",) if not plan.run.terminal else ()
    claude = ("claude", "--dangerously-skip-permissions", *print_, *plan.run.arguments)
    return claude if plan.prompt is None else ("bash", "-c", _WITH_PROMPT, "bash", *claude)


def _remove(container: str) -> Argv:
    return ("docker", "rm", "--force", "--volumes", container)
