"""Run sessions in containers of other engines, where nobody waits: submit, list, fetch results, cancel."""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from claude_bottle.bottle.image import Image
from claude_bottle.bottle.plan import Plan, Run
from claude_bottle.cleanup import stack
from claude_bottle.cleanup.stack import Teardown
from claude_bottle.documents.escaping import columns, escape_control_chars
from claude_bottle.errors import BottleError, DockerError, RefusedError, RepositoryError, UsageError
from claude_bottle.fleet import image, landing, packing, tasks
from claude_bottle.fleet.packing import Options
from claude_bottle.fleet.tasks import GRACE, Task
from claude_bottle.host import console, proof
from claude_bottle.host.machine import Machine
from claude_bottle.host.stage_dir import StageDir
from claude_bottle.manifest.agent import Agent
from claude_bottle.process import command, stream
from claude_bottle.process.engine import Engine
from claude_bottle.repository import source
from claude_bottle.repository.clone import Work
from claude_bottle.session import planning, preflight, steps, token_store
from claude_bottle.session.planning import client_environment
from claude_bottle.session.runner import Runner, StepError
from claude_bottle.session.steps import Kind, Step

_SECONDS = 600.0  # for a payload to arrive
_LOG = 60.0  # seconds to read a task's output


def engines(machine: Machine) -> dict[str, Machine]:
    """Return this machine as it uses each engine that CLAUDE_BOTTLE_ENGINES names, else docker's current one."""
    names = (machine.setting("ENGINES") or "").split()
    without = {name: value for name, value in machine.environ.items() if name != "DOCKER_HOST"}
    chosen = {name: replace(machine, environ={**without, "DOCKER_CONTEXT": name}) for name in names}
    return chosen or {machine.environ.get("DOCKER_CONTEXT") or "default": machine}


@dataclass(frozen=True)
class Listed:
    """The tasks of all engines, each with its engine's name, and the engines that did not answer, with reasons."""

    tasks: Mapping[Task, str]
    silent: Mapping[str, str]

    def table(self) -> str:
        """Return the tasks as a table."""
        rows = [(task.id, engine, task.agent, _state(task), task.created) for task, engine in self.tasks.items()]
        shown = [tuple(map(escape_control_chars, row)) for row in rows]
        return columns([("TASK", "ENGINE", "AGENT", "STATE", "CREATED"), *shown]) if rows else "no tasks"

    def as_json(self) -> str:
        """Return the tasks for scripts."""
        return json.dumps([{**task.as_json(), "engine": engine} for task, engine in self.tasks.items()], indent=2)


def listed(machine: Machine) -> Listed:
    """Return the tasks of all engines, which are queried side by side."""
    found: dict[Task, str] = {}
    silent: dict[str, str] = {}
    known = engines(machine)
    with ThreadPoolExecutor(len(known)) as pool:
        answers = {name: pool.submit(tasks.listed, client_environment(each)) for name, each in known.items()}
    for name, answer in answers.items():
        try:
            found |= dict.fromkeys(answer.result(), name)
        except BottleError as error:
            silent[name] = str(error)
    return Listed(found, silent)


def submit(machine: Machine, agent: Agent, options: Options, *, on: str | None, yes: bool) -> str:
    """Start a task on an engine, once the user has said yes to its preflight; return its id.

    Raises RefusedError, UsageError, DockerError, EngineError, and what `packing.pack` raises.
    """
    if not (yes or machine.interactive):
        raise RefusedError("cannot prompt: stdin is not a terminal; pass --yes to skip the prompt")
    known = engines(machine)
    if on is not None and on not in known:
        raise UsageError(f'no engine "{on}"; CLAUDE_BOTTLE_ENGINES has {", ".join(known)}')
    machine = token_store.resolved(known[on] if on else next(iter(known.values())))
    machine = replace(machine, key=proof.make_key(machine.key_file))
    packing.names(agent)  # what cannot be packed is told before the preflight
    plan = _planned(machine, agent, options)
    console.show(preflight.summary(plan, "" if plan.image.tag in plan.facts.present else "(will be built)"))
    if not yes:
        preflight.ask("Start this task?")
    launcher = image.launcher(plan.base)
    _build(plan, launcher, machine)
    return _started(machine, agent, options, plan, launcher)


