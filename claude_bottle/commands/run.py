"""Run a list of tasks, each in a session of its own, some at a time, and keep what comes of them in a folder."""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from claude_bottle.bottle import plan as plans
from claude_bottle.bottle.plan import Plan, Request, Run
from claude_bottle.cleanup.stack import Teardown
from claude_bottle.commands import build, check
from claude_bottle.documents.escaping import columns, escape_control_chars
from claude_bottle.errors import EngineError, ManifestError, RefusedError, RepositoryError, UsageError
from claude_bottle.host import console
from claude_bottle.host.machine import Machine, machine_fault
from claude_bottle.manifest import agent as manifest
from claude_bottle.manifest import duration, tasks
from claude_bottle.manifest.agent import Agent
from claude_bottle.manifest.tasks import Task
from claude_bottle.manifest.validation import Fault
from claude_bottle.process import command
from claude_bottle.process.engine import Engine, EngineFacts
from claude_bottle.repository import source
from claude_bottle.repository.clone import Repository, Wanted
from claude_bottle.session import approvals, conversation, engines, planning, preflight, registries, time_limit
from claude_bottle.session import start as session
from claude_bottle.session.approvals import Approval
from claude_bottle.session.conversation import Strike
from claude_bottle.session.crew import Crew, Job, Running
from claude_bottle.session.results import Result, Results
from claude_bottle.session.task import Order

_AT_ONCE = 4  # at most, unless the user wants another number
_MOST = 64  # with -j: each has four descriptors, and select() takes no number above 1023
_NOT_RUN = "not run"
_SHOWN = 200  # characters of an error
_SECONDS = 10.0  # for docker to say which context it uses


@dataclass(frozen=True)
class Wish:
    """A task with all that it names on this machine: its repository is at the commit that its `ref` is now."""

    task: Task
    agent: Agent
    repository: Repository | None = None
    branch: str = ""
    own_time: int | None = None  # the limit that the bottle's manifest sets, in seconds

    @property
    def wanted(self) -> Wanted | None:
        """Return the repository as the session is to take it."""
        work = self.repository.work if self.repository else None
        return Wanted(work.repository, work.commit, branch=self.branch) if work else None


@dataclass(frozen=True)
class Line:
    """A task of the list and its result, if it has one."""

    task: str
    result: Result | None = None

    def as_json(self) -> dict[str, object]:
        """Return it as data for json.dumps."""
        return self.result.as_json() if self.result else {"task": self.task, "state": _NOT_RUN}

    def as_row(self) -> tuple[str, str, str, str]:
        """Return it as cells of a table."""
        if not self.result:
            return self.task, _NOT_RUN, "-", "-"
        result = self.result
        return self.task, result.state, duration.written(result.seconds), escape_control_chars(result.branch) or "-"


@dataclass(frozen=True)
class Done:
    """All tasks of the list, and the exit code."""

    lines: tuple[Line, ...]
    code: int


@dataclass(frozen=True)
class Options:
    """The options of a `run`; `at_once` None: as many as the engine's memory allows."""

    out: Path
    at_once: int | None = None
    on: str | None = None  # an engine, or any
    yes: bool = False
    retry: bool = False  # those that have failed


def folder(path: Path) -> Path:
    """Return where the results of a list are kept unless its user chooses another folder."""
    return path.with_name(f"{path.stem}.results")


def run(machine: Machine, path: Path, options: Options) -> Done:
    """Run the tasks of a list that are not done; return what has become of all.

    Raises ManifestError with every fault of the list, TokenError, RefusedError without a yes, UsageError if another run
    has the same results, and what the planning of a session raises; after the first start nothing.
    """
    wishes = load(machine, path)
    results = Results(options.out)
    with results.held():
        before = {wish.task.name: _before(results, wish.task) for wish in wishes}
        ahead = [wish for wish in wishes if _is_ahead(before[wish.task.name], retry=options.retry)]
        now, code = _carried_out(machine, ahead, len(wishes), options, results) if ahead else ({}, 0)
    lines = tuple(Line(name, now.get(name, result)) for name, result in before.items())
    return Done(lines, code or int(any(not line.result or line.result.code for line in lines)))


def table(lines: Sequence[Line]) -> str:
    """Return the tasks as a table."""
    return columns([("TASK", "STATE", "TIME", "BRANCH"), *(line.as_row() for line in lines)])


