"""Lists of tasks with a fake docker: the launcher and those that it starts are real children."""

import contextlib
import json
import os
import re
import select
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pexpect
import pytest

from claude_bottle.bottle.plan import Run
from claude_bottle.commands import run as listed
from claude_bottle.manifest.bottle import Limits
from claude_bottle.process.engine import EngineFacts
from claude_bottle.session.results import Result, Results
from tests.support import plans
from tests.support.repos import Repo, users
from tests.support.scene import PATCHED, SECRET, STEPS, TRUSTING, Scene

CLAUDE = STEPS["claude"]
TWO = "agent: demo\ntasks:\n- {name: one, prompt: first}\n- {name: two, prompt: second}\n"


def write(scene: Scene, text: str = TWO) -> Path:
    path = scene.folder / "tasks.yaml"
    path.write_text(text)
    return path


def results(scene: Scene) -> dict[str, Result]:
    folder = scene.folder / "tasks.results"
    found = {path.stem: Results(folder).read(path.stem) for path in folder.glob("*.json")}
    return {name: result for name, result in found.items() if result}


def test_each_task_is_a_session_whose_answer_is_kept(scene: Scene) -> None:
    write(scene)
    scene.rule(CLAUDE, stdout="the answer\n")
    code, out, err = scene.run("run", "tasks.yaml", "--yes")
    rows = [line.split() for line in out.splitlines()]
    assert (code, rows[0]) == (0, ["TASK", "STATE", "TIME", "BRANCH"]), err
    assert [(row[0], row[1], row[3]) for row in rows[1:]] == [("one", "done", "-"), ("two", "done", "-")]
    found, folder = results(scene), scene.folder / "tasks.results"
    assert [(one.code, one.session, one.agent) for one in found.values()] == [(0, "demo-0a1b2c3d", "demo")] * 2
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = {path.name: path for path in folder.iterdir()}
    assert set(files) == {f"{name}.{kind}" for name in ("one", "two") for kind in ("json", "txt", "log")}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o600}
    assert files["one.txt"].read_text() == "the answer\n"
    assert "isolation  " in files["two.log"].read_text()
    for line in ("one  starting", "two  working, session demo-0a1b2c3d", "one  done after "):
        assert f"claude-bottle: {line}" in err


def test_nothing_of_a_task_is_on_a_command_line_nor_the_token_in_an_environment(scene: Scene) -> None:
    write(scene, TWO.replace("first", "a-marker"))
    scene.rule(CLAUDE, fifo="claude")
    child = scene.launch("run", "tasks.yaml", "--yes", "-j", "1")
    with scene.held("claude"):
        [launcher] = launchers(child.pid)
        words = (Path("/proc") / str(launcher) / "cmdline").read_bytes().split(b"\0")
        assert words[-4:] == [b"start", b"demo", b"--task", b""]
        assert SECRET.encode() not in (Path("/proc") / str(launcher) / "environ").read_bytes()
        child.send_signal(signal.SIGTERM)
    assert scene.end(child)[0] == 128 + signal.SIGTERM
    assert not any(SECRET in path.read_text() for path in (scene.folder / "tasks.results").iterdir())