def _planned(machine: Machine, agent: Agent, options: Options) -> Plan:
    env = client_environment(machine)
    engine = Engine(env)
    repository = source.survey(options.wanted, env, machine.owner) if options.wanted else None
    run = Run(terminal=False, question=options.question)
    asked = planning.request(machine, agent, run, endpoint=engine.endpoint(), repository=repository)
    return planning.resolve(asked, engine)


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


def _started(machine: Machine, agent: Agent, options: Options, plan: Plan, launcher: Image) -> str:
    """Create a task's container, start it, and give it its payload and secrets; if that fails, nothing is left."""
    env, task = client_environment(machine), plan.session  # whose branch the preflight has named
    work = plan.repository.work if plan.repository else None
    values = json.dumps(packing.secrets(machine, agent)).encode()
    with Teardown(stoppable=False) as undo, StageDir.held("task", machine.owner) as stage:
        payload = stage.path / "payload"
        with payload.open("wb") as file:
            packing.pack(machine, agent, options, file)
        argv = tasks.create(task, agent.name, work, launcher.tag, payload.stat().st_size, machine)
        gone = ("docker", "rm", "--force", "--volumes", argv[3])
        undo.arm(0, "task", lambda: stack.remove(gone, env))
        _run(argv, env)
        _run(("docker", "start", argv[3]), env)
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
        raise DockerError(f"the task did not take its payload: {given.reason}")


@dataclass(frozen=True)
class Result:
    """A task that has ended: what its launcher printed, and its exit code."""

    task: Task
    answer: bytes
    said: str


def result(machine: Machine, name: str) -> Result:
    """Return what a task that has ended printed; raises UsageError if there is none of this name, or it runs."""
    task, env = _found(machine, name)
    if task.code is None:
        raise UsageError(f"{task.id} still runs; `fleet cancel` ends it")
    log = Engine(env).ask("logs", task.container, timeout=_LOG)
    if not log.ok:
        raise DockerError(f"docker logs: {log.reason}")
    return Result(task, log.stdout, log.stderr)


def work(machine: Machine, name: str) -> Iterator[str]:
    """Land a task's work in branches of the repository that it was submitted with; yield their summaries.

    Raises RepositoryError, DockerError; then the work stays in the task.
    """
    task, env = _found(machine, name)
    taken = Work.of_label(task.work)
    if not taken:
        return
    if not task.is_proven(machine.key):
        raise RepositoryError(f"no label proves that this user submitted {task.id}; its work stays there")
    yield from landing.landed(machine, env, task, taken)


def remove(machine: Machine, name: str) -> None:
    """Remove a task, with all that it has printed and left; raises DockerError."""
    task, env = _found(machine, name)
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
    """Return a table of the engines: version, CPUs, memory, tasks."""
    known = engines(machine)
    with ThreadPoolExecutor(len(known)) as pool:
        rows = list(pool.map(lambda item: _node(*item), known.items()))
    return columns([("ENGINE", "VERSION", "CPUS", "MEMORY", "TASKS"), *rows])


def _node(name: str, machine: Machine) -> tuple[str, ...]:
    env = client_environment(machine)
    engine = Engine(env)
    try:
        version, info, found = engine.versions().engine, engine.info(), tasks.listed(env)
    except BottleError as error:
        return (name, escape_control_chars(str(error)))
    memory = f"{int(info.get('MemTotal', 0)) >> 30} GiB"
    return (name, version, str(info.get("NCPU", "?")), memory, str(sum(task.code is None for task in found)))


def _found(machine: Machine, name: str) -> tuple[Task, Mapping[str, str]]:
    found = listed(machine)
    task = tasks.find(found.tasks, name)
    return task, client_environment(engines(machine)[found.tasks[task]])


def _state(task: Task) -> str:
    return "running" if task.code is None else f"ended ({task.code})"
