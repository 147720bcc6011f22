"""A bottle's work on its way back: what comes, into which branch, and what a hostile bottle achieves: nothing."""

import contextlib
import io
import json
import os
import shutil
import signal
import stat
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from hashlib import sha1
from pathlib import Path

import pytest

from claude_bottle import changes, handback, leaving, quarantine
from claude_bottle.clone import OUT
from claude_bottle.errors import RepositoryError
from claude_bottle.handback import Bottle, HandBack
from claude_bottle.hazards import runs_by_itself
from tests.unit.repos import BRANCH, SESSION, Ground, Repo

Blob, Tree, Commit = 3, 2, 1


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    made = Ground(tmp_path)
    made.user.commit("the user's", kept="1", changed="1")
    yield made
    for process in Path("/proc").glob("[0-9]*"):  # what still runs in a bottle ends with it
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink().is_relative_to(tmp_path):
                os.kill(int(process.name), signal.SIGKILL)
    assert list((tmp_path / "tmp").iterdir()) == []


def landed(ground: Ground, before: dict[str, tuple[int, bytes]], *branches: str) -> None:
    """Hold that nothing but objects and these branches is new in the user's repository, and nothing has changed."""
    after = ground.user.snapshot()
    assert {name: after[name] for name in before} == before
    new = {name for name in after.keys() - before.keys() if not stat.S_ISDIR(after[name][0])}
    refs = {f".git/{kind}heads/{branch}" for branch in branches for kind in ("refs/", "logs/refs/")}
    assert {name for name in new if not name.startswith(".git/objects/")} == refs


def test_everything_comes_back_byte_for_byte(ground: Ground) -> None:
    bottle, work = ground.uncork(), ground.genie.path
    before = ground.user.snapshot()
    names = ["a b", "quote\"'", "back\\slash", "tab\there", "new\nline", "\u00fcml\u00e4ut", "-dash", ":(top)x", "*"]
    for name in names:
        (work / name).write_text(name)
    (work / os.fsdecode(b"not utf8 \xff")).write_bytes(bytes(range(256)) * 100)
    (work / "crlf").write_bytes(b"a\r\nb\r\n")
    (work / "run").write_text("#!/bin/sh\n")
    (work / "run").chmod(0o755)
    (work / "link").symlink_to("/etc/passwd")
    (work / "empty").touch()
    (work / "kept").unlink()
    ground.genie.commit("by the genie")
    told = ground.fetch(bottle)
    assert told.startswith(f"branch  {BRANCH} in {ground.user.path}\n")
    assert f"look  git -C {ground.user.path} diff {bottle.work.start[:12]} {BRANCH}\n" in told
    assert f"merge  git -C {ground.user.path} merge {BRANCH}\n" in told
    landed(ground, before, BRANCH)
    ground.user.git("worktree", "add", "--quiet", str(ground.folder / "seen"), BRANCH)
    seen = Repo(ground.folder / "seen", ground.env).snapshot()
    assert {name: seen[name] for name in seen if name != ".git"} == {
        name: value for name, value in ground.genie.snapshot().items() if name.split("/")[0] != ".git"
    }


def test_what_was_left_becomes_a_last_commit(ground: Ground) -> None:
    bottle = ground.uncork()
    ground.genie.commit("by the genie", new="1")
    (ground.genie.path / "left").write_text("1")
    (ground.genie.path / "changed").write_text("2")
    ground.genie.git("config", "commit.gpgSign", "true")
    told = ground.fetch(bottle)
    assert "Keep what was left uncommitted" in told
    assert ground.genie.git("status", "--porcelain") == ""
    assert ground.user.git("log", "--format=%an %s", f"HEAD..{BRANCH}").splitlines() == [
        "claude-bottle Keep what was left uncommitted",
        "A User by the genie",
    ]
    assert ground.user.git("diff", "--name-only", f"{BRANCH}~1", BRANCH).split() == ["changed", "left"]


def test_nothing_comes_of_nothing(ground: Ground) -> None:
    bottle, before = ground.uncork(), ground.user.snapshot()
    assert ground.fetch(bottle) == "branch  none: nothing was changed in the bottle\n"
    assert ground.user.snapshot() == before


def test_nothing_comes_of_a_history_that_was_taken_back(ground: Ground) -> None:
    ground.user.commit("second")
    bottle, before = ground.uncork(), ground.user.snapshot()
    ground.genie.git("reset", "--quiet", "--hard", "HEAD~1")
    assert ground.fetch(bottle) == "branch  none: no commit in the bottle is new\n"
    assert ground.user.snapshot() == before


def test_a_branch_moves_forward_and_else_another_is_made(ground: Ground) -> None:
    bottle = ground.uncork()
    one = ground.genie.commit("one")
    ground.fetch(bottle)
    two = ground.genie.commit("two")
    ground.fetch(bottle)
    assert ground.user.git("rev-parse", BRANCH) == two
    ground.genie.git("reset", "--quiet", "--hard", one)
    three = ground.genie.commit("three")
    assert ground.fetch(bottle).startswith(f"branch  {BRANCH}-2 ")
    ground.user.git("checkout", "--quiet", f"{BRANCH}-2")
    four = ground.genie.commit("four")
    assert ground.fetch(bottle).startswith(f"branch  {BRANCH}-3 ")
    names = (BRANCH, f"{BRANCH}-2", f"{BRANCH}-3")
    assert [ground.user.git("rev-parse", name) for name in names] == [two, three, four]


def test_the_head_comes_back_and_so_do_other_branches(ground: Ground) -> None:
    bottle = ground.uncork()
    ground.genie.git("checkout", "--quiet", "-b", "aside")
    ground.genie.commit("aside")
    ground.genie.git("checkout", "--quiet", "-b", "onward", BRANCH)
    tip = ground.genie.commit("onward")
    assert f"also    {BRANCH}-2: the agent's branch aside\n" in ground.fetch(bottle)
    assert ground.user.git("rev-parse", BRANCH) == tip
    assert ground.user.git("log", "--max-count=1", "--format=%s", f"{BRANCH}-2") == "aside"


def ruin_index(work: Path) -> None:
    (work / ".git" / "index").write_bytes(b"junk")


def lock_index(work: Path) -> None:
    (work / ".git" / "index.lock").touch()


def remove_git(work: Path) -> None:
    for name in ("HEAD", "config", "index"):
        (work / ".git" / name).unlink()


def link_git(work: Path) -> None:
    (work / ".git").rename(work.parent / "elsewhere")
    (work / ".git").symlink_to(work.parent / "elsewhere")


def lead_astray(work: Path) -> None:
    with (work / ".git" / "config").open("a") as file:
        file.write("[core]\nworktree = /\nbare = false\n")


def nest(work: Path) -> None:
    Repo(work, {**os.environ, "HOME": "/"}).git("init", "--quiet", "nested")
    (work / "nested" / "inside").write_text("1")


