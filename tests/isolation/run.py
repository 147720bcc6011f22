"""Run the battery: every row in the bottle and in its anti-test's place, on a machine of its own."""

import base64
import os
import subprocess
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from claude_bottle.bottle import credential_proxy
from tests.isolation import naive, product, watch
from tests.isolation.evidence import Evidence, token
from tests.isolation.machine import GUARD, Machine, machine, until
from tests.isolation.naive import Naive
from tests.isolation.places import NOWHERE, Place
from tests.isolation.product import EGRESS, Session
from tests.isolation.rows import HONEST, RELAYED, ROWS, Row
from tests.world import World
from tests.world.shell import WorldError

AT_ONCE = 6
RECEIVER = ("python3", f"{naive.LIBRARY}/receiver.py", "--tcp", "9000", "--udp", "9000")
# What of a container can be seen from outside: mounts, names of its own, and files that are no plain files.
LOOK = "cat /proc/1/mountinfo /proc/sys/kernel/domainname /proc/sys/kernel/hostname; find /tmp -name 'cb*' ! -type f"
# The genie and others end by waiting in a tool call: a stalled API cannot disturb that.
SPARE = {"exhaustion of processes": "crowded", "sidecar flooded": "flooded", "credential proxy killed": "unsigned"}
WAIT = "RUN: mkfifo /tmp/end; read -r _ <>/tmp/end; echo"


@dataclass
class Battery:
    """Everything that is up, and what came of it."""

    machine: Machine
    evidence: Evidence
    genie: Session
    neighbour: Session
    spare: dict[str, Session]
    """By row, whose command may end its own bottle: claude aborts where it wants a thread and gets none."""
    naive: Naive
    place: Place
    senders: dict[str, tuple[str, ...]]
    """The addresses that the bottle sends from, and the container on the ordinary bridge."""
    credentials: dict[str, str]
    """The user's own, by the hosts that get them."""
    ports: dict[int, subprocess.Popen[str]]
    """The ports of the genie's bottle that are open on the machine."""


def battery(world: World, *images: str) -> Evidence:
    """Make the machine, with these images, run everything on it, remove it."""
    evidence = Evidence()
    odd: list[str] = []
    with ExitStack() as undo:
        place = undo.enter_context(machine(world))
        place.load(*images)
        undo.enter_context(watch.processes(odd))
        up = _up(place, world, evidence, undo)
        try:
            _run_all(up)
        except WorldError as error:
            for one in (up.genie, up.neighbour, *up.spare.values()):
                error.add_note(f"{one.agent}: {one.output()}")
            raise
        evidence.seen["process"] = "\n".join(odd)
    return evidence


def _up(machine: Machine, world: World, evidence: Evidence, undo: ExitStack) -> Battery:
    """Start the sessions and what the attacks are compared with; `undo` ends them."""
    environ = product.manifests(world, machine)

    def start(agent: str, prompt: str) -> Session:
        return undo.enter_context(product.session(machine, environ, agent, prompt))

    hold = f"HOLD: {machine.name}-neighbour\nRUN: echo well-{machine.name}\n"
    neighbour = start("neighbour", hold)
    image = machine.docker("inspect", "--format", "{{.Config.Image}}", neighbour.bottle).strip()
    with ThreadPoolExecutor(1) as pool:
        others = pool.submit(naive.up, machine, image)
        genie = start("genie", f"{_prompt(evidence, neighbour)}{WAIT} {machine.name}-genie\n")
        spare = {row: start(agent, f"{WAIT} {machine.name}-{agent}\n") for row, agent in SPARE.items()}
    place = product.place(machine, genie, neighbour, others.result().third)
    naive.receive(machine, "our-loopback", image, naive.among("sidecar", genie.sidecar, ""), *naive.WITHIN)
    for name, argv in (("neighbour", RECEIVER), ("beats", ("attack", "beats"))):
        _keep(machine, neighbour.bottle, name, argv, undo)
    senders = {
        side: tuple(machine.network(*one)[key] for key in ("IPAddress", "MacAddress"))
        for side, one in (("bottle", (genie.bottle, genie.bottle)), ("anti-test", ("open", "open")))
    }
    ports = {each: undo.enter_context(product.port(machine, environ, genie, each)) for each in (RELAYED, HONEST)}
    credentials = product.credentials(environ)
    return Battery(machine, evidence, genie, neighbour, spare, others.result(), place, senders, credentials, ports)


