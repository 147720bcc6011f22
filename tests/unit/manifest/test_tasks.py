"""Lists of tasks: what is read, every fault at once, and the whole message for what is wrong."""

from pathlib import Path

import pytest

from claude_bottle.manifest import tasks
from claude_bottle.manifest.tasks import Task
from claude_bottle.manifest.validation import Fault
from tests.support.manifests import Place

TIME = "expected a time such as 90s, 30m, 2h or 1h30m"
KNOWN = "agent, prompt, repo, ref, time"


def read(place: Place, text: str) -> tuple[tuple[Task, ...], list[str]]:
    path, faults = place.write("jobs/tasks.yaml", text), list[Fault]()
    found = tasks.read(path, place.root / "home", faults)
    return found, [str(fault).removeprefix(f"{path}:") for fault in faults]


def test_each_task_has_the_defaults_unless_it_says_otherwise(place: Place) -> None:
    found, faults = read(
        place,
        """\
agent: reviewer
repo: ~/src/project
time: 1h
tasks:
  - {name: one, prompt: Fix it.}
  - {name: two-2, prompt: "Fix\\nthat.", agent: other, repo: ../x, ref: main, time: 90s}
""",
    )
    assert faults == []
    assert found == (
        Task("one", "reviewer", "Fix it.", place.root / "home/src/project", None, 3600),
        Task("two-2", "other", "Fix\nthat.", place.root / "jobs/../x", "main", 90),
    )


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", ['1:1: missing required key "tasks"']),
        ("[]", ["1:1: expected a mapping (key: value), got a list"]),
        ("tasks: {}", ["1:8: tasks: expected a list, got a mapping"]),
        ("tasks: []", ["1:8: tasks: must be from 1 to 1000"]),
        ("tasks: [1]", ["1:9: tasks: expected a mapping (key: value), got a number"]),
        ("tasks: [{}]", [f'1:9: tasks: missing required key "{key}"' for key in ("name", "agent", "prompt")]),
        ("tasks: [{name: a, agent: b, prompt: c, tim: 1s}]", [
            '1:40: unknown key "tasks.tim"; did you mean "time"?',
        ]),
        ("zzz: 1\ntasks: [{name: a, agent: b, prompt: c}]", [
            f'1:1: unknown key "zzz"; known keys: {KNOWN}, tasks',
        ]),
        ("tasks: [{name: A, agent: b, prompt: c}]", [
            "1:16: tasks.name: must be of a-z, 0-9 and -, at most 40, and - neither first nor last",
        ]),
        ("tasks:\n- {name: a, agent: b, prompt: c}\n- {name: a, agent: b, prompt: c}", [
            "3:10: tasks.name: another task has this name, in line 2",
        ]),
        ('agent: ""\ntasks: [{name: a, prompt: " "}]', [
            "1:8: agent: must not be empty", "2:27: tasks.prompt: must not be empty",
        ]),
        ("time: 2d\ntasks: [{name: a, agent: b, prompt: c, time: 5}, {name: b, agent: b, prompt: c}]", [
            f"1:7: time: {TIME}", f"2:46: tasks.time: {TIME}, got a number",
        ]),
        ("prompt: 1\ntasks: [{name: 1, agent: b}, {name: c, agent: d, repo: ''}]", [
            "1:9: prompt: expected a string, got a number (add quotes)",
            "2:16: tasks.name: expected a string, got a number (add quotes)",
            "2:56: tasks.repo: is empty; give a path",
        ]),
        ("tasks: [{name: a, name: b, agent: b, prompt: c}]", ['1:19: duplicate key "name"']),
        ("tasks: [", ["1:9: not YAML: while parsing a flow node, expected the node content, but found '<stream end>'"]),
        (f"tasks: [{{name: a, agent: b, prompt: {'x' * 120_001}}}]", [
            "1:37: tasks.prompt: is 120001 bytes long; 120000 is the most that claude takes",
        ]),
    ],
)  # fmt: skip
def test_every_fault_has_its_place(place: Place, text: str, faults: list[str]) -> None:
    assert read(place, text)[1] == faults


def test_a_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    faults = list[Fault]()
    assert tasks.read(tmp_path / "none", tmp_path, faults) == ()
    assert [fault.message for fault in faults] == ["cannot be read: No such file or directory"]


def test_whatever_a_file_says_of_a_task_changes_its_hash(place: Place) -> None:
    head, usual = "name: a, agent: b, prompt: c", ", repo: /r, ref: main, time: 1h"
    texts = [
        head + usual, head, head.replace("b", "d") + usual, head.replace("c", "d") + usual,
        *(head + usual.replace(old, new) for old, new in (("/r", "/s"), ("main", "next"), ("1h", "2h"))),
    ]  # fmt: skip
    hashes = [read(place, f"tasks: [{{{text}}}]")[0][0].hash for text in texts]
    assert len(set(hashes)) == len(texts)
    assert read(place, f"agent: b\ntasks: [{{name: z, prompt: c{usual}}}]")[0][0].hash == hashes[0]