@pytest.mark.parametrize("ruin", [ruin_index, lock_index, remove_git, link_git, lead_astray, nest])
def test_work_comes_back_whatever_became_of_its_git(ground: Ground, ruin: Callable[[Path], None]) -> None:
    bottle = ground.uncork()
    (ground.genie.path / "left").write_text("the work")
    ruin(ground.genie.path)
    told = ground.fetch(bottle)
    assert ground.user.git("show", f"{BRANCH}:left") == "the work"
    assert ground.user.git("show", f"{BRANCH}:kept") == "1"
    if ruin is nest:
        assert ground.user.git("show", f"{BRANCH}:nested/inside") == "1"
        assert "of which the files come but the history stays in the bottle: nested\n" in told


def test_large_files_stay_in_the_bottle(ground: Ground) -> None:
    bottle = ground.uncork()
    with (ground.genie.path / "zeros").open("wb") as file:
        file.truncate(10 << 30)
    (ground.genie.path / "left").write_text("1")
    assert "beware  too large, stays in the bottle: zeros\n" in ground.fetch(bottle)
    assert ground.user.git("diff", "--name-only", "HEAD", BRANCH) == "left"


def test_a_bottle_that_gives_no_end_is_cut_off(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handback, "BUNDLE", 1 << 20)
    bottle, before = ground.uncork(), ground.user.snapshot()
    (ground.genie.path / "noise").write_bytes(os.urandom(2 << 20))
    with pytest.raises(RepositoryError, match="the work is larger than 1024 MiB"):
        handback.fetch(bottle)
    assert ground.user.snapshot() == before


def test_a_bottle_that_hangs_gives_what_was_committed(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "_KEEPING", 10.0)
    bottle = ground.uncork()
    ground.genie.git("checkout", "--quiet", "-b", "aside")
    tips = [ground.genie.commit("aside")]
    ground.genie.git("checkout", "--quiet", BRANCH)
    tips.append(ground.genie.commit("committed"))
    ground.genie.git("config", "filter.hang.clean", "sleep 1000 #")
    (ground.genie.path / ".gitattributes").write_text("* filter=hang\n")
    told, error = partly(bottle)
    assert "what was left uncommitted took too long to commit: it stays in the bottle" in told
    assert error == "not all that was left uncommitted came back"
    assert [ground.user.git("rev-parse", branch) for branch in (f"{BRANCH}-2", BRANCH)] == tips


def test_a_work_tree_that_hangs_holds_nothing_else_back(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "_KEEPING", 10.0)
    bottle, aside = ground.uncork(), ground.folder / "aside"
    ground.genie.git("worktree", "add", "--quiet", "-b", "aside", str(aside))
    tip = Repo(aside, ground.genie.env).commit("aside")
    (aside / ".gitattributes").write_text("* filter=hang\n")
    ground.genie.git("config", "filter.hang.clean", "sleep 1000 #")
    (ground.genie.path / "left").write_text("1")
    partly(bottle)
    assert ground.user.git("show", f"{BRANCH}:left") == "1"
    assert ground.user.git("rev-parse", f"{BRANCH}-2") == tip


def test_terminals_are_safe_from_names_messages_and_authors(ground: Ground) -> None:
    bottle = ground.uncork()
    for number in range(30):
        (ground.genie.path / f"\x1b]0;{number}\a\u202e").write_text("1")
    (ground.genie.path / "-\nMakefile").mkdir()
    (ground.genie.path / "-\nMakefile" / "Makefile").write_text("1")
    ground.genie.git("config", "user.name", "\x1b[2Jname")
    for number in range(30):
        ground.genie.commit(f"\x1b[31m{number} {'x' * 1000}\r\x9b1A")
    told = ground.fetch(bottle)  # which looks at each character
    about = told.partition("  look  ")[0].splitlines()[1:]
    assert len(about) <= 20
    assert max(map(len, about)) < 200
    assert "... and 21 more" in told
    assert "31 files changed" in told
    assert "\\nMakefile/Makefile\n" in told.partition("beware")[2]


def test_what_would_run_by_itself_is_named(ground: Ground) -> None:
    bottle = ground.uncork()
    yes = (
        ".github/workflows/a.yml", ".vscode/tasks.json", ".envrc", "sub/Makefile", "web/package.json", ".githooks/x",
        "tools/hooks/pre-commit", ".claude/settings.json", ".CLAUDE/x", ".gitattributes", "a.MK", "bare/HEAD",
    )  # fmt: skip
    no = ("src/hooks/use.ts", "make", ".github/README.md", "doc/envrc", "workflows/a.yml")
    for name in (*yes, *no):
        path = ground.genie.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    named = ground.fetch(bottle).partition("beware")[2].splitlines()[1:]
    assert {line.strip() for line in named} == set(yes)
    assert [name for name in no if runs_by_itself(name)] == []


def test_links_that_lead_out_are_named(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "_TARGET", 100)
    bottle = ground.uncork()
    out = {
        "absolute": "/etc/passwd", "above": "../x", "a/above": "../../x", "a/b/down-and-up": "c/../../../..",
        "twice": "a/back/../..", "config": ".git/config", "other-case": ".GIT", "a/config": "../module/.git/config",
        "endless": "x" * 101, "up": "..",
    }  # fmt: skip
    within = {"here": "file", "self": ".", "a/back": "../file", "a/b/root": "../..", "late": "a/..b/.gitignore"}
    for path, target in (out | within).items():
        (ground.genie.path / path).parent.mkdir(parents=True, exist_ok=True)
        (ground.genie.path / path).symlink_to(target)
    told = ground.fetch(bottle)
    named = told.partition("beware  these are links that lead out of the repository, or into its .git:\n")[2]
    assert {line.strip() for line in named.splitlines()} == set(out)


def test_links_that_nobody_can_look_at_are_named(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "_LINKS", 1)
    bottle = ground.uncork()
    for target in ("file", "changed"):
        (ground.genie.path / f"to-{target}").symlink_to(target)
    assert ground.fetch(bottle).partition("beware")[2].count("\n        to-") == 1


