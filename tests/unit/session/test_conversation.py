"""A conversation out of a bottle: what the program there finds, what this side believes of it, what is struck out."""

import ast
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from claude_bottle.bottle.plan import Conversation, Run
from claude_bottle.errors import RepositoryError
from claude_bottle.session import conversation, conversation_exporter
from claude_bottle.session.conversation import STRUCK, Strike
from tests.support import plans

SESSION = "demo-0a1b2c3d"
ID = "1111111a-2222-4333-8444-555555555555"
OTHER = "99999999-2222-4333-8444-555555555555"
LINE = json.dumps({"type": "user", "sessionId": ID, "message": {"role": "user", "content": "hi"}}).encode() + b"\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder of Claude's below a home."""
    folder = tmp_path / ".claude" / "projects" / "-work"
    folder.mkdir(parents=True)
    return folder


def parse(said: bytes, *secrets: str) -> Conversation:
    return conversation.parse(SESSION, said, Strike(secrets))


def exported(home: Path, most: int = 1000) -> bytes:
    """Return what the program prints as a bottle's Python would run it."""
    argv = (sys.executable, "-I", "-S", "-X", "utf8", "-", str(home), str(most))
    return subprocess.run(argv, input=conversation.program(), capture_output=True, check=True).stdout


def put(folder: Path, name: str, data: bytes = LINE, when: int = 1) -> None:
    (folder / f"{name}.jsonl").write_bytes(data)
    os.utime(folder / f"{name}.jsonl", (when, when))


def test_the_newest_conversation_of_any_project_comes_whole(tmp_path: Path, project: Path) -> None:
    put(project, ID, b"old\n", 5)
    put(project, OTHER, b"older\n", 4)
    other = project.with_name("-work-tree")
    other.mkdir()
    put(other, ID, LINE, 6)
    assert parse(exported(tmp_path)) == Conversation(SESSION, ID, LINE)
    put(project, OTHER, b"newest\n", 7)
    assert parse(exported(tmp_path)) == Conversation(SESSION, OTHER, b"newest\n")


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "empty", "upper case", "line break", "short", "none"])
def test_nothing_but_a_conversations_own_file_is_opened(tmp_path: Path, project: Path, kind: str) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    path = project / f"{ID}.jsonl"
    if kind == "link":
        path.symlink_to(tmp_path / "secret")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind != "none":
        names = {"upper case": ID.upper(), "line break": f"{ID}.jsonl\n{ID}", "short": ID[:-1]}
        put(project, names[kind])
    with pytest.raises(RepositoryError, match="Claude has written none"):
        parse(exported(tmp_path))


@pytest.mark.parametrize("place", [".claude", ".claude/projects", ".claude/projects/-work"])
def test_no_link_to_a_folder_is_followed(tmp_path: Path, project: Path, place: str) -> None:
    put(project, ID)
    (tmp_path / place).rename(tmp_path / "moved")
    (tmp_path / place).symlink_to(tmp_path / "moved")
    with pytest.raises(RepositoryError, match=r"none|Not a directory"):
        parse(exported(tmp_path))


def test_one_that_is_too_large_is_not_sent(tmp_path: Path, project: Path) -> None:
    put(project, ID)
    os.truncate(project / f"{ID}.jsonl", 10**10)  # sparse
    said = exported(tmp_path)
    assert len(said) < 200
    with pytest.raises(RepositoryError, match="it has 10000000000 bytes, and 1000 are the most"):
        parse(said)