def load(machine: Machine, path: Path) -> list[Wish]:
    """Return the tasks of a list; raises ManifestError with every fault of it and of the agents that it names."""
    faults = list[Fault]()
    known = _Known(machine)
    slug = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-") or "tasks"
    wishes = []
    for task in tasks.read(path, machine.home, faults):
        agent = known.agent(task)
        if agent:
            limited = time_limit.limited(agent, task.time) if task.time else agent
            branch, own = f"bottle/run-{slug}/{task.name}", agent.bottle.limits.time
            wishes.append(Wish(task, limited, known.repository(task, agent), branch, own))
    faults.sort(key=lambda fault: (fault.line, fault.column))
    lines = dict.fromkeys((*map(str, faults), *known.faults))
    if lines:
        raise ManifestError("\n".join(lines))
    return wishes


class _Known:
    """The agents and repositories that tasks name, each looked at once; `faults` are those of the agents' manifests."""

    def __init__(self, machine: Machine) -> None:
        self.faults: list[str] = []
        self._machine = machine
        self._agents: dict[str, tuple[Agent | None, str]] = {}
        self._surveys: dict[Wanted, Repository | RepositoryError] = {}

    def agent(self, task: Task) -> Agent | None:
        if task.agent not in self._agents:
            self._agents[task.agent] = self._loaded(task.agent)
        agent, problem = self._agents[task.agent]
        if problem:
            task.fail("agent", problem)
        return agent

    def _loaded(self, name: str) -> tuple[Agent | None, str]:
        """Return an agent, and what is wrong with naming it."""
        try:
            manifest.require(self._machine.agents, name)
        except ManifestError as error:
            return None, str(error)
        try:
            [agent] = check.check(self._machine, name)
        except ManifestError as error:
            self.faults += str(error).split("\n")
            return None, ""
        locked = next((host.key.path for host in agent.bottle.ssh if host.key.encrypted), None)
        return agent, f"a task cannot prompt for the passphrase of {locked}" if locked else ""

    def repository(self, task: Task, agent: Agent) -> Repository | None:
        """Return the repository of a task, named by the commit that its revision is now."""
        try:
            wanted = source.wanted(agent.repo, task.repo, task.ref, with_changes=False)
        except UsageError:
            task.fail("name", 'has a "ref", and no "repo"')
            return None
        if not wanted:
            return None
        found = self._survey(replace(wanted, path=wanted.path.absolute()))
        if isinstance(found, Repository):
            return replace(found, asked=found.work.commit)
        whole = isinstance(self._survey(replace(wanted, path=wanted.path.absolute(), ref="HEAD")), Repository)
        task.fail("ref" if whole else "repo", str(found))
        return None

    def _survey(self, wanted: Wanted) -> Repository | RepositoryError:
        if wanted not in self._surveys:
            try:
                self._surveys[wanted] = source.survey(wanted, planning.client_environment(self._machine), None)
            except RepositoryError as error:
                self._surveys[wanted] = error
        return self._surveys[wanted]


def _before(results: Results, task: Task) -> Result | None:
    """Return the result of an earlier run; None if the task has changed since."""
    result = results.read(task.name)
    return result if result and result.hash == task.hash else None


def _is_ahead(before: Result | None, *, retry: bool) -> bool:
    """Return whether a task is to be run: a failure is final until the user wants another try."""
    return not before or before.interrupted or (retry and before.code != 0)


def _carried_out(
    machine: Machine, wishes: Sequence[Wish], count: int, options: Options, results: Results
) -> tuple[dict[str, Result], int]:
    """Show what tasks will do, ask, and run them; return their results, and the exit code if a signal ended it."""
    if options.at_once and options.at_once > _MOST:
        raise UsageError(f"-j {options.at_once}: {_MOST} at a time is the most")
    machine = session.with_key(session.with_token(machine))
    if not (options.yes or machine.interactive):
        raise RefusedError(session.NO_PROMPT)
    places = engines.wanted(machine, options.on) if options.on else [machine]
    made, facts = _plans(places[0], wishes)
    names = [place.engine or _engine(place) for place in places]
    rooms = [_Room(*each) for each in zip(places, (facts, *_facts(made, places[1:])), names, strict=True)]
    at_once = min(len(wishes), options.at_once or sum(room.count(made) for room in rooms))
    console.show(_summary(wishes, made))
    more = f" of {count}" if count > len(wishes) else ""  # the others are done, or have failed
    where = f" on {escape_control_chars(', '.join(names))}" if options.on else ""
    console.show(f"run     {len(wishes)}{more} task{'' if count == 1 else 's'}, {at_once} at a time{where}")
    console.show(f"  out     {escape_control_chars(str(options.out))}")
    if all(room.facts.memory for room in rooms) and at_once * _largest(made) > sum(room.left(0) for room in rooms):
        console.show("  warning their memory may be more than is left")
    if not options.yes:
        preflight.ask(f"Run {'this task' if len(wishes) == 1 else 'these tasks'}?")
    for room in rooms:
        if unbuilt := [
            each.agent for each in made if any(image.tag not in room.facts.present for image in each.images)
        ]:
            build.build(room.place, unbuilt, pull=False, no_cache=False)
    foreman = _Foreman(machine, results, dict(zip([wish.task.name for wish in wishes], wishes, strict=True)), rooms)
    code = 0
    try:
        with Teardown(stoppable=False) as undo:
            crew = Crew(planning.client_environment(machine), undo, foreman.changed, foreman.ended)
            crew.run([foreman.job(*each) for each in zip(wishes, made, strict=True)], at_once)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    return foreman.results, code