def test_nothing_that_a_bottle_or_the_users_hooks_hold_runs_on_the_host(ground: Ground) -> None:
    """Each of these leaves a mark, first in the bottle, where it may; then its own git is not the host's."""
    bottle, marks = ground.uncork(), ground.folder / "marks"
    marks.mkdir()
    names = ("pre-commit", "post-commit", "post-checkout", "reference-transaction", "post-merge", "pre-auto-gc")
    for repo in (ground.user, ground.genie):
        for name in names:
            hook = repo.path / ".git" / "hooks" / name
            hook.write_text(f"#!/bin/sh\ntouch {marks}/{repo.path.name}-{name}\n")
            hook.chmod(0o755)
        own = (
            *("core.fsmonitor", "core.sshCommand", "core.alternateRefsCommand", "core.pager", "diff.external"),
            *("diff.x.textconv", "diff.x.command", "gpg.program", "merge.x.driver", "uploadpack.packObjectsHook"),
        )
        for key in own:
            repo.git("config", key, f"touch {marks}/{repo.path.name}-{key} #")
    for key in ("filter.x.clean", "filter.x.smudge"):
        ground.genie.git("config", key, f"touch {marks}/genie-{key}; cat")
    ground.genie.git("-c", "core.fsmonitor=", "-c", "core.hooksPath=/dev/null", "branch", "more")
    (ground.genie.path / ".gitattributes").write_text("* filter=x diff=x merge=x\n")
    (ground.genie.path / "new").write_text("1")
    (ground.genie.path / ".git" / "objects" / "info" / "alternates").write_text(f"{ground.folder}/nowhere\n")
    ground.fetch(bottle)
    # The filter is the bottle's own affair: its git was asked to commit, there.
    assert [path.name for path in marks.iterdir()] == ["genie-filter.x.clean"]


def test_what_the_user_has_set_is_no_hindrance(ground: Ground) -> None:
    for setting in (
        *("protocol.allow=never", "safe.bareRepository=explicit", "fetch.prune=true", "fetch.recurseSubmodules=true"),
        *(
            "core.quotePath=false",
            "log.showSignature=true",
            "diff.noprefix=true",
            "color.ui=always",
            "status.short=true",
        ),
        *("core.splitIndex=true", "core.untrackedCache=true", "index.version=4", "merge.ff=only", "core.autocrlf=true"),
        *("pack.packSizeLimit=1m", "fetch.unpackLimit=1", "transfer.unpackLimit=1", "core.logAllRefUpdates=always"),
    ):
        ground.user.git("config", "--global", *setting.split("=", 1))
    ground.user.git("add", "--all")
    (ground.user.path / "changed").write_text("2\n")
    bottle = ground.uncork(ground.survey(with_changes=True))
    ground.genie.commit("the work", new="1")
    told = ground.fetch(bottle)
    assert "the work\n        new | 1 +\n        1 file changed, 1 insertion(+)\n" in told
    assert ground.user.git("show", f"{BRANCH}~1:changed") == "2"


# --- bundles made by hand -------------------------------------------------------------------------------------------


def packed(*objects: tuple[int, bytes]) -> bytes:
    """Return a pack of objects (gitformat-pack(5))."""
    out = io.BytesIO()
    out.write(b"PACK" + struct.pack(">II", 2, len(objects)))
    for kind, data in objects:
        size, byte = len(data) >> 4, kind << 4 | len(data) & 15
        while size:
            out.write(bytes([byte | 128]))
            size, byte = size >> 7, size & 127
        out.write(bytes([byte]) + zlib.compress(data))
    return out.getvalue() + sha1(out.getvalue()).digest()


def name_of(kind: str, data: bytes) -> str:
    return sha1(f"{kind} {len(data)}\0".encode() + data).hexdigest()


def tree(*entries: tuple[str, bytes, str]) -> bytes:
    return b"".join(mode.encode() + b" " + name + b"\0" + bytes.fromhex(oid) for mode, name, oid in entries)


def committed(tree_data: bytes, parent: str, message: bytes = b"x\n", who: bytes = b"A <a@b> 1 +0000") -> bytes:
    head = f"tree {name_of('tree', tree_data)}\nparent {parent}\n".encode()
    return head + b"author " + who + b"\ncommitter " + who + b"\n\n" + message


def bundle(tip: str, pack: bytes, *, ref: str = OUT, base: str = "", version: bytes = b"# v2 git bundle\n") -> bytes:
    needs = f"-{base} x\n".encode() if base else b""
    return version + needs + f"{tip} {ref}\n\n".encode() + pack


def of_tree(*entries: tuple[str, bytes, str], blob: bytes = b"evil\n") -> Callable[[str], bytes]:
    """Return what makes a bundle whose commit has a tree of these entries, "" standing for the blob."""

    def make(base: str) -> bytes:
        whole = tree(*((mode, name, oid or name_of("blob", blob)) for mode, name, oid in entries))
        commit = committed(whole, base)
        return bundle(name_of("commit", commit), packed((Blob, blob), (Tree, whole), (Commit, commit)), base=base)

    return make


FILE, LINK, FOLDER = "100644", "120000", "40000"
GOOD = of_tree((FILE, b"fine", ""))
MODULES = b'[submodule "x"]\n\tpath = x\n\turl = -u./payload\n'
BLOB_OF = name_of("blob", b"evil\n")


def folder(*entries: tuple[str, bytes, str]) -> Callable[[str], bytes]:
    """Return what makes a bundle with a folder "sub" of these entries."""

    def make(base: str) -> bytes:
        inner = tree(*((mode, name, oid or BLOB_OF) for mode, name, oid in entries))
        whole = tree((FOLDER, b"sub", name_of("tree", inner)))
        commit = committed(whole, base)
        objects = ((Blob, b"evil\n"), (Tree, inner), (Tree, whole), (Commit, commit))
        return bundle(name_of("commit", commit), packed(*objects), base=base)

    return make


def two_refs(base: str) -> bytes:
    head, gap, pack = GOOD(base).partition(b"\n\n")
    return head + f"\n{base} refs/heads/main".encode() + gap + pack


def missing_blob(base: str) -> bytes:
    whole = tree((FILE, b"fine", "1" * 40))
    commit = committed(whole, base)
    return bundle(name_of("commit", commit), packed((Tree, whole), (Commit, commit)), base=base)


def no_commit(base: str) -> bytes:
    return bundle(name_of("blob", b"x"), packed((Blob, b"x")), base=base)


def bomb(base: str) -> bytes:
    """A delta of some bytes that asks for 64 GiB of memory."""
    source = b"x" * 100
    size = b"\x80\x80\x80\x80\x80\x02"
    delta = b"\x64" + size + b"\x90\x64"
    out = io.BytesIO()
    out.write(b"PACK" + struct.pack(">II", 2, 2) + packed((Blob, source))[12:-20])
    out.write(bytes([7 << 4 | len(delta)]) + bytes.fromhex(name_of("blob", source)) + zlib.compress(delta))
    return bundle("1" * 40, out.getvalue() + sha1(out.getvalue()).digest(), base=base)


def forged(base: str) -> bytes:
    data = bytearray(GOOD(base))
    data[-30] ^= 1
    return bytes(data)


