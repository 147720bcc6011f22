"""The three ways to get to claude and back, each timed from its first command to its last."""

import secrets
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from claude_bottle.bottle import plan
from claude_bottle.bottle.plan import Plan, Run
from claude_bottle.process.endpoint import Endpoint
from claude_bottle.process.engine import Engine
from claude_bottle.session import planning, steps
from claude_bottle.session.steps import Kind, Step
from tests.bench.ground import Ground


@dataclass(frozen=True)
class Times:
    """Seconds from the first command to the moment claude starts, and from there, its end, back to the prompt."""

    start: float
    teardown: float


@dataclass(frozen=True)
class Round:
    """One of each, run one after another: the launcher (a), its docker commands (b), the bare ones (c)."""

    a: Times
    b: Times
    c: Times


def run(ground: Ground) -> Round:
    """Run one round."""
    return Round(launcher(ground), in_sequence(ground), bare(ground))


def launcher(ground: Ground) -> Times:
    """Run `./cli.py start --yes --print`."""
    launch = ground.launch("now")
    moment = launch.told()
    problem = launch.end()
    back = time.monotonic()
    ground.launches.remove(launch)
    if problem or moment is None:
        raise SystemExit(f"bench: a session failed: {problem}")
    return _times(launch.at, moment, back)


def in_sequence(ground: Ground) -> Times:
    """Run what a dry run shows, one command after another: what is there is asked for and not made again."""
    session = _plan(ground)
    table = steps.table(session)
    env = planning.client_environment(ground.machine) | plan.environment(ground.machine, session.agent)
    undos = [step for step in table.undos if step.kind is not Kind.UNTIL_READY]
    out, said = b"", b""
    with ExitStack() as held:
        begun = time.monotonic()
        for step in table:
            if step.kind is Kind.UNTIL_READY:
                _docker(step.argv, env, _given(step, said))
            elif step.runs_long:
                process, said = _hold(step, env)  # the gate is the last of them, and the one that is quoted
                held.callback(_let_go, process)
            else:
                out = _ready(step, env, said)
        for step in undos:
            if step.runs_long:
                held.close()
            _docker(step.undo, env)
        return _times(begun, float(out), time.monotonic())


def bare(ground: Ground) -> Times:
    """Run what a shell script would that neither confines nor proves anything."""
    # Labelled, so that what is left of an interrupted run is found like all else.
    name = f"{ground.name}-{secrets.token_hex(4)}"
    label, sidecar = ("--label", f"claude-bottle.session={name}"), f"{name}-sidecar"
    config = ground.folder / "pipelock.yaml"
    config.write_bytes(_plan(ground).config)
    run, proxy = ("docker", "run", "--detach", *label), f"http://{sidecar}:8888"
    listen = ("run", "--config", "/pipelock.yaml", "--mode", "strict", "--listen", "0.0.0.0:8888")
    claude = ("claude", "--dangerously-skip-permissions", "--print", "now")
    start: tuple[tuple[str, ...], ...] = (
        ("docker", "network", "create", "--internal", *label, name),
        (*run, "--name", sidecar, "--network", ground.world.network, "--volume", f"{config}:/pipelock.yaml:ro",
         ground.world.pipelock_image, *listen),
        ("docker", "network", "connect", name, sidecar),
        (*run, "--name", name, "--network", name, "--env", f"HTTPS_PROXY={proxy}", ground.image, "sleep", "infinity"),
        ("docker", "exec", "--interactive", "--env", "CLAUDE_BOTTLE_OAUTH_TOKEN", name, *claude),
    )  # fmt: skip
    end = (("docker", "rm", "--force", name), ("docker", "rm", "--force", sidecar), ("docker", "network", "rm", name))
    begun = time.monotonic()
    *_, out = [_docker(argv, ground.environ) for argv in start]
    for argv in end:
        _docker(argv, ground.environ)
    return _times(begun, float(out), time.monotonic())


def timed(times: int, act: Callable[[], object]) -> list[float]:
    """Return how many seconds an act takes, each of so many times."""
    took = []
    for _ in range(times):
        begun = time.monotonic()
        act()
        took.append(time.monotonic() - begun)
    return took


def _plan(ground: Ground) -> Plan:
    """Plan a session as the launcher would."""
    asked = planning.request(ground.machine, ground.agent, Run(terminal=False, question="now"), endpoint=Endpoint())
    return planning.resolve(asked, Engine(planning.client_environment(ground.machine)))


def _ready(step: Step, env: dict[str, str], said: bytes) -> bytes:
    """Run a step, or ask whether it is needed, which it is not after the first session."""
    return _docker(step.skip_if or step.argv, env, _given(step, said) if not step.skip_if else b"")


def _given(step: Step, said: bytes) -> bytes:
    return step.stdin + (step.quote.filled(said) if step.quote else b"")


def _docker(argv: Sequence[str], env: dict[str, str], stdin: bytes = b"") -> bytes:
    done = subprocess.run(argv, env=env, input=stdin, capture_output=True, check=False)
    if done.returncode:
        raise SystemExit(f"bench: {' '.join(argv[:3])} ... failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _hold(step: Step, env: dict[str, str]) -> tuple[subprocess.Popen[bytes], bytes]:
    """Start a step that runs on; return its process and its first line."""
    null = subprocess.DEVNULL
    process = subprocess.Popen(step.argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=null)
    assert process.stdin
    assert process.stdout
    process.stdin.write(step.stdin)
    process.stdin.flush()
    if not (line := process.stdout.readline()):
        raise SystemExit(f"bench: {step.name} failed")
    return process, line


def _let_go(process: subprocess.Popen[bytes]) -> None:
    process.communicate()


def _times(begun: float, moment: float, back: float) -> Times:
    if not begun < moment < back:
        raise SystemExit("bench: the engine is on another machine, whose clock is not this one's")
    return Times(moment - begun, back - moment)