@dataclass
class _Room:
    """An engine, and the tasks that run on it."""

    place: Machine
    facts: EngineFacts
    name: str
    tasks: set[str] = field(default_factory=set)

    def count(self, made: Sequence[Plan]) -> int:
        """Return how many tasks its memory has room for, beside the bottles that run before; at least one."""
        largest = _largest(made)
        room = (self.facts.memory - sum(self.facts.bottles)) // largest if self.facts.memory and largest else _AT_ONCE
        return max(1, min(_AT_ONCE, room))

    def left(self, memory: int) -> int:
        """Return what its memory has left by limits once its tasks have so much each, in bytes."""
        return self.facts.memory - sum(self.facts.bottles) - memory * len(self.tasks)


def _largest(made: Sequence[Plan]) -> int:
    """Return the largest limit of memory of all tasks, in bytes; 0 if none has one."""
    return max(each.agent.bottle.limits.memory or 0 for each in made)


def _facts(made: Sequence[Plan], places: Sequence[Machine]) -> list[EngineFacts]:
    """Return the facts of further engines."""
    images = [name for each in made for name in (*(image.tag for image in each.images), each.sidecar_image)]

    def facts(place: Machine) -> EngineFacts:
        return Engine(planning.client_environment(place)).facts(images, place.setting("EGRESS_NETWORK"))

    return engines.side_by_side(places, facts) if places else []


def _plans(machine: Machine, wishes: Sequence[Wish]) -> tuple[list[Plan], EngineFacts]:
    """Return the plan of each task, its question as the only thing that another task does not share with it.

    What the hosts of registries are read from is built before: they are part of what is shown.
    """
    engine = Engine(planning.client_environment(machine))
    endpoint, requests = engine.endpoint(), dict[tuple[object, ...], Request]()
    keys = [(wish.task.agent, wish.task.time, wish.repository) for wish in wishes]
    for key, wish in zip(keys, wishes, strict=True):
        if key not in requests:
            agent = registries.learned(machine, wish.agent, engine)
            run = Run(terminal=False)
            requests[key] = planning.request(machine, agent, run, endpoint=endpoint, repository=wish.repository)
    asked = list(requests.values())
    images = [name for each in asked for name in (*(image.tag for image in each.images), each.sidecar_image)]
    facts = engine.facts(images, asked[0].chosen_network)
    unbuilt = [each.agent for each in asked if registries.unbuilt(machine, each.agent, facts.present)]
    if unbuilt:
        build.build_presets(machine, unbuilt)
        return _plans(machine, wishes)
    found = {key: plans.make(each, facts) for key, each in requests.items()}
    runs = (Run(terminal=False, question=wish.task.prompt) for wish in wishes)
    return [replace(found[key], run=run) for key, run in zip(keys, runs, strict=True)], facts


def _summary(wishes: Sequence[Wish], made: Sequence[Plan]) -> str:
    """Return the tasks below what they may do: one preflight for all that may do the same."""
    blocks: dict[str, list[str]] = {}
    there: dict[str, str] = {}
    for wish, plan in zip(wishes, made, strict=True):
        limits = replace(plan.agent.bottle.limits, time=wish.own_time)
        bottle = replace(plan.agent.bottle, limits=limits)
        agent = replace(plan.agent, bottle=bottle, prompt=None)
        bare = replace(plan, agent=agent, run=Run(terminal=False), repository=None, engine="")
        text = preflight.summary(bare, "" if plan.image.tag in plan.facts.present else "(will be built)")
        lines = blocks.setdefault(text, [])
        taken = "".join(f"{line}\n" for line in _taken(plan.repository))
        if there.get(text, "") != taken:
            there[text] = taken
            lines.append(taken or "repo    none\n")
        prompt = f"{preflight.shortened(wish.task.prompt)} ({len(wish.task.prompt)} characters)"
        ends = f", ends after {duration.written(wish.task.time)}" if wish.task.time else ""
        lines.append(f"task    {wish.task.name}: {prompt}{ends}\n")
    branches = {wish.branch.rpartition("/")[0] for wish in wishes if wish.repository}
    back = "".join(f"back    as branches {branch}/<task>\n" for branch in branches)
    return "".join(text + "".join(lines) for text, lines in blocks.items()) + back