HOSTILE: dict[str, Callable[[str], bytes]] = {
    "malicious .gitmodules": of_tree((FILE, b".gitmodules", ""), blob=MODULES),
    "linked .gitmodules": of_tree((LINK, b".gitmodules", "")),
    "linked .git": of_tree((LINK, b".git", "")),
    ".git": folder((FILE, b".git", "")),
    ".GIT": folder((FILE, b".GIT", "")),
    "git~1": folder((FILE, b"git~1", "")),
    ".git with a stream": folder((FILE, b".git::$INDEX_ALLOCATION", "")),
    ".git, ignorable character": folder((FILE, ".g\u200cit".encode(), "")),
    "..": folder((FILE, b"..", "")),
    ".": folder((FILE, b".", "")),
    "slash": of_tree((FILE, b"../../.bashrc", "")),
    "empty name": of_tree((FILE, b"", "")),
    "same name twice": of_tree((FILE, b"a", ""), (FILE, b"a", "")),
    "other ref": lambda base: GOOD(base).replace(OUT.encode(), b"refs/heads/main"),
    "ref with a path": lambda base: GOOD(base).replace(OUT.encode(), b"refs/heads/bottle/../../../x"),
    "two refs": two_refs,
    "no pack": lambda base: GOOD(base).partition(b"PACK")[0],
    "truncated": lambda base: GOOD(base)[:-40],
    "truncated head": lambda base: GOOD(base)[:60],
    "forged": forged,
    "not whole": missing_blob,
    "no commit": no_commit,
    "delta bomb": bomb,
    "partial": lambda base: GOOD(base).replace(b"# v2 git bundle\n", b"# v3 git bundle\n@filter=blob:none\n"),
    "forged commit": lambda base: b"# v2 git bundle\n" + f"{'1' * 40} {OUT}\n\n".encode() + packed((Blob, b"x")),
    "empty": lambda _: b"",
    "zeros": lambda _: bytes(1 << 22),
    "endless head": lambda base: b"# v2 git bundle\n" + f"-{base} x\n".encode() * 100_000,
    "option for a name": lambda base: GOOD(base).replace(OUT.encode(), b"--upload-pack=touch"),
}


def give(ground: Ground, data: bytes) -> None:
    """Have the bottle give these bytes in place of its bundle."""
    (ground.folder / "given").write_bytes(data)
    docker = ground.folder / "bin" / "docker"
    instead = f'[[ "$*" = *" - bundle "* ]] && exec cat {ground.folder}/given\n'
    docker.write_text(docker.read_text().replace("shift 3", f"{instead}shift 3"))


def answer(ground: Ground, data: bytes, *, code: int = 0) -> None:
    """Have the bottle answer these bytes in place of what it has."""
    (ground.folder / "answer").write_bytes(data)
    docker = ground.folder / "bin" / "docker"
    instead = f'[[ "$*" = *" - keep "* ]] && {{ cat {ground.folder}/answer; exit {code}; }}\n'
    docker.write_text(docker.read_text().replace("shift 3", f"{instead}shift 3"))