def launchers(pid: int) -> list[int]:
    """Return the launchers that a `run` has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(one) for one in children if b"--task" in Path(f"/proc/{one}/cmdline").read_bytes()]


def test_one_yes_covers_all(scene: Scene) -> None:
    write(scene, TWO.replace("second", "second, time: 1h"))
    scene.rule(CLAUDE, stdout="x")
    argv = [str(PATCHED), json.dumps(TRUSTING), "run", "tasks.yaml", "-j", "1"]
    child = pexpect.spawn(sys.executable, argv, env=scene.environ, cwd=str(scene.folder), encoding="utf-8", timeout=300)
    child.expect_exact("Run these tasks? [y/N] ")
    shown = (child.before or "").replace("\r\n", "\n")
    assert [event for event in scene.calls if event.starts("create")] == []
    child.sendline("y")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0, child.before
    assert shown.count("agent   demo") == 1
    assert "\ntask    one: first (5 characters)\ntask    two: second (6 characters), ends after 1h\n" in shown
    assert shown.endswith("run     2 tasks, 1 at a time\n  out     tasks.results\n")
    assert [one.code for one in results(scene).values()] == [0, 0]


@pytest.mark.parametrize("answer", ["n", ""])
def test_without_a_yes_nothing_is_started(scene: Scene, answer: str) -> None:
    write(scene)
    argv = [str(PATCHED), json.dumps(TRUSTING), "run", "tasks.yaml"]
    child = pexpect.spawn(sys.executable, argv, env=scene.environ, cwd=str(scene.folder), encoding="utf-8", timeout=300)
    child.expect_exact("[y/N] ")
    child.sendline(answer)
    child.expect(pexpect.EOF)
    child.close()
    assert (child.exitstatus, results(scene)) == (65, {})


def test_a_script_needs_a_yes_on_its_command_line_and_gets_no_call_of_docker(scene: Scene) -> None:
    write(scene)
    code, out, err = scene.run("run", "tasks.yaml")
    assert (code, out, scene.calls) == (65, "", [])
    assert err == "claude-bottle: cannot prompt: stdin is not a terminal; pass --yes to skip the prompt\n"


def test_what_has_changed_since_the_yes_is_not_started(scene: Scene) -> None:
    write(scene)
    scene.rule(CLAUDE, fifo="claude", times=1)
    child = scene.launch("run", "tasks.yaml", "--yes", "-j", "1")
    with scene.held("claude"):
        (scene.agents / "bottles" / "default.yaml").write_text("egress: {allow: [evil.example]}\n")
    code, _, err = scene.end(child)
    assert code == 1
    assert ": not started: changed since you approved it, see above\n" in err
    assert "two  failed (65) after " in err
    assert "+ egress  evil.example\n" in (scene.folder / "tasks.results" / "two.log").read_text()
    assert results(scene)["one"].code == 0


def test_a_repository_that_moves_on_is_taken_as_it_was_shown(scene: Scene) -> None:
    environ = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}
    scene.environ["PATH"] += f":{os.environ['PATH']}"
    repo = users(scene.folder / "user", environ)
    first = repo.git("rev-parse", "HEAD")
    write(scene, TWO + "repo: user\n")
    scene.rule(CLAUDE, fifo="claude", times=1)
    child = scene.launch("run", "tasks.yaml", "--yes", "-j", "1")
    with scene.held("claude"):
        Repo(repo.path, environ).commit("another", file="2")
    _, _, err = scene.end(child)
    clones = [event.argv[-3:-1] for event in scene.calls if event.starts("git init --quiet")]
    assert clones == [(f"bottle/run-tasks/{name}", first) for name in ("one", "two")], err


def test_there_is_a_most_that_run_at_once(scene: Scene) -> None:
    write(scene)
    code, _, err = scene.run("run", "tasks.yaml", "--yes", "-j", "65")
    assert (code, err.splitlines()[-1]) == (2, "claude-bottle: -j 65: 64 at a time is the most")
    assert not [event for event in scene.log if event.starts(STEPS["network"])]


def test_a_failed_task_is_tried_again_only_if_that_is_wanted(scene: Scene) -> None:
    write(scene)
    scene.rule(CLAUDE, stdout="half", code=7, times=1)
    code, _, err = scene.run("run", "tasks.yaml", "--yes", "-j", "1")
    assert (code, len(re.findall(r"one  failed \(7\) after [0-9]+s: half\n", err))) == (1, 1)
    assert {name: one.state for name, one in results(scene).items()} == {"one": "failed (7)", "two": "done"}
    assert (scene.folder / "tasks.results" / "one.txt").read_text() == "half"
    code, out, err = scene.run("run", "tasks.yaml", "--json")
    assert (code, err) == (1, "")  # nothing is left to run, so nothing is asked
    assert [(one["task"], one["state"]) for one in json.loads(out)] == [("one", "failed (7)"), ("two", "done")]
    code, _, err = scene.run("run", "tasks.yaml", "--yes", "--retry")
    assert (code, results(scene)["one"].state) == (0, "done")
    assert "run     1 of 2 tasks, 1 at a time\n" in err


def test_a_task_that_was_done_and_has_changed_is_run_again(scene: Scene) -> None:
    write(scene)
    assert scene.run("run", "tasks.yaml", "--yes")[0] == 0
    before = results(scene)
    write(scene, TWO.replace("second", "another"))
    code, _, err = scene.run("run", "tasks.yaml", "--yes")
    assert (code, err.count("starting")) == (0, 1)
    after = results(scene)
    assert (after["one"], after["two"].hash != before["two"].hash) == (before["one"], True)


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "QUIT"])
def test_a_signal_ends_all_in_order_and_the_next_run_does_the_rest(scene: Scene, name: str) -> None:
    write(scene, f"{TWO}- {{name: three, prompt: third}}\n")
    number = signal.Signals[f"SIG{name}"]
    for fifo in ("one", "two"):
        scene.rule(CLAUDE, fifo=fifo, times=1)
    child = scene.launch("run", "tasks.yaml", "--yes", "-j", "2", CLAUDE_BOTTLE_AGENTS=str(scene.agents))
    with scene.held("one"), scene.held("two"):
        child.send_signal(number)
        code, out, err = scene.end(child)
    assert (code, "claude-bottle: ending 2 tasks in order, with the work\n" in err) == (128 + number, True), err
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [
        ["one", "interrupted"], ["two", "interrupted"], ["three", "not"],
    ]  # fmt: skip
    assert sum(event.starts("rm --force --volumes claude-bottle-demo-0a1b2c3d-sidecar") for event in scene.calls) == 2
    code, out, err = scene.run("run", "tasks.yaml", "--yes")
    assert (code, err.count("starting")) == (0, 3)


def test_further_signals_give_up_bringing_the_work_back(scene: Scene) -> None:
    scene.environ["PATH"] += f":{os.environ['PATH']}"
    users(scene.folder / "user", {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"})
    write(scene, TWO + "repo: user\n")
    scene.rule(CLAUDE, fifo="claude", times=1)
    scene.rule(" keep ", fifo="keep")
    child = scene.launch("run", "tasks.yaml", "--yes", "-j", "1")
    with scene.held("claude"):
        child.send_signal(signal.SIGINT)
    with scene.held("keep"):
        while child.poll() is None:
            child.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(1)
    code, _, err = scene.end(child)
    assert (code, "claude-bottle: bringing the work back; Ctrl-C again gives it up\n" in err) == (130, True)
    assert "given up while " in (scene.folder / "tasks.results" / "one.log").read_text()


def test_a_launcher_that_is_killed_is_a_failed_task(scene: Scene) -> None:
    write(scene)
    scene.rule(CLAUDE, fifo="claude", times=1)
    child = scene.launch("run", "tasks.yaml", "--yes", "-j", "1")
    with scene.held("claude"):
        os.kill(launchers(child.pid)[0], signal.SIGKILL)
    with child:
        out, err = child.communicate()
    assert child.returncode == 1, err
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [["one", "failed"], ["two", "done"]]
    assert results(scene)["one"].code == 137


def test_its_launchers_end_in_order_if_it_is_killed(scene: Scene) -> None:
    write(scene)
    scene.rule(CLAUDE, fifo="claude", times=1)
    child = scene.launch("run", "tasks.yaml", "--yes", "-j", "1")
    with scene.held("claude"):
        [launcher] = launchers(child.pid)
        descriptor = os.pidfd_open(launcher)
        child.kill()
        child.communicate()
        signal.pidfd_send_signal(descriptor, 0)  # it has not been killed
        with os.fdopen(descriptor) as ended:
            select.select([ended], [], [])
    assert any(event.starts("rm --force --volumes claude-bottle-demo-0a1b2c3d-sidecar") for event in scene.calls)
    assert list(scene.tmp.iterdir()) == []


def test_every_fault_is_told_before_the_first_start(scene: Scene) -> None:
    (scene.agents / "broken.yaml").write_text("bottle: none\nzzz: 1\n")
    path = write(
        scene,
        """\
