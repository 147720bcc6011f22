"""Run sessions in containers of other engines, where nobody waits: submit, list, fetch results, cancel."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from claude_bottle.bottle.image import Image
from claude_bottle.bottle.plan import Plan, Run
from claude_bottle.cleanup import stack
from claude_bottle.cleanup.stack import Teardown
from claude_bottle.commands import build
from claude_bottle.documents.escaping import columns, escape_control_chars
from claude_bottle.errors import DockerError, RefusedError, UsageError
from claude_bottle.fleet import image, landing, packing, tasks
from claude_bottle.fleet.packing import Options
from claude_bottle.fleet.tasks import GRACE, Task
from claude_bottle.host import console
from claude_bottle.host.machine import Machine
from claude_bottle.host.owner import TASK
from claude_bottle.host.stage_dir import StageDir
from claude_bottle.manifest.agent import Agent
from claude_bottle.process import command, stream
from claude_bottle.process.engine import Engine
from claude_bottle.repository.clone import Repository, Work
from claude_bottle.session import engines, planning, preflight, registries, steps, token_store
from claude_bottle.session.planning import client_environment
from claude_bottle.session.runner import Runner, StepError
from claude_bottle.session.start import NO_PROMPT, with_key
from claude_bottle.session.steps import Kind, Step
from claude_bottle.session.time_limit import limited

_SECONDS = 600.0  # for a payload to arrive
_LOG = 60.0  # seconds to read a task's output


@dataclass(frozen=True)
class Listed:
    """The tasks of all engines, each with this machine as it uses its engine."""

    tasks: Mapping[Task, Machine]

    def table(self) -> str:
        """Return the tasks as a table."""
        rows = [(task.id, _name(place), task.agent, _state(task), task.created) for task, place in self.tasks.items()]
        shown = [tuple(map(escape_control_chars, row)) for row in rows]
        return columns([("TASK", "ENGINE", "AGENT", "STATE", "CREATED"), *shown]) if rows else "no tasks"

    def as_json(self) -> str:
        """Return the tasks for scripts."""
        return json.dumps([{**task.as_json(), "engine": _name(place)} for task, place in self.tasks.items()], indent=2)


def listed(machine: Machine) -> Listed:
    """Return the tasks of all engines that answer; each other one is printed. Raises EngineError or DockerError."""
    places = engines.answering(machine)
    every = engines.side_by_side(places, lambda place: tasks.listed(client_environment(place)))
    found: dict[Task, Machine] = {}
    for place, those in zip(places, every, strict=True):
        for task in those:
            found.setdefault(task, place)  # two contexts may lead to one engine
    return Listed(found)


def submit(machine: Machine, agent: Agent, options: Options, *, on: str | None, yes: bool) -> str:
    """Start a task on an engine, once the user has said yes to its preflight; return its id.

    Raises RefusedError, UsageError, DockerError, EngineError, and what `packing.pack` raises.
    """
    if not (yes or machine.interactive):
        raise RefusedError(NO_PROMPT)
    machine = with_key(token_store.resolved(engines.chosen(machine, on) if on else machine))
    with StageDir.held("task", machine.owner) as stage:
        payload = stage.path / "payload"
        with payload.open("wb") as file:  # before the question: what is shown is what was packed
            repository = packing.pack(machine, agent, options, file)
        plan = _planned(machine, agent, options, repository)
        console.show(preflight.summary(plan, "" if plan.image.tag in plan.facts.present else "(will be built)"))
        if not yes:
            preflight.ask("Start this task?")
        launcher = image.launcher(plan.base)
        _build(plan, launcher, machine)
        values = json.dumps(packing.secrets(machine, agent)).encode()
        return _started(machine, plan, launcher, payload, values)


def _planned(machine: Machine, agent: Agent, options: Options, repository: Repository | None) -> Plan:
    """Return the plan of the session that the task will be; what its hosts are read from is built before."""
    engine = Engine(client_environment(machine))
    run = Run(terminal=False, question=options.question)
    known = registries.learned(machine, agent, engine)
    known = limited(known, options.time) if options.time else known
    asked = planning.request(machine, known, run, endpoint=engine.endpoint(), repository=repository)
    plan = planning.resolve(asked, engine)
    if not registries.unbuilt(machine, agent, plan.facts.present):
        return plan
    build.build_presets(machine, [agent])
    return _planned(machine, agent, options, repository)


def _build(plan: Plan, launcher: Image, machine: Machine) -> None:
    """Build there what is missing; raises DockerError."""
    env = client_environment(machine)
    needed = [step for step in steps.table(plan).setup if step.kind is Kind.PROGRESS]
    own = Step("launcher-image", launcher.argv, Kind.PROGRESS, stdin=launcher.context, needs=("image",))
    if Engine(env).ask("image", "inspect", launcher.tag).ok:
        own = replace(own, present=True)
    with Teardown() as undo:
        try:
            Runner(undo, env, lambda _: None, one_line=console.on_terminal()).run((*needed, own))
        except StepError as error:
            raise DockerError(f"{error.step.name}: {error.result.reason}") from error


def _started(machine: Machine, plan: Plan, launcher: Image, payload: Path, values: bytes) -> str:
    """Create a task's container, start it, and give it its payload and secrets; if that fails, nothing is left."""
    env, task = client_environment(machine), plan.session  # whose branch the preflight has named
    work = plan.repository.work if plan.repository else None
    argv = tasks.create(task, plan.agent.name, work, launcher.tag, payload.stat().st_size, machine)
    container = argv[3]
    with Teardown(stoppable=False) as undo:
        gone = ("docker", "rm", "--force", "--volumes", container)
        undo.arm(0, "task", lambda: stack.remove(gone, env))
        _run(argv, env)
        _run(("docker", "start", container), env)
        _give(task, values, payload, env)
        undo.disarm("task")
    return task


