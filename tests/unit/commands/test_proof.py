"""What needs a proof of this user's own: to signal a process, to write into a repository or a manifest."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from claude_bottle.host.owner import Owner
from claude_bottle.host.proof import proof
from claude_bottle.process.liveness import start_time
from tests.support.labels import KEY, LIST, listed, objects, row
from tests.support.owners import OBSERVER, launcher
from tests.support.scene import NAME, SESSION, STEPS, Scene

STRANGER = b"somebody else's key, of 32 bytes"
WORK = f"{'1' * 40} {'1' * 40}"
REMOVED = ["claude-bottle-demo-1", "claude-bottle-demo-1-sidecar"]


@pytest.mark.parametrize("fault", ["no key", "another key", "another owner", "no launcher"])
def test_stop_signals_nobody_on_the_word_of_a_label(scene: Scene, fault: str) -> None:
    with launcher() as (process, owner), unrelated() as other:
        spared = process if fault in ("no key", "another key") else other[0]
        shown = row("demo-1", owner, key=STRANGER if fault == "another key" else KEY)
        if fault == "no key":
            scene.key.unlink()
        elif fault == "another owner":  # a label of this user's own with the owner changed
            shown = shown.replace(str(owner), str(other[1]))
        elif fault == "no launcher":  # a pid that has gone to another program of this user, in the same second
            shown = row("demo-1", other[1])
        scene.rule(LIST, stdout=shown)
        scene.rule("ps --all --filter label", stdout=objects("demo-1", owner))
        code, out, err = scene.run("stop", "demo-1")
        assert spared.poll() is None
    why = "process {} is no launcher" if fault == "no launcher" else "no label proves that this user started demo-1"
    told = f"claude-bottle: {why.format(other[0].pid)}; removing the session without a signal\n"
    assert (code, out, err) == (0, "stopped demo-1\n", told)
    assert [argv[-1] for argv in scene.undone] == REMOVED


def test_stop_all_leaves_what_nobody_proves_alone(scene: Scene) -> None:
    with launcher() as (process, owner):
        scene.rule(LIST, stdout=row("demo-1", owner, key=STRANGER))
        assert scene.run("stop", "--all")[0] == 0
        assert process.poll() is None
    assert scene.undone == []


@pytest.mark.parametrize("role", ["agent", "sidecar"])  # while a session starts or ends, its sidecar is alone
def test_the_labels_of_an_agent_count_on_its_own_container_alone(scene: Scene, role: str) -> None:
    with launcher() as (process, owner):
        own = row("demo-1", owner, role)
        forged = row("demo-1", replace(owner, pid=os.getpid(), started=OBSERVER.started), key=STRANGER)
        another = forged.replace('"claude-bottle-demo-1"', '"another"')
        scene.rule(LIST, stdout=another + own + another)
        code, out, _ = scene.run("stop", "demo-1")
        assert (code, out, process.wait()) == (0, "stopped demo-1\n", -15)


@pytest.mark.parametrize("changed", ["key", "repository"])
def test_fetch_writes_into_no_repository_on_the_word_of_a_label(scene: Scene, changed: str) -> None:
    shown = row("demo-1", OBSERVER, repository=f"{WORK} /mine", key=STRANGER if changed == "key" else KEY)
    scene.rule(LIST, stdout=shown.replace("/mine", "/other") if changed == "repository" else shown)
    where = "/mine" if changed == "key" else "/other"
    told = f"claude-bottle: {where} is not written to: no label proves that this user started demo-1\n"
    assert scene.run("fetch", "demo") == (2, "", told)
    assert [event.argv[1] for event in scene.log if event.kind == "start"] == ["ps"]


def test_allow_saves_into_no_manifest_on_the_word_of_a_label(scene: Scene) -> None:
    manifest = scene.agents / "bottles/default.yaml"
    before = manifest.read_bytes()
    shown = row("demo-1", OBSERVER, manifest=str(manifest), key=STRANGER)
    scene.rule(LIST, stdout=shown)
    told = f"{manifest}: not saved, no label proves that this user started demo-1; nothing was allowed\n"
    assert scene.run("allow", "demo", "a.test", "--save") == (64, "", told)
    assert [event.argv[1] for event in scene.log if event.kind == "start"] == ["ps"]
    assert manifest.read_bytes() == before


def test_the_first_start_makes_the_key_and_proves_what_it_makes(scene: Scene) -> None:
    scene.key.unlink()
    assert scene.run("start", "demo", "--yes")[0] == 0
    argv = scene.log[scene.at("start", STEPS["bottle"])].argv
    labels = dict(
        word.removeprefix("claude-bottle.").split("=", 1) for word in argv if word.startswith("claude-bottle.")
    )
    key = scene.key.read_bytes()
    assert labels["proof"] == proof(key, SESSION, "agent", NAME, labels["owner"], "", labels["manifest"])


def test_a_start_whose_key_cannot_be_made_says_so_and_goes_on(scene: Scene) -> None:
    scene.key.unlink()
    scene.key.mkdir()
    code, _, err = scene.run("start", "demo", "--yes")
    assert code == 0
    assert f"claude-bottle: no key for proofs, {scene.key}: " in err


def test_a_dry_run_makes_no_key(scene: Scene) -> None:
    scene.key.unlink()
    assert scene.run("start", "demo", "--dry-run")[0] == 0
    assert not scene.key.exists()


def test_a_line_in_a_label_names_no_other_object(scene: Scene) -> None:
    dead = replace(OBSERVER, started="1")
    victim = f"x\nvictim\tdemo-1\t{dead}\tagent\n"
    own = listed("own", "demo-1", dead, victim) + listed("own-2", victim, dead, "")
    scene.rule("ps --all --filter label", stdout=own)
    assert scene.run("cleanup", "--dry-run")[1] == "would remove container own\nwould remove container own-2\n"


@contextmanager
def unrelated() -> Iterator[tuple["subprocess.Popen[bytes]", Owner]]:
    """Yield a living process that is no launcher, and the owner that a label makes of it."""
    with subprocess.Popen(("sleep", "600")) as process:
        yield process, replace(OBSERVER, pid=process.pid, started=start_time(process.pid))
        process.kill()