def said(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


ANSWERS: dict[str, Callable[[str], bytes]] = {
    "nothing": lambda _: b"",
    "zeros": lambda _: bytes(1 << 20),
    "endless": lambda _: b"[" * (1 << 25),
    "another ref": lambda _: said(kind="head", tip="refs/heads/main", before=""),
    "an option": lambda tip: said(kind="head", tip="--output=/tmp/x", before=tip),
    "control characters": lambda _: said(kind="head", tip="\x1b[2J", before=""),
    "a commit that is none": lambda tip: (
        said(kind="commit", oid="$(id)", below="", what="x") + said(kind="head", tip=tip, before=tip)
    ),
    "two heads": lambda tip: said(kind="head", tip=tip, before=tip) * 2,
    "more than fields": lambda tip: said(kind="head", tip=tip, before=tip, branch="main"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_an_answer_that_makes_no_sense_changes_nothing(ground: Ground, case: str) -> None:
    bottle, before = ground.uncork(), ground.user.snapshot()
    answer(ground, ANSWERS[case](ground.genie.commit("something")))
    with pytest.raises(RepositoryError, match=r"makes no sense|says too much") as caught:
        handback.fetch(bottle)
    assert str(caught.value).isprintable()
    assert ground.user.snapshot() == before


def test_an_answer_made_by_hand_is_taken(ground: Ground) -> None:
    """Else the tests above would prove nothing."""
    bottle = ground.uncork()
    tip = ground.genie.commit("something")
    answer(ground, said(kind="head", tip=tip, before=tip))
    ground.fetch(bottle)
    assert ground.user.git("rev-parse", BRANCH) == tip


def test_a_commit_that_the_bottle_does_not_have_is_a_failure(ground: Ground) -> None:
    bottle, before = ground.uncork(), ground.user.snapshot()
    tip = ground.genie.git("rev-parse", "HEAD")
    answer(ground, said(kind="head", tip=tip, before=tip) + said(kind="commit", oid="1" * 40, below="", what="x"))
    with pytest.raises(RepositoryError, match="the agent's x stays in the bottle: the bottle does not give its work"):
        handback.fetch(bottle)
    assert ground.user.snapshot() == before


def test_an_answer_that_breaks_off_is_a_failure_and_what_was_said_comes(ground: Ground) -> None:
    bottle = ground.uncork()
    tip = ground.genie.commit("something")
    answer(ground, said(kind="head", tip=tip, before=tip) + b"{", code=137)
    told, error = partly(bottle)
    assert "the rest stays in the bottle: the bottle did not finish (exit status 137)\n" in told
    assert error == "not all that was left uncommitted came back"
    assert ground.user.git("rev-parse", BRANCH) == tip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_bundle_changes_nothing_and_is_saved(ground: Ground, case: str) -> None:
    bottle, before = ground.uncork(), ground.user.snapshot()
    ground.genie.commit("something")
    data = HOSTILE[case](bottle.work.commit)
    give(ground, data)
    with pytest.raises(RepositoryError) as caught:
        handback.fetch(bottle)
    assert ground.user.snapshot() == before
    (saved,) = ground.folder.glob("*.bundle")
    assert (saved.read_bytes(), stat.S_IMODE(saved.stat().st_mode)) == (data, 0o600)
    assert f"the work is saved, unchecked, in {saved} " in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_good_bundle_made_by_hand_lands(ground: Ground) -> None:
    """Else the tests above would prove nothing."""
    bottle = ground.uncork()
    ground.genie.commit("something")
    give(ground, GOOD(bottle.work.commit))
    ground.fetch(bottle)
    assert ground.user.git("show", f"{BRANCH}:fine") == "evil"


def test_an_object_that_unpacks_to_too_much_is_refused(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "_OBJECT", 1 << 20)
    bottle, before = ground.uncork(), ground.user.snapshot()
    (ground.genie.path / "zeros").write_bytes(bytes(8 << 20))
    with pytest.raises(RepositoryError, match="unpacks to 8 MiB, more than the 1 that are taken"):
        handback.fetch(bottle)
    assert ground.user.snapshot() == before


def test_a_tree_that_names_more_files_than_there_can_be_is_no_harm(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten levels of ten equal folders: the branch lands, but nobody lists its files."""
    monkeypatch.setattr("claude_bottle.changes._SECONDS", 2.0)
    bottle = ground.uncork()
    ground.genie.commit("something")
    trees = [tree(*((FILE, b"%d" % number, BLOB_OF) for number in range(10)))]
    for _ in range(9):
        trees.append(tree(*((FOLDER, b"%d" % number, name_of("tree", trees[-1])) for number in range(10))))
    commit = committed(trees[-1], bottle.work.commit)
    pack = packed((Blob, b"evil\n"), *((Tree, data) for data in trees), (Commit, commit))
    give(ground, bundle(name_of("commit", commit), pack, base=bottle.work.commit))
    assert "beware  its files cannot be listed" in ground.fetch(bottle)


def test_work_is_saved_where_the_repository_cannot_take_it(ground: Ground) -> None:
    bottle = ground.uncork()
    tip = ground.genie.commit("the work")
    ground.user.git("branch", "bottle")
    back = HandBack(bottle, (said := list[str]()).append, said.append)
    back.run()
    back.run()
    (saved,) = ground.folder.glob("*.bundle")
    assert back.failed
    assert len(said) == 1
    assert f"in {saved} (git -C {ground.user.path} fetch {saved} {OUT})" in said[0]
    ground.user.git("fetch", "--quiet", str(saved), OUT)
    assert ground.user.git("rev-parse", "FETCH_HEAD") == tip
    with pytest.raises(RepositoryError):
        handback.fetch(bottle)
    assert {path.name for path in ground.folder.glob("*.bundle")} == {saved.name, f"user-bottle-{SESSION}-2.bundle"}


def test_work_lands_where_there_is_no_room_for_temporary_files(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    bottle = ground.uncork()
    ground.genie.commit("by the genie", new="1")
    before, beside = ground.user.snapshot(), sorted(ground.folder.iterdir())
    monkeypatch.setattr(tempfile, "tempdir", str(ground.folder / "none"))
    ground.fetch(bottle)
    landed(ground, before, BRANCH)
    assert sorted(ground.folder.iterdir()) == beside


def test_a_bottle_that_has_ended_is_told(ground: Ground) -> None:
    bottle = ground.uncork()
    (ground.folder / "bin" / "docker").write_text("#!/bin/sh\necho 'No such container: x' >&2; exit 1\n")
    with pytest.raises(RepositoryError, match="the bottle has ended"):
        handback.fetch(bottle)


def test_two_bottles_land_at_once(ground: Ground) -> None:
    from concurrent.futures import ThreadPoolExecutor

    bottle = ground.uncork()
    tip = ground.genie.commit("the work")
    bottles = [Bottle(f"demo-{number:08x}", bottle.owner, "x", bottle.work, bottle.env) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(handback.fetch, bottles))
    assert {ground.user.git("rev-parse", f"bottle/{each.session}") for each in bottles} == {tip}


def test_the_difference_is_shown_whatever_the_agents_git_takes_amiss(ground: Ground) -> None:
    bottle = ground.uncork()
    require_filter(ground)
    (ground.genie.path / "left").write_text("the work")
    nested(ground, "inside")
    text = "".join(handback.diff(bottle))
    assert "+the work\n" in text
    assert "+++ b/inside/file\n" in text
    assert ground.genie.git("diff", "--cached") == ""


def test_a_difference_that_is_not_all_of_it_is_a_failure(ground: Ground) -> None:
    bottle, docker = ground.uncork(), ground.folder / "bin" / "docker"
    if os.geteuid() == 0:  # who could read everything
        wary = "exec setpriv --bounding-set=-dac_override,-dac_read_search "
        docker.write_text(docker.read_text().replace("exec ", wary))
    (ground.genie.path / "left").write_text("the work")
    (ground.genie.path / "sealed").touch(mode=0)
    shown = list[str]()
    with pytest.raises(RepositoryError, match=r"^that is not all: "):
        shown.extend(handback.diff(bottle))
    assert "+the work\n" in "".join(shown)


def test_the_difference_is_shown_with_what_is_not_committed(ground: Ground) -> None:
    bottle, before = ground.uncork(), ground.user.snapshot()
    ground.genie.commit("one", new="1\t2\n")
    (ground.genie.path / "left").write_text("\x1b[31m\n")
    (ground.genie.path / "changed").write_text("2\n")
    ground.genie.git("config", "diff.external", f"touch {ground.folder}/mark #")
    text = "".join(handback.diff(bottle))
    assert {"+1\t2", r"+\x1b[31m", "+2"} <= set(text.splitlines())
    assert ground.genie.git("-c", "diff.external=", "status", "--porcelain").splitlines() == [" M changed", "?? left"]
    assert ground.user.snapshot() == before
    assert not (ground.folder / "mark").exists()


# --- what could be lost ---------------------------------------------------------------------------------------------


def partly(bottle: Bottle, *, last: bool = False) -> tuple[str, str]:
    """Fetch what does not come whole; return what is shown, and the error."""
    shown = list[str]()
    with pytest.raises(RepositoryError) as caught:
        handback.fetch(bottle, shown.append, last=last)
    assert len(str(caught.value).splitlines()) == 1
    return "".join(shown), str(caught.value)


def test_files_of_repositories_inside_come_back_and_ignored_ones_do_not(ground: Ground) -> None:
    ground.user.commit("ignoring", **{".gitignore": "deps/\n"})
    ground.user.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},module")
    ground.user.git("commit", "--quiet", "--message", "a submodule")
    bottle, work = ground.uncork(), ground.genie.path
    (work / "module" / "in it").write_text("1")
    for name in ("new\tone", "deps/one", "old"):
        (work / name).mkdir(parents=True)
        one = Repo(work / name, ground.genie.env)
        one.git("init", "--quiet")
        (one.path / "file").write_text("1")
        if name == "old":
            one.git("config", "user.email", "a@b")
            one.git("config", "user.name", "A")
            one.commit()
            ground.genie.git("-c", "advice.addEmbeddedRepo=false", "add", "old")
            ground.genie.git("commit", "--quiet", "--message", "as a submodule")
    (work / "old" / ".gitignore").write_text("*.log\n")
    (work / "old" / "a.log").touch()
    (work / "none" / ".git").mkdir(parents=True)  # to git no repository at all
    (work / "none" / "file").write_text("1")
    ground.fetch(bottle)
    listed = ground.user.git("ls-tree", "-r", "-z", "--name-only", BRANCH).split("\0")
    assert set(listed) == {
        *(
            ".gitignore",
            "changed",
            "kept",
            "module/in it",
            "new\tone/file",
            "none/file",
            "old/.gitignore",
            "old/file",
            "",
        )
    }


def nested(ground: Ground, *names: str) -> None:
    for name in names:
        inner = Repo(ground.genie.path / name, ground.genie.env)
        inner.path.mkdir(parents=True, exist_ok=True)
        inner.git("init", "--quiet")
        (inner.path / "file").write_text(name)


def names(ground: Ground, branch: str = BRANCH) -> set[str]:
    return set(ground.user.git("ls-tree", "-r", "-z", "--name-only", branch).split("\0"))


@pytest.mark.parametrize("made", [("a", "a/b"), ("a/b", "a"), ("a", "a/0", "a/0/c"), ("a/0/c", "a/0", "a")])
def test_repositories_inside_one_another_come_back(ground: Ground, made: tuple[str, ...]) -> None:
    bottle = ground.uncork()
    nested(ground, *made)
    ground.fetch(bottle)
    assert {f"{name}/file" for name in made} <= names(ground)


def test_a_repository_inside_another_work_tree_comes_on_that_ones_branch(ground: Ground) -> None:
    bottle = ground.uncork()
    ground.genie.git("worktree", "add", "--quiet", "-b", "aside", "inner/aside")
    nested(ground, "inner/aside/vendor")
    (ground.genie.path / "left").write_text("1")
    ground.fetch(bottle)
    assert "inner/aside/vendor/file" not in names(ground)
    assert {"left"} <= names(ground)
    assert {"vendor/file"} <= names(ground, f"{BRANCH}-2")


def submodules(ground: Ground) -> Bottle:
    """Uncork a repository with a submodule that has one, too, and have the agent fetch both."""
    deep, upper = (Repo(ground.folder / name, ground.env) for name in ("deep", "upper"))
    for repo in (deep, upper):
        ground.user.git("init", "--quiet", str(repo.path))
    deep.commit()
    upper.git("submodule", "--quiet", "add", str(deep.path), "deep")
    upper.commit(**{".gitignore": "build\n"})
    ground.user.git("submodule", "--quiet", "add", str(upper.path), "upper")
    ground.user.commit()
    bottle = ground.uncork()
    ground.genie.git("config", "--global", "protocol.file.allow", "always")
    ground.genie.git("submodule", "--quiet", "update", "--init", "--recursive")
    return bottle


def test_what_is_inside_a_submodule_holds_nothing_back(ground: Ground) -> None:
    bottle = submodules(ground)
    assert ground.fetch(bottle) == "branch  none: nothing was changed in the bottle\n"
    nested(ground, "upper/build")
    with (ground.genie.path / "upper" / "build" / "large").open("wb") as file:
        file.truncate(leaving.FILE + 1)
    (ground.genie.path / "left").write_text("1")
    ground.fetch(bottle)
    assert ground.user.git("diff", "--name-only", "HEAD", BRANCH) == "left"


def move_work_tree(ground: Ground, work: Path) -> None:
    ground.genie.git("worktree", "add", "--quiet", "-b", "aside", "aside")
    (work / "aside").rename(work / "inside")


def copy_work_tree(ground: Ground, work: Path) -> None:
    ground.genie.git("worktree", "add", "--quiet", "-b", "aside", "aside")
    shutil.copytree(work / "aside", work / "inside")


def lead_to_the_outer(_: Ground, work: Path) -> None:
    (work / "inside").mkdir()
    (work / "inside" / ".git").write_text(f"gitdir: {work / '.git'}\n")


def link_to_the_outer(_: Ground, work: Path) -> None:
    (work / "inside").mkdir()
    (work / "inside" / ".git").symlink_to("../.git")


@pytest.mark.parametrize("make", [move_work_tree, copy_work_tree, lead_to_the_outer, link_to_the_outer])
def test_what_only_looks_like_a_work_tree_comes_back(ground: Ground, make: Callable[[Ground, Path], None]) -> None:
    bottle = ground.uncork()
    make(ground, ground.genie.path)
    (ground.genie.path / "inside" / "left").write_text("1")
    ground.fetch(bottle)
    assert "inside/left" in names(ground)


def test_a_detached_work_tree_that_is_gone_brings_its_commits(ground: Ground) -> None:
    bottle, aside = ground.uncork(), ground.folder / "aside"
    ground.genie.git("worktree", "add", "--quiet", "--detach", str(aside))
    tip = Repo(aside, ground.genie.env).commit("aside")
    shutil.rmtree(aside)
    assert f"also    {BRANCH}: the agent's work tree {aside}\n" in ground.fetch(bottle)
    assert ground.user.git("rev-parse", BRANCH) == tip


def test_an_operation_under_way_is_left_as_it_is(ground: Ground) -> None:
    bottle, genie = ground.uncork(), ground.genie
    genie.git("checkout", "--quiet", "-b", "aside")
    genie.commit("theirs", changed="theirs")
    genie.git("checkout", "--quiet", BRANCH)
    genie.commit("ours", changed="ours")
    with pytest.raises(AssertionError):
        genie.git("merge", "aside")
    before = genie.snapshot()
    told = ground.fetch(bottle)
    assert "<<<<<<<" in ground.user.git("show", f"{BRANCH}:changed")
    after = genie.snapshot()
    same = [name for name in before if name.startswith(".git/") and "objects" not in name]
    assert [name for name in same if after[name] != before[name]] == []
    assert ground.fetch(bottle) == told


@pytest.mark.parametrize("date", ["@1 +0000", "@1700000000 +0100"])
def test_a_locked_index_leaves_the_agents_head_where_it_is(ground: Ground, date: str) -> None:
    bottle, genie = ground.uncork(), ground.genie
    tip = Repo(genie.path, {**genie.env, "GIT_COMMITTER_DATE": date}).commit("by the genie")
    (genie.path / "left").write_text("1")
    (genie.path / ".git" / "index.lock").touch()
    told = ground.fetch(bottle)
    assert ground.fetch(bottle) == told
    assert (ground.user.git("show", f"{BRANCH}:left"), genie.git("rev-parse", "HEAD")) == ("1", tip)


def test_a_work_tree_of_the_same_repository_brings_its_branch(ground: Ground) -> None:
    bottle = ground.uncork()
    ground.genie.git("worktree", "add", "--quiet", "-b", "aside", ".claude/worktrees/aside")
    tip = Repo(ground.genie.path / ".claude/worktrees/aside", ground.genie.env).commit("aside", new="1")
    told = ground.fetch(bottle)
    assert told == f"branch  none: nothing is new on the HEAD\nalso    {BRANCH}: the agent's branch aside\n"
    assert ground.user.git("rev-parse", BRANCH) == tip


def test_what_was_left_in_another_work_tree_comes_back(ground: Ground) -> None:
    bottle = ground.uncork()
    for name, options in (("aside", ("-b", "aside")), ("bare head", ("--detach",)), ("clean", ("--detach",))):
        ground.genie.git("worktree", "add", "--quiet", *options, str(ground.folder / name))
        (ground.folder / name / "left").write_text(name)
    (ground.folder / "clean" / "left").unlink()
    told = ground.fetch(bottle)
    where = ground.folder / "bare head"
    assert told == (
        f"branch  none: nothing is new on the HEAD\nalso    {BRANCH}: the agent's work tree {where}\n"
        f"also    {BRANCH}-2: the agent's branch aside\n"
    )
    assert [ground.user.git("show", f"{name}:left") for name in (BRANCH, f"{BRANCH}-2")] == ["bare head", "aside"]
    assert Repo(where, ground.genie.env).git("status", "--porcelain") == ""
    assert sorted(ground.fetch(bottle).splitlines()) == sorted(told.splitlines())


def fill_objects(ground: Ground) -> None:
    for number in range(256):
        path = ground.genie.path / ".git" / "objects" / f"{number:02x}"
        if not path.exists():
            path.touch()


def require_filter(ground: Ground) -> None:
    ground.genie.git("config", "filter.x.clean", "false")
    ground.genie.git("config", "filter.x.required", "true")
    (ground.genie.path / ".gitattributes").write_text("left filter=x\n")


def break_own_settings(ground: Ground) -> None:
    ground.genie.git("config", "--global", "core.autocrlf", "maybe")


def break_settings_of_the_repository(ground: Ground) -> None:
    ground.genie.git("config", "core.autocrlf", "maybe")


def assume_unchanged(ground: Ground) -> None:
    (ground.genie.path / "left").write_text("before")
    ground.genie.git("add", "left")
    ground.genie.git("update-index", "--assume-unchanged", "left")
    (ground.genie.path / "left").write_text("the work")


def skip_work_tree(ground: Ground) -> None:
    ground.genie.git("add", "left")
    ground.genie.git("rm", "--cached", "--quiet", "left")
    (ground.genie.path / "left").write_text("before")
    ground.genie.git("add", "left")
    ground.genie.git("update-index", "--skip-worktree", "left")
    (ground.genie.path / "left").write_text("the work")


HINDRANCES = (
    fill_objects,
    require_filter,
    break_own_settings,
    break_settings_of_the_repository,
    assume_unchanged,
    skip_work_tree,
)


@pytest.mark.parametrize("hinder", HINDRANCES)
def test_what_the_agents_git_does_not_take_comes_back(ground: Ground, hinder: Callable[[Ground], None]) -> None:
    bottle = ground.uncork()
    ground.genie.git("checkout", "--quiet", "-b", "aside")
    aside = ground.genie.commit("aside")
    ground.genie.git("checkout", "--quiet", BRANCH)
    tip = ground.genie.commit("by the genie")
    (ground.genie.path / "left").write_text("the work")
    hinder(ground)
    ground.fetch(bottle)
    assert ground.user.git("rev-parse", f"{BRANCH}-2") == aside
    assert ground.user.git("show", f"{BRANCH}:left") == "the work"
    assert ground.user.git("rev-parse", f"{BRANCH}~1") == tip


def lose_index(ground: Ground) -> None:
    (ground.genie.path / ".git" / "index").unlink()


def keep_to_unix_lines(ground: Ground) -> None:
    ground.genie.git("config", "--global", "core.safecrlf", "true")
    ground.genie.git("config", "--global", "core.autocrlf", "input")
    (ground.genie.path / "dos").write_bytes(b"x\r\ny\r\n")


def write_what_is_no_utf_16(ground: Ground) -> None:
    (ground.genie.path / ".gitattributes").write_text("odd working-tree-encoding=UTF-16\n")
    (ground.genie.path / "odd").write_text("xyz")


@pytest.mark.parametrize(
    "hinder", [lose_index, keep_to_unix_lines, write_what_is_no_utf_16, break_settings_of_the_repository, fill_objects]
)
@pytest.mark.parametrize("form", ["sha1", "sha256"])
def test_what_is_tracked_and_ignored_comes_back(tmp_path: Path, form: str, hinder: Callable[[Ground], None]) -> None:
    ground = Ground(tmp_path)
    shutil.rmtree(ground.user.path / ".git")
    ground.user.git("init", "--quiet", f"--object-format={form}")
    (ground.user.path / "kept.log").write_text("1")
    ground.user.commit()
    ground.user.commit(**{".gitignore": "*.log\n"})
    bottle = ground.uncork()
    (ground.genie.path / "kept.log").write_text("the work")
    (ground.genie.path / "left").write_text("the work")
    hinder(ground)
    ground.fetch(bottle)
    assert [ground.user.git("show", f"{BRANCH}:{name}") for name in ("kept.log", "left")] == ["the work"] * 2


def test_what_git_converts_is_converted_whatever_else_it_does_not_take(ground: Ground) -> None:
    ground.user.commit(**{".gitattributes": "dos eol=crlf\nwide text working-tree-encoding=UTF-16LE\nleft filter=x\n"})
    bottle = ground.uncork()
    ground.genie.git("config", "filter.x.clean", "false")
    ground.genie.git("config", "filter.x.required", "true")
    ground.genie.git("config", "core.safecrlf", "false")
    files = {"dos": b"a\r\nb\r\n", "wide": "a\nb\n".encode("utf-16-le"), "left": b"1"}
    for name, data in files.items():
        (ground.genie.path / name).write_bytes(data)
    ground.fetch(bottle)
    assert [ground.user.git("show", f"{BRANCH}:{name}") for name in files] == ["a\nb", "a\nb", "1"]


def test_what_is_tracked_and_ignored_comes_back_from_a_repository_inside(ground: Ground) -> None:
    (ground.user.path / "lib").mkdir()
    ground.user.commit(**{"lib/kept.log": "1"})
    ground.user.commit(**{".gitignore": "*.log\n"})
    bottle = ground.uncork()
    nested(ground, "lib")
    ground.fetch(bottle)
    assert {"lib/kept.log", "lib/file"} <= names(ground)


@pytest.mark.parametrize("hinder", [fill_objects, require_filter, break_settings_of_the_repository])
def test_what_the_agents_git_does_not_take_comes_back_from_another_work_tree(
    ground: Ground, hinder: Callable[[Ground], None]
) -> None:
    bottle = ground.uncork()
    aside = ground.folder / "aside"
    ground.genie.git("worktree", "add", "--quiet", "--detach", str(aside))
    for path in (ground.genie.path, aside):
        (path / "left").write_text(path.name)
        (path / ".gitattributes").write_text("left filter=x\n")
    (ground.genie.path / ".git" / "worktrees" / "aside" / "index.lock").touch()
    hinder(ground)
    told = ground.fetch(bottle)
    assert f"\nalso    {BRANCH}-2: the agent's work tree {aside}\n" in told
    assert "beware  not all" not in told
    for branch, name in ((BRANCH, ground.genie.path.name), (f"{BRANCH}-2", "aside")):
        assert ground.user.git("show", f"{branch}:left") == name
        assert ground.user.git("rev-parse", f"{branch}~1") == bottle.work.start


def test_what_cannot_be_committed_is_a_failure(ground: Ground) -> None:
    bottle = ground.uncork()
    tip = ground.genie.commit("by the genie")
    (ground.genie.path / "left").write_text("the work")
    fill_objects(ground)
    (ground.folder / "genie" / ".claude-bottle.git").touch()
    told, error = partly(bottle)
    assert "beware  not all that was left uncommitted could be committed, the rest stays in the bottle: " in told
    assert "left" in told.partition("the rest stays in the bottle: ")[2]  # git's own words
    assert error == "not all that was left uncommitted came back"
    assert ground.user.git("rev-parse", BRANCH) == tip


@pytest.mark.parametrize("last", [False, True])
def test_what_is_too_large_leaves_what_was_committed(
    ground: Ground, monkeypatch: pytest.MonkeyPatch, *, last: bool
) -> None:
    monkeypatch.setattr(handback, "BUNDLE", 1 << 20)
    bottle = ground.uncork()
    tip = ground.genie.commit("committed")
    (ground.genie.path / "noise").write_bytes(os.urandom(2 << 20))
    told, error = partly(bottle, last=last)
    assert told.startswith(f"branch  {BRANCH} in ")
    where = "is lost with the bottle" if last else "stays in the bottle"
    assert error.startswith(f"what was left uncommitted {where}: the work is larger than ")
    assert ("cli.py diff" in error) is not last
    assert ground.user.git("rev-parse", BRANCH) == tip


def test_what_was_too_large_comes_once_it_is_deleted(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handback, "BUNDLE", 1 << 20)
    bottle, noise = ground.uncork(), ground.genie.path / "noise"
    ground.genie.commit("one", one="1")
    noise.write_bytes(os.urandom(2 << 20))
    partly(bottle)
    noise.unlink()
    ground.genie.commit("two", two="2")
    ground.fetch(bottle)
    assert {"one", "two"} <= names(ground)


def test_what_is_too_large_in_another_work_tree_leaves_what_was_committed(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handback, "BUNDLE", 1 << 20)
    bottle, aside = ground.uncork(), Repo(ground.folder / "aside", ground.genie.env)
    ground.genie.git("worktree", "add", "--quiet", "-b", "aside", str(aside.path))
    tip = aside.commit("committed")
    (aside.path / "noise").write_bytes(os.urandom(2 << 20))
    told, error = partly(bottle)
    assert told == f"also    {BRANCH}: the agent's branch aside\n"
    assert error.startswith("what was left uncommitted of the agent's branch aside stays in the bottle: the work is ")
    assert (ground.user.git("rev-parse", BRANCH), aside.git("rev-parse", "HEAD")) == (tip, tip)


def test_what_several_branches_have_counts_once(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handback, "BUNDLE", 1 << 20)
    bottle = ground.uncork()
    (ground.genie.path / "noise").write_bytes(os.urandom(700 << 10))
    tips = [ground.genie.commit("large")]
    for name in ("a", "b"):
        ground.genie.git("checkout", "--quiet", "-b", name)
        tips.append(ground.genie.commit(name))
    ground.genie.git("checkout", "--quiet", "-b", "below", "HEAD~1")
    ground.genie.git("checkout", "--quiet", BRANCH)
    ground.fetch(bottle)
    assert [ground.user.git("rev-parse", f"{BRANCH}{end}") for end in ("", "-2", "-3")] == tips


def test_commits_that_are_not_on_the_head_come_back(ground: Ground) -> None:
    bottle = ground.uncork()
    tips = {"branch feature/x": ground.genie.commit("feature")}
    ground.genie.git("branch", "feature/x")
    ground.genie.git("checkout", "--quiet", "--detach", bottle.work.start)
    left = ground.genie.commit("detached")
    ground.genie.git("checkout", "--quiet", BRANCH)
    ground.genie.git("reset", "--quiet", "--hard", bottle.work.start)
    tips[f"branch {BRANCH}"] = ground.genie.commit("the branch itself")
    ground.genie.git("checkout", "--quiet", "--detach", bottle.work.start)
    (ground.genie.path / "changed").write_text("stashed")
    ground.genie.git("stash", "--quiet")
    ground.genie.git("checkout", "--quiet", "-b", "deleted")
    deleted = ground.genie.commit("on a branch that is no more")
    ground.genie.git("checkout", "--quiet", "--detach", bottle.work.start)
    ground.genie.git("branch", "--quiet", "-D", "deleted")
    tips[f"commit {deleted[:12]}"] = deleted
    tips |= {"stash stash@{0}": ground.genie.git("rev-parse", "stash"), f"commit {left[:12]}": left}
    told = ground.fetch(bottle)
    assert told.startswith(f"branch  none: nothing is new on the HEAD\nalso    {BRANCH}: the agent's branch {BRANCH}\n")
    also = [line.split(maxsplit=1)[1] for line in told.splitlines() if line.startswith("also")]
    named = {what.removeprefix("the agent's "): branch for branch, _, what in (line.partition(": ") for line in also)}
    assert {what: ground.user.git("rev-parse", branch) for what, branch in named.items()} == tips
    assert ground.fetch(bottle) == told  # each into the branch that it has


def test_a_branch_ahead_of_the_head_leaves_the_heads_alone(ground: Ground) -> None:
    bottle = ground.uncork()
    tip = ground.genie.commit("on the head")
    ground.genie.git("checkout", "--quiet", "-b", "ahead")
    (ground.genie.path / "Makefile").touch()
    ahead = ground.genie.commit("ahead")
    ground.genie.git("checkout", "--quiet", BRANCH)
    told = ground.fetch(bottle)
    assert told.endswith(
        f"also    {BRANCH}-2: the agent's branch ahead\n"
        "beware  these would run by themselves on this machine, or at an everyday command:\n        Makefile\n"
    )
    assert [ground.user.git("rev-parse", name) for name in (BRANCH, f"{BRANCH}-2")] == [tip, ahead]


def crowd(ground: Ground) -> None:
    """Have the bottle refuse to run anything until it was made room in."""
    docker, room = ground.folder / "bin" / "docker", ground.folder / "room"
    docker.write_text(
        f"""#!/bin/bash
[ "$1" = inspect ] && echo "true 64" && exit
[ "$1" = update ] && echo "$@" > {room} && exit
[ -e {room} ] || {{ echo "cannot fork" >&2; exit 126; }}
[[ "$*" = *"kill -STOP"* ]] && exit
{docker.read_text().removeprefix("#!/bin/bash")}"""
    )


def test_a_full_bottle_is_made_room_in_at_the_end_of_a_session(ground: Ground) -> None:
    bottle = ground.uncork()
    tip = ground.genie.commit("the work")
    crowd(ground)
    assert "nothing can be run in the bottle, which is there: cannot fork" in partly(bottle)[1]
    assert not (ground.folder / "room").exists()
    back = HandBack(bottle, (said := list[str]()).append, said.append)
    back.run()
    assert (back.failed, ground.user.git("rev-parse", BRANCH)) == (False, tip)
    assert (ground.folder / "room").read_text() == "update --pids-limit 1088 x\n"
