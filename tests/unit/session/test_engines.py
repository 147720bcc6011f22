"""Several engines behind one fake docker, which answers by its context."""

import json
import shutil
import sys

import pexpect
import pytest

from claude_bottle.errors import ManifestError
from claude_bottle.session import engines
from tests.support import plans
from tests.support.labels import LIST, objects, row
from tests.support.owners import ELSEWHERE, OBSERVER
from tests.support.owners import REBOOTED as DEAD
from tests.support.scene import PATCHED, STEPS, TRUSTING, Event, Scene

TWO = "build-1 build-2"
BARS = "cannot connect to the docker daemon at tcp://build-1"


@pytest.fixture
def three(scene: Scene) -> Scene:
    """Docker's own engine and two more, with a session each."""
    scene.rule("context inspect", stdout="default\n")
    for number, context in enumerate(("default", "build-1", "build-2"), 1):
        scene.rule(LIST, context=context, stdout=row(f"demo-{number}", ELSEWHERE))
    return scene


def context(event: Event) -> str:
    return str(event.more["env"].get("DOCKER_CONTEXT", "default"))


def test_list_has_the_sessions_of_all_and_names_their_engines(three: Scene) -> None:
    code, out, err = three.run("list", CLAUDE_BOTTLE_ENGINES=TWO)
    assert (code, err) == (0, "")
    assert [line.split()[:2] for line in out.splitlines()] == [
        ["SESSION", "ENGINE"], ["demo-1", "default"], ["demo-2", "build-1"], ["demo-3", "build-2"],
    ]  # fmt: skip
    found = json.loads(three.run("list", "--json", CLAUDE_BOTTLE_ENGINES=TWO)[1])
    assert [each["engine"] for each in found] == ["default", "build-1", "build-2"]


def test_an_engine_that_does_not_answer_is_told_and_the_others_are_listed(three: Scene) -> None:
    three.rule("version", context="build-1", code=1, stderr=f"{BARS}\n")
    code, out, err = three.run("list", CLAUDE_BOTTLE_ENGINES=TWO)
    assert (code, err) == (0, f"claude-bottle: engine build-1 does not answer: {BARS}\n")
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["demo-1", "demo-3"]


def test_a_watch_shows_it_in_its_page(three: Scene) -> None:
    """On stderr it would be drawn over."""
    three.rule("version", context="build-1", code=1, stderr=f"{BARS}\n")
    argv, env = [str(PATCHED), "{}", "list", "--watch"], three.environ | {"CLAUDE_BOTTLE_ENGINES": TWO}
    child = pexpect.spawn(sys.executable, argv, env=env, encoding="utf-8", timeout=300, dimensions=(24, 100))
    child.expect_exact("\x1b[?1049h")
    child.expect_exact("demo-3")
    child.expect_exact(f"engine build-1 does not answer: {BARS}")
    assert not str(child.before).endswith("claude-bottle: ")  # as a message has it
    child.send("q")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_if_none_answers_that_is_the_error(scene: Scene) -> None:
    scene.rule("context inspect", stdout="default\n")
    scene.rule("version", code=1, stderr=f"{BARS}\n")
    code, out, err = scene.run("list", CLAUDE_BOTTLE_ENGINES=TWO)
    assert (code, out, err.splitlines()[-1]) == (69, "", "claude-bottle: no engine answers")


def test_an_engine_that_two_contexts_lead_to_has_each_session_once(scene: Scene) -> None:
    scene.rule("context inspect", stdout="build-1\n")
    scene.rule(LIST, stdout=row("demo-1", ELSEWHERE))
    code, out, _ = scene.run("list", CLAUDE_BOTTLE_ENGINES=TWO)
    assert (code, [line.split()[:2] for line in out.splitlines()[1:]]) == (0, [["demo-1", "build-1"]])


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (("logs", "demo-3"), "logs claude-bottle-demo-3-sidecar"),
        (("shell", "demo-3"), "exec --interactive"),
        (("stop", "demo-3"), "ps --all --filter label=claude-bottle.session=demo-3"),
        (("diff", "demo-3"), ""),
        (("fetch", "demo-3"), ""),
    ],
)  # fmt: skip
def test_a_session_is_found_wherever_it_runs(three: Scene, words: tuple[str, ...], asked: str) -> None:
    code, _, err = three.run(*words, CLAUDE_BOTTLE_ENGINES=TWO)
    assert "claude-bottle: demo-3 is on build-2\n" in err
    if asked:
        assert code == 0, err
        assert {context(event) for event in three.calls if event.starts(asked)} == {"build-2"}
    else:
        assert "demo-3 has no repository" in err


def test_a_name_that_two_engines_have_is_ambiguous(three: Scene) -> None:
    code, _, err = three.run("logs", "demo", CLAUDE_BOTTLE_ENGINES=TWO)
    assert (code, err) == (2, 'claude-bottle: "demo" is ambiguous: demo-1, demo-2, demo-3; type more of the id\n')


def test_stop_all_ends_the_sessions_of_all_engines(scene: Scene) -> None:
    scene.rule("context inspect", stdout="default\n")
    for number, name in enumerate(("default", "build-1", "build-2"), 1):
        scene.rule(LIST, context=name, stdout=row(f"demo-{number}", DEAD))
        scene.rule("ps --all --filter label", context=name, stdout=objects(f"demo-{number}", DEAD))
    code, out, _ = scene.run("stop", "--all", CLAUDE_BOTTLE_ENGINES=TWO)
    assert (code, out) == (0, "stopped demo-1\nstopped demo-2\nstopped demo-3\n")
    removed = {(context(event), event.argv[-1]) for event in scene.calls if event.starts("rm --force")}
    assert removed == {
        (name, f"claude-bottle-demo-{number}{more}")
        for number, name in enumerate(("default", "build-1", "build-2"), 1)
        for more in ("", "-sidecar")
    }