def test_one_that_grows_meanwhile_is_sent_as_long_as_it_was_said_to_be(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    put(project, ID)
    sent = os.write

    def growing(descriptor: int, data: bytes) -> int:
        with (project / f"{ID}.jsonl").open("ab") as file:
            file.write(b"more\n")
        return sent(descriptor, data)

    monkeypatch.setattr("os.write", growing)
    conversation_exporter.main(str(project.parents[2]), 1000)
    assert parse(capfdbinary.readouterr().out).data == LINE


@pytest.mark.parametrize(
    ("said", "why"),
    [
        *((said, "cannot be read") for said in (b"", b"\n", b"[]\nx", b"{", b"[" * 4000, b" " * 5000 + b"{}\n")),
        (b'{"why": "\\u001b[31mgone' + b"x" * 500 + b'"}\n', r"^\\x1b\[31mgonex{191}$"),
        *(
            (json.dumps({"id": name, "size": size}).encode() + b"\n" + LINE, "not whole")
            for name, size in [
                *((ID, len(LINE) + 1), (ID, len(LINE) - 1), (ID, None), (ID, True), (None, len(LINE))),
                *(("../../x", len(LINE)), (ID.upper(), len(LINE)), (f"{ID}\n", len(LINE))),
            ]
        ),
    ],
)
def test_a_bottles_word_is_checked(said: bytes, why: str) -> None:
    with pytest.raises(RepositoryError, match=why):
        parse(said)


@pytest.mark.parametrize(
    ("data", "name", "why"),
    [
        (LINE, ID, ""),
        (b'{"type": "summary"}\n\n' + LINE, ID, ""),
        (LINE + b"{", ID, "line 2 is no JSON object"),
        (b"[]\n" + LINE, ID, "line 1 is no JSON object"),
        (b"[" * 100_000, ID, "line 1 is no JSON object"),
        (b"\x00\xff\n", ID, "line 1 is no JSON object"),
        (LINE, OTHER, f"no line has the sessionId {OTHER}"),
        (b'{"sessionId": "' + ID.encode() + b'"}\n', ID, "nobody has said anything in it"),
        (b"", ID, f"no line has the sessionId {ID}"),
        (LINE, "x", "its id is not known"),
    ],
)
def test_a_conversation_is_judged_by_its_shape(data: bytes, name: str, why: str) -> None:
    assert conversation.problem(Conversation(SESSION, name, data)) == why


def test_secrets_are_struck_out_as_they_stand_and_escaped() -> None:
    values = ("planted-key", 'with "quotes"\nand é', "planted-key-longer", "short", "")
    strike = Strike(values)
    text = "".join(f"<{value}>" for value in values)
    for data in (text, json.dumps(text), json.dumps(text, ensure_ascii=False)):
        out = strike.out(data.encode())
        assert out.count(STRUCK) == 3
        assert b"planted" not in out
        assert b"quotes" not in out
        assert b"<short>" in out
    assert strike.count == 9
    assert json.loads(Strike(values).out(json.dumps([*values]).encode())) == [STRUCK.decode()] * 3 + ["short", ""]
    assert Strike(("short",)).out(b"short") == b"short"


def test_all_that_a_manifest_takes_from_the_host_is_a_secret(tmp_path: Path) -> None:
    folder = plans.everything(tmp_path)
    made = plans.plan(folder, Run(terminal=True), HOST_KEY="planted-host-key")
    machine = plans.machine(HOST_KEY="planted-host-key", CLAUDE_BOTTLE_OAUTH_TOKEN="planted-token", OTHER="other")
    found = conversation.secrets(machine, made.agent)
    assert {"planted-host-key", "planted-token", "Bearer planted-host-key", "7-planted-host-key"} <= set(found)
    assert [value for value in found if value.startswith("Basic ")]
    assert "other" not in found
    assert "1" not in found  # a literal is in the manifest for everybody to read
    assert conversation.secrets(replace(machine, environ={**machine.environ, "OTHER": "x"}), made.agent) == found


def test_the_program_needs_python_3_9_alone() -> None:
    tree = ast.parse(conversation.program(), feature_version=(3, 9))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names | {"__future__"}
    assert len(conversation.program()) < 1 << 16


def test_a_secret_is_struck_out_of_a_bottles_word_before_that_is_cut() -> None:
    why = "x" * 195 + "planted-key" + "y" * 9
    with pytest.raises(RepositoryError, match=r"^x{195}\[stru$"):
        parse(json.dumps({"why": why}).encode() + b"\n", "planted-key")


def test_a_bottles_word_may_have_anything_in_it() -> None:
    with pytest.raises(RepositoryError, match=r"^\ufffd+\[struck out\]$"):
        parse(b'{"why": "\\ud800planted-key"}\n', "planted-key")


@pytest.mark.parametrize("size", range(40, 200, 7))
@pytest.mark.parametrize(
    "secrets", [("planted-key-that-is-long",), ("planted-key-that-is-long", "y-that-i", "planted-")]
)
def test_no_half_of_a_secret_is_left_where_what_is_heard_ends(
    monkeypatch: pytest.MonkeyPatch, secrets: tuple[str, ...], size: int
) -> None:
    monkeypatch.setattr(conversation, "_LARGEST", 40)
    heard, strike = conversation.Heard(size), Strike(secrets)
    for _ in range(50):
        heard.add(b"planted-key-that-is-long")
    out, cut = heard.struck(strike)
    assert cut
    assert len(out) <= size
    assert out == (STRUCK * 50)[: len(out)]


def test_what_is_heard_whole_is_not_cut() -> None:
    for size, data, cut in ((4, b"abc", False), (4, b"abcd", False), (4, b"abcde", True)):
        heard = conversation.Heard(size)
        heard.add(data[:2])
        heard.add(data[2:])
        assert heard.struck(Strike(("a-secret",))) == (data[:4], cut)
    heard = conversation.Heard(1 << 20)
    heard.add(b"x" * ((1 << 20) + conversation._LARGEST + 1))
    assert heard.struck(Strike(("a-secret",))) == (b"x" * (1 << 20), True)