agent: dem
tasks:
- {name: one, prompt: x}
- {name: two, prompt: x, agent: broken}
- {name: three, agent: demo}
- {name: four, prompt: x, agent: demo, ref: main}
- {name: five, prompt: x, agent: demo, repo: nowhere}
""",
    )
    scene.environ["PATH"] += f":{os.environ['PATH']}"
    code, out, err = scene.run("run", "tasks.yaml", "--yes")
    assert (code, out, scene.calls) == (64, "", [])
    assert err.replace(f"{scene.agents}/", "").splitlines() == [
        f'{path.name}:1:8: agent: {scene.agents}: no agent "dem"; did you mean "demo"?',
        f'{path.name}:5:3: tasks: missing required key "prompt"',
        f'{path.name}:6:10: tasks.name: has a "ref", and no "repo"',
        f"{path.name}:7:46: tasks.repo: {scene.folder}/nowhere: not a folder",
        'broken.yaml:1:9: bottle: no bottle "none" in bottles',
        'broken.yaml:2:1: unknown key "zzz"; known keys: description, bottle, skills, prompt, repo',
    ]


def test_two_runs_do_not_share_their_results(scene: Scene) -> None:
    write(scene)
    scene.rule(CLAUDE, fifo="claude", times=1)
    child = scene.launch("run", "tasks.yaml", "--yes", "-j", "1")
    with scene.held("claude"):
        other = scene.launch("run", "tasks.yaml", "--yes")
        _, err = other.communicate()
        assert (other.returncode, err) == (2, "claude-bottle: another run writes its results to tasks.results\n")
    assert scene.end(child)[0] == 0


def test_secrets_are_struck_out_of_the_results(scene: Scene) -> None:
    (scene.agents / "bottles" / "default.yaml").write_text("env: {KEY: '${A_KEY}'}\n")
    write(scene)
    scene.rule(CLAUDE, stdout="it is planted-key\n", stderr="planted-key\n")
    assert scene.run("run", "tasks.yaml", "--yes", A_KEY="planted-key")[0] == 0
    folder = scene.folder / "tasks.results"
    assert (folder / "one.txt").read_text() == "it is [struck out]\n"
    assert [path.name for path in folder.iterdir() if "planted-key" in path.read_text()] == []


def test_a_result_that_cannot_be_kept_is_told(scene: Scene) -> None:
    write(scene)
    (scene.folder / "tasks.results" / "one.json").mkdir(parents=True)
    code, _, err = scene.run("run", "tasks.yaml", "--yes", "-j", "1")
    assert "one  its result is not kept: " in err
    assert (code, set(results(scene))) == (0, {"two"})


@pytest.mark.parametrize("text", ["", "{}", "[]", "{", '{"task": "one"}', "[" * 100_000])
def test_a_result_that_is_damaged_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "one.json").write_text(text)
    assert Results(tmp_path).read("one") is None


def test_a_result_comes_back_as_it_was_written(tmp_path: Path) -> None:
    kept = Results(tmp_path / "new")
    result = Result("one", "hash", "demo", "default", 0, "demo-1", "bottle/run-x/one", "why \u2028", 7, True, True)
    with kept.held():
        kept.write(result, b"answer", b"log")
        assert kept.read("one") == result
    path = tmp_path / "new" / "one.json"
    for other in ({"code": True}, {"code": "0"}, {"task": "two"}):
        path.write_text(json.dumps(result.as_json() | other))
        assert kept.read("one") is None


@pytest.mark.parametrize(
    ("memory", "bottles", "limit", "room"),
    [(16, (), 4, 4), (16, (4,), 4, 3), (9, (), 4, 2), (4, (4, 4), 4, 1), (0, (), 4, 4), (16, (), None, 4)],
)  # fmt: skip
def test_as_many_run_at_once_as_the_engine_has_memory_for(
    tmp_path: Path, memory: int, bottles: tuple[int, ...], limit: int | None, room: int
) -> None:
    plan = plans.plan(plans.manifests(tmp_path / "agents"), Run(terminal=False))
    limits = replace(Limits(), memory=limit and limit << 30)
    plan = replace(plan, agent=replace(plan.agent, bottle=replace(plan.agent.bottle, limits=limits)))
    facts = EngineFacts(memory=memory << 30, bottles=tuple(each << 30 for each in bottles))
    assert listed._Room(plans.machine(), facts, "").count([plan]) == room


@pytest.mark.parametrize(("memory", "warns"), [(16, False), (6, True)])
def test_more_at_once_than_there_is_memory_for_is_warned_of(scene: Scene, memory: int, warns: bool) -> None:
    write(scene)
    scene.rule("info --format", stdout=f"false 28.2.2 {memory << 30}\n")
    code, _, err = scene.run("run", "tasks.yaml", "--yes", "-j", "2")
    assert (code, "  warning their memory may be more than is left\n" in err) == (0, warns)


TWO_ENGINES = "build-1 build-2"


def test_tasks_go_where_the_most_memory_is_left(scene: Scene) -> None:
    """Of 16 and 8 GiB: a bottle may have four."""
    names = [f"t{number}" for number in range(5)]
    write(scene, "agent: demo\ntasks:\n" + "".join(f"- {{name: {name}, prompt: x}}\n" for name in names))
    for context, memory in (("build-1", 16), ("build-2", 8)):
        scene.rule("info --format", context=context, stdout=f"false 28.2.2 {memory << 30}\n")
    code, _, err = scene.run("run", "tasks.yaml", "--yes", "--on", "any", CLAUDE_BOTTLE_ENGINES=TWO_ENGINES)
    assert code == 0, err
    assert "run     5 tasks, 5 at a time on build-1, build-2\n" in err
    assert [one.engine for _, one in sorted(results(scene).items())] == [
        "build-1", "build-1", "build-2", "build-1", "build-2",
    ]  # fmt: skip
    ran = [event.more["env"]["DOCKER_CONTEXT"] for event in scene.calls if event.starts(CLAUDE)]
    assert (ran.count("build-1"), ran.count("build-2")) == (3, 2)


def test_an_engine_that_dies_gets_no_further_task(scene: Scene) -> None:
    write(scene, f"{TWO}- {{name: three, prompt: third}}\n- {{name: four, prompt: fourth}}\n")
    scene.rule("network create", context="build-1", code=1, stderr="Cannot connect to the Docker daemon\n")
    scene.rule("Server.Version}} {{range", context="build-1", code=1, stderr="Cannot connect to the Docker daemon\n")
    words = ("run", "tasks.yaml", "--yes", "-j", "1", "--on", "any")
    code, _, err = scene.run(*words, CLAUDE_BOTTLE_ENGINES=TWO_ENGINES)
    assert code == 1, err
    assert {name: (one.engine, one.code) for name, one in results(scene).items()} == {
        "one": ("build-1", 69), **dict.fromkeys(("two", "three", "four"), ("build-2", 0)),
    }, err  # fmt: skip
    assert "claude-bottle: no further task on build-1\n" in err