def test_cleanup_and_doctor_look_at_all(scene: Scene) -> None:
    scene.rule("context inspect", stdout="default\n")
    scene.rule("ps --all --filter label", context="build-2", stdout=objects("demo-1", DEAD))
    dead, living = (scene.tmp / f"claude-bottle-{name}-0" for name in ("demo-1", "demo-2"))
    for folder, owner in ((dead, DEAD), (living, OBSERVER)):
        folder.mkdir()
        (folder / "owner").write_text(str(owner))
    child = scene.launch("cleanup", "--dry-run", CLAUDE_BOTTLE_ENGINES=TWO)
    out, _ = child.communicate()
    assert (child.returncode, out.count("would remove container claude-bottle-demo-1")) == (0, 2)
    assert (out.count("would remove stage dir"), out.splitlines()[-1]) == (1, "1 session still running")
    for folder in (dead, living):
        shutil.rmtree(folder)
    scene.rule("version", context="build-1", code=1, stderr=f"{BARS}\n")
    code, out, _ = scene.run("doctor", CLAUDE_BOTTLE_ENGINES=TWO)
    assert code == 69
    lines = [line.split(maxsplit=2) for line in out.splitlines()]
    assert [line[2] for line in lines if line[1] == "engine"] == [
        "default", f"build-1 does not answer: {BARS}", "build-2",
    ]  # fmt: skip
    assert out.count(" docker client ") == 2


def test_a_start_is_on_the_engine_that_is_wanted(three: Scene) -> None:
    code, _, err = three.run(
        "start", "demo", "--yes", "--on", "build-1", CLAUDE_BOTTLE_ENGINES=TWO, DOCKER_HOST="tcp://elsewhere"
    )
    assert (code, "\nengine  build-1\n" in err) == (0, True)
    own = [event for event in three.calls if event.kind == "start" and "inspect" not in event.argv[:3]]
    assert {context(event) for event in own} == {"build-1"}
    assert not [event for event in own if "DOCKER_HOST" in event.more["env"]]


@pytest.mark.parametrize(("first", "wanted"), [(5, "build-2"), (1, "build-1")])
def test_any_is_the_engine_with_the_most_memory_left(three: Scene, first: int, wanted: str) -> None:
    """By the limits of the bottles that run, however much each really uses."""
    for name, used in (("build-1", first), ("build-2", 2)):
        three.rule("info --format", context=name, stdout=f"false 28.2.2 {16 << 30}\n")
        three.rule("role=agent", context=name, stdout=f"{used << 30}\n")
    code, _, err = three.run("start", "demo", "--yes", "--on", "any", CLAUDE_BOTTLE_ENGINES=TWO)
    assert (code, f"\nengine  {wanted}\n" in err) == (0, True)
    assert {context(event) for event in three.calls if event.starts(STEPS["claude"])} == {wanted}


@pytest.mark.parametrize(
    "words", [("list",), ("cleanup", "--dry-run"), ("logs", "demo-3"), ("start", "demo", "--yes", "--on", "any")]
)
def test_an_engine_that_hangs_after_it_has_answered_is_left_out(scene: Scene, words: tuple[str, ...]) -> None:
    scene.rule("context inspect", stdout="default\n")
    for query in ("ps --all", "info --format"):
        scene.rule(query, context="build-1", fifo=f"never-{query[:2]}")
    scene.rule(LIST, context="build-2", stdout=row("demo-3", ELSEWHERE))
    scene.rule("info --format", context="build-2", stdout="false 28.2.2 100\n")
    patches = TRUSTING | {"process.engine._TIMEOUT": 1}
    code, _, err = scene.run(*words, patches=patches, CLAUDE_BOTTLE_ENGINES=TWO)
    assert (code, err.count("engine build-1 does not answer: docker cannot be used: no answer within 1 s\n")) == (
        0,
        1,
    ), err


@pytest.mark.parametrize(
    ("setting", "name", "said"),
    [
        ("build-1", "build-3", "--on build-3: not in CLAUDE_BOTTLE_ENGINES; it has build-1, any"),
        ("", "build-3", "--on build-3: CLAUDE_BOTTLE_ENGINES is not set; it names docker contexts"),
        ("", "any", "--on any: CLAUDE_BOTTLE_ENGINES is not set; it names docker contexts"),
    ],
)
def test_an_engine_must_be_one_of_those(scene: Scene, setting: str, name: str, said: str) -> None:
    code, _, err = scene.run("start", "demo", "--yes", "--on", name, CLAUDE_BOTTLE_ENGINES=setting)
    assert (code, err, scene.calls) == (2, f"claude-bottle: {said}\n", [])


@pytest.mark.parametrize("name", ["any", "a/b", "-a", "a\x1b"])
def test_a_setting_that_names_no_context_is_an_error(name: str) -> None:
    with pytest.raises(ManifestError, match="is no name of a docker context"):
        engines.named(plans.machine(CLAUDE_BOTTLE_ENGINES=f"build-1 {name}"))
    assert engines.named(plans.machine(CLAUDE_BOTTLE_ENGINES="build-1  b2 build-1")) == ("build-1", "b2")


def test_without_the_setting_no_client_is_started_for_it() -> None:
    machine = plans.machine(DOCKER_CONTEXT="x")
    assert engines.answering(machine) == [machine]