def _run(argv: tuple[str, ...], env: Mapping[str, str]) -> None:
    result = Engine(env).checked(command.run(argv, env, timeout=_LOG))
    if not result.ok:
        raise DockerError(f"docker {argv[1]}: {result.reason}")


def _give(task: str, values: bytes, payload: Path, env: Mapping[str, str]) -> None:
    client = command.start(tasks.give(task, len(values)), env)
    with payload.open("rb", buffering=0) as file:
        given = stream.pump(client, what="sending the task", seconds=_SECONDS, head=values, source=file)
    if not given.ok:
        # The launcher knows better why it stopped reading.
        said = Engine(env).ask("logs", "--tail", "3", f"{TASK}{task}", timeout=_LOG).stderr.strip()
        raise DockerError(f"the task did not take its payload: {' '.join(said.split()) or given.reason}")


@dataclass(frozen=True)
class Result:
    """A task that has ended: what its launcher printed, and its exit code."""

    task: Task
    answer: bytes
    said: str


def result(machine: Machine, name: str) -> Result:
    """Return what a task that has ended printed; raises UsageError if there is none of this name, or it runs."""
    task, env = _ended(machine, name)
    log = Engine(env).ask("logs", task.container, timeout=_LOG)
    if not log.ok:
        raise DockerError(f"docker logs: {log.reason}")
    return Result(task, log.stdout, log.stderr)


def land(machine: Machine, name: str, landed: Callable[[str], None]) -> None:
    """Land a task's work in branches of the repository that it was submitted with; `landed` is called for each.

    Raises RepositoryError for work that could not be landed, which is saved beside the repository; DockerError.
    """
    task, env = _found(machine, name)
    if taken := Work.of_label(task.work):
        landing.land(machine, env, task, taken, landed)


def remove(machine: Machine, name: str) -> None:
    """Remove a task that has ended, with all that it has printed and left; raises UsageError or DockerError."""
    task, env = _ended(machine, name)
    if reason := stack.remove(("docker", "rm", "--force", "--volumes", task.container), env):
        raise DockerError(f"{task.id} cannot be removed: {reason}")


def cancel(machine: Machine, name: str) -> str:
    """End a task in order, its work included; return its id. What it has printed and left stays for `result`."""
    task, env = _found(machine, name)
    if task.code is None:
        _stop(task, env)
    return task.id


def _stop(task: Task, env: Mapping[str, str]) -> None:
    console.say(f"ending {task.id}, at most {GRACE // 60} minutes")
    ended = command.run(("docker", "stop", "--time", str(GRACE), task.container), env, timeout=GRACE + _LOG)
    if not ended.ok:
        raise DockerError(f"docker stop: {ended.reason}")


def nodes(machine: Machine) -> str:
    """Return a table of the engines that answer: version, CPUs, memory, tasks that run."""
    rows = engines.side_by_side(engines.answering(machine), _node)
    return columns([("ENGINE", "VERSION", "CPUS", "MEMORY", "TASKS"), *rows])


def _node(place: Machine) -> tuple[str, ...]:
    env = client_environment(place)
    engine = Engine(env)
    info, running = engine.info(), sum(task.code is None for task in tasks.listed(env))
    memory = info.get("MemTotal")
    shown = f"{memory >> 30} GiB" if isinstance(memory, int) else "?"
    cells = (_name(place), engine.versions().engine, str(info.get("NCPU", "?")), shown, str(running))
    return tuple(map(escape_control_chars, cells))


def _found(machine: Machine, name: str) -> tuple[Task, Mapping[str, str]]:
    found = listed(machine)
    task = tasks.find(found.tasks, name)
    if not task.is_proven(machine.key):
        raise UsageError(f"no label proves that this user submitted {escape_control_chars(task.id)}")
    return task, client_environment(found.tasks[task])


def _ended(machine: Machine, name: str) -> tuple[Task, Mapping[str, str]]:
    task, env = _found(machine, name)
    if task.code is None:
        raise UsageError(f"{task.id} still runs; `fleet cancel` ends it")
    return task, env


def _name(place: Machine) -> str:
    return place.engine or "default"


def _state(task: Task) -> str:
    return "running" if task.code is None else f"ended ({task.code})"