def _taken(repository: Repository | None) -> Iterator[str]:
    if repository:
        yield f"repo    {escape_control_chars(f'{repository.work.repository} at {repository.ref}')}"
        yield from (f"  note    {escape_control_chars(note)}" for note in repository.notes)


def _engine(machine: Machine) -> str:
    """Return the name of the engine for the results: its URL if the user chose it by that, else its context's name."""
    env = planning.client_environment(machine)
    words = ("docker", "context", "inspect", "--format", "{{.Name}}")
    named = command.run(words, env, timeout=_SECONDS).stdout.decode(errors="replace").strip()
    return env.get("DOCKER_HOST") or named


class _Foreman:
    """Places each task, prints what becomes of it, a line each, and writes its result."""

    def __init__(self, machine: Machine, results: Results, wishes: dict[str, Wish], rooms: list[_Room]) -> None:
        self.results: dict[str, Result] = {}
        self._machine, self._folder, self._wishes, self._rooms = machine, results, wishes, rooms
        self._where: dict[str, _Room] = {}
        self._width = max(map(len, wishes))

    def job(self, wish: Wish, plan: Plan) -> Job:
        """Return the session of a task, which starts nothing but what was said yes to."""
        approved = Approval(time.strftime("%Y-%m-%d %H:%M"), approvals.entries(plan))
        memory = plan.agent.bottle.limits.memory or 0

        def order(news: int) -> Order:
            room = max(self._rooms, key=lambda each: (each.left(memory), -len(each.tasks)))
            room.tasks.add(wish.task.name)
            self._where[wish.task.name] = room
            made = Order.of(news, self._machine, wish.task.prompt, approved, wish.wanted)
            # By its name: the user may choose another context meanwhile.
            named = "" if room.place.environ.get("DOCKER_HOST") else room.name
            return replace(made, time=wish.task.time, engine=named)

        return Job(wish.task.name, wish.task.agent, order)

    def changed(self, launcher: Running) -> None:
        engine = self._where[launcher.job.name].place.engine
        where = f" on {engine}" if engine else ""
        self._say(launcher, f"working, session {launcher.session}" if launcher.session else f"starting{where}")

    def ended(self, launcher: Running, code: int, interrupted: bool) -> None:
        wish, room = self._wishes[launcher.job.name], self._where[launcher.job.name]
        room.tasks.discard(wish.task.name)
        unusable = code == EngineError.exit_code and launcher.error  # else the code is claude's own
        if unusable and len(self._rooms) > 1 and room in self._rooms:
            self._rooms.remove(room)  # else all that come would go there, where nothing runs
            console.say(escape_control_chars(f"no further task on {room.name}"))
        strike = Strike(conversation.secrets(self._machine, wish.agent))
        answer, cut = launcher.answer.struck(strike)
        result = Result(
            wish.task.name,
            wish.task.hash,
            wish.task.agent,
            room.name,
            code,
            session=launcher.session,
            branch=next(iter(launcher.branches), ""),
            error=strike.text(launcher.error),
            seconds=round(time.monotonic() - launcher.started),
            interrupted=interrupted and code != 0,
            cut=cut,
        )
        self.results[wish.task.name] = result
        more = f", branch {result.branch}" if result.branch else ""
        # Claude itself prints on stdout why it failed.
        said = result.error or (answer.decode(errors="replace").strip() if code else "")
        why = f": {preflight.shortened(said, _SHOWN)}" if said else ""
        self._say(launcher, f"{result.state} after {duration.written(result.seconds)}{more}{why}")
        try:
            self._folder.write(result, answer, launcher.log.struck(strike)[0])
        except OSError as error:
            self._say(launcher, f"its result is not kept: {machine_fault(error)}")

    def _say(self, launcher: Running, what: str) -> None:
        console.say(escape_control_chars(f"{launcher.job.name:<{self._width}}  {what}"))