def _prompt(evidence: Evidence, neighbour: Session) -> str:
    """Return what the genie is asked to run; of addresses, it can know those that are there before its bottle."""
    address = neighbour.machine.address(neighbour.bottle, neighbour.bottle)
    place = replace(NOWHERE, neighbour=address, neighbour_name=neighbour.bottle)
    tokens = evidence.tokens["bottle"]
    rows = [(row.command, tokens[row.name]) for row in ROWS if row.genie]
    return "".join(f"RUN: ( {place.command(text, mark)} ) >/tmp/out-{mark} 2>&1; true\n" for text, mark in rows)


def _keep(machine: Machine, container: str, name: str, argv: tuple[str, ...], undo: ExitStack) -> None:
    """Keep a program running in a container; what it prints becomes the machine's log of this name."""
    with (machine.folder / f"{name}.log").open("wb") as out:
        program = subprocess.Popen(
            ("docker", "exec", "--user", "1000:1000", container, *argv),
            env=os.environ | machine.env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    undo.callback(program.wait)
    undo.callback(program.kill)
    until(lambda: bool(machine.log(name)), f"{name} is there")


def _run_all(up: Battery) -> None:
    """Run every row, then ask the receivers."""
    together = [row for row in ROWS if not row.alone]
    with ThreadPoolExecutor(4) as pool:
        for job in [*_ours(up, pool, together), *_theirs(up, pool, together)]:
            job.result()
    genies = [row for row in ROWS if row.genie]
    until(lambda: up.genie.results() >= len(genies), "the genie has done its part")
    errors = up.ports[RELAYED].communicate(timeout=GUARD)[1]
    up.evidence.relayed, up.evidence.honest = (up.ports[RELAYED].returncode, errors), up.ports[HONEST].poll()
    _keep_outputs(up, up.machine.docker(*up.genie.shell(), stdin=_show(up, "bottle", genies).encode()))
    _look(up)
    strain = [line for row in ROWS if row.receiver == "strain" for line in _strains(up, row)]
    up.evidence.seen["strain"] = "\n".join(strain)
    for row in ROWS:
        if row.alone and row.receiver != "strain":
            _fatal(up, row)
    _last_call(up)
    up.evidence.gather(up.machine, "neighbour", up.credentials)
    up.evidence.frames = {side: up.evidence.frames_of(addresses) for side, addresses in up.senders.items()}
    up.neighbour.release()
    code = up.neighbour.launcher.wait(GUARD)
    up.evidence.neighbour = (code, up.neighbour.output())


def _ours(up: Battery, pool: ThreadPoolExecutor, rows: list[Row]) -> Iterator[Future[None]]:
    rows = [row for row in rows if not row.genie]
    shells = {
        "bottle": up.genie.shell(),
        **{who: naive.fresh(up.naive.image, naive.among(who, up.genie.sidecar, "")) for who in naive.WHO},
        "beside": naive.fresh(up.naive.image, naive.among("beside", "", EGRESS)),
    }
    for where, shell in shells.items():
        yield pool.submit(_run, up, shell, up.place, "bottle", [row for row in rows if row.where == where])


def _theirs(up: Battery, pool: ThreadPoolExecutor, rows: list[Row]) -> Iterator[Future[None]]:
    # Where the engine has no CVE-2024-29018, nothing but an ordinary bridge lets names out.
    fixed = not up.machine.leaks_names()
    places = [(row, "open" if fixed and row.receiver == "names" else row.anti) for row in rows]
    for name, place in up.naive.places.items():
        shell = naive.shell(name, up.naive.image)
        yield pool.submit(_run, up, shell, place, "anti-test", [row for row, where in places if where == name])


def _run(up: Battery, shell: tuple[str, ...], place: Place, side: str, rows: list[Row]) -> None:
    """Run commands in one shell, some at once, and keep their outputs."""
    marks = up.evidence.tokens[side]
    lines = [
        f"while [ $(jobs -rp | wc -l) -ge {AT_ONCE} ]; do wait -n; done\n"
        f"( {place.command(row.command, marks[row.name])}\n) </dev/null >/tmp/out-{marks[row.name]} 2>&1 &\n"
        for row in rows
    ]
    _keep_outputs(up, up.machine.docker(*shell, stdin="".join((*lines, "wait\n", _show(up, side, rows))).encode()))


def _show(up: Battery, side: str, rows: Iterable[Row]) -> str:
    """Return bash that prints what the commands of these rows printed."""
    marks = " ".join(up.evidence.tokens[side][row.name] for row in rows)
    return f"for t in {marks}; do [ -e /tmp/out-$t ] && echo $t $(base64 -w0 /tmp/out-$t); done; true\n"


def _keep_outputs(up: Battery, printed: str) -> None:
    for line in printed.splitlines():
        mark, _, text = line.partition(" ")
        up.evidence.outputs[mark] = base64.b64decode(text).decode(errors="replace")


def _look(up: Battery) -> None:
    """Look at the containers from outside: mounts, names, rules, the sidecars' logs, and what the engine holds."""
    docker, said = up.machine.docker, []
    for container in (up.genie.bottle, "open", "privileged"):
        said.append(docker("exec", "--user", "0", container, "sh", "-c", f"{LOOK}; true"))
        space = ("--network", f"container:{container}", "--user", "0", "--cap-add", "NET_ADMIN")
        said.append(docker("run", "--rm", *space, "--entrypoint", "nft", up.naive.image, "list", "ruleset"))
    up.evidence.seen["kernel"] = "\n".join(said)
    up.evidence.seen["engine"] = docker("volume", "ls")
    sidecars = (up.genie.sidecar, up.neighbour.sidecar, "proxy", "other-proxy")
    up.evidence.seen["sidecars"] = "".join(map(up.machine.docker_log, sidecars))


def _strains(up: Battery, row: Row) -> Iterator[str]:
    """Run what uses something up: in the bottle with a heart beating beside it, and where the heart is its own."""
    for side, session in (("bottle", up.spare.get(row.name, up.genie)), ("anti-test", None)):
        container = session.bottle if session else "open"
        mark, before = up.evidence.tokens[side][row.name], len(up.machine.log("beats"))
        bounds = {container: (product.PIDS, product.MEMORY)}
        bounds |= {session.gate: (credential_proxy.PIDS, credential_proxy.MEMORY)} if session else {}
        ids = {name: up.machine.docker("inspect", "--format", "{{.Id}}", name).strip() for name in bounds}
        with _begun(up, side, session, row) as program:
            used = _most(ids, program)
        for name, (processes, memory) in used.items():
            if processes > bounds[name][0] or memory > bounds[name][1] * 1.1:
                yield f"{mark} {name} had {processes} processes and {memory >> 20} MB"
        known = up.machine.log("beats").count("\n")
        until(lambda known=known: up.machine.log("beats").count("\n") > known, "the next bottle's heart beats")  # type: ignore[misc]
        beats = up.machine.log("beats")[before:] if side == "bottle" else up.evidence.outputs[mark]
        yield from (f"{mark} {line}" for line in beats.splitlines() if "failed" in line)


def _most(ids: dict[str, str], program: subprocess.Popen[str]) -> dict[str, tuple[int, int]]:
    """Return the most processes and bytes that each container (name: whole id) has until the program ends."""
    most = dict.fromkeys(ids, (0, 0))
    while program.poll() is None:
        for name, whole in ids.items():
            processes, memory = watch.use(whole)
            most[name] = max(most[name][0], processes), max(most[name][1], memory)
        time.sleep(0.1)
    return most


def _fatal(up: Battery, row: Row) -> None:
    """Run what may end its own bottle; once it has begun, kill sidecar or credential proxy, if that is the row."""
    for side, session in (("bottle", up.spare.get(row.name, up.genie)), ("anti-test", None)):
        with _begun(up, side, session, row):
            if row.name == "sidecar killed":
                up.machine.docker("kill", session.sidecar if session else "proxy")
            if row.name == "credential proxy killed" and session:
                up.machine.docker("kill", session.gate)
                up.evidence.unsigned = (session.launcher.wait(GUARD), session.output())


@contextmanager
def _begun(up: Battery, side: str, session: Session | None, row: Row) -> Iterator[subprocess.Popen[str]]:
    """Run a row's command in a bottle, or in the open, and yield once it has begun; keep what it prints."""
    shell, place = (session.shell(), up.place) if session else (naive.shell("open", ""), up.naive.places["open"])
    mark = up.evidence.tokens[side][row.name]
    words = ("docker", *shell, "-c", place.command(f"echo begun; {row.command}", mark))
    env, pipe = os.environ | up.machine.env, subprocess.PIPE
    with subprocess.Popen(words, env=env, stdin=subprocess.DEVNULL, stdout=pipe, text=True) as program:
        assert program.stdout
        assert program.stdout.readline() == "begun\n"
        yield program
        up.evidence.outputs[mark] = program.stdout.read()


def _last_call(up: Battery) -> None:
    """Send every listener of the machine one more token, and wait until it is written down."""
    mark = token()
    words = [f"attack {how} {at} 9000 {mark}\n" for how in ("tcp", "udp") for at in ("{host}", "{outside}")]
    command = up.naive.places["open"].command("".join(words), mark)
    up.machine.docker(*naive.shell("open", ""), stdin=command.encode())
    until(lambda: all(up.machine.log(name).count(mark) >= 2 for name in ("host", "outside")), "the last call is heard")
    until(lambda: mark in up.machine.log("wire"), "the last call is seen on the wire")
