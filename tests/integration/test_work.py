"""Work that goes into real bottles and comes back through git alone; and what a hostile bottle gets out: nothing."""

import base64
import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_bottle.repository.clone import WORKDIR
from tests.support.repos import Repo, users
from tests.support.sessions import CLI, GUARD, Bench, Ended, Running, docker

# Every kind of file, made by the same program here and in the bottle.
MAKE = r"""
import os
for name in ("a b", "quote\"'", "back\\slash", "tab\there", "new\nline", "\u00fcml\u00e4ut", "-dash", ":(top)x", "*"):
    open(name, "w").write(name)
open(b"not utf8 \xff", "wb").write(bytes(range(256)) * 500)
open("crlf", "wb").write(b"a\r\nb\r\n")
open("run", "w").write("#!/bin/sh\n")
os.chmod("run", 0o755)
os.symlink("/etc/passwd", "link")
os.mkdir("deep")
os.symlink("../..", "deep/up")
open("deep/empty", "w").close()
os.remove("gone")
os.rename("from", "to")
"""
STAYING = b"<staying>"


@pytest.fixture
def user(bench: Bench) -> Repo:
    """The user's repository, with a commit of theirs and a change that is none yet."""
    repo = users(
        bench.folder / "user", {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"}, "the user's", gone="1", **{"from": "2"}
    )
    (repo.path / "uncommitted").write_text("1")
    return repo


@contextlib.contextmanager
def working(bench: Bench, user: Repo, *words: str) -> Iterator[tuple[Running, str, str]]:
    """Run a session whose claude stays; yield it, its id, and the branch that its work comes back as."""
    run = Running((str(CLI), "start", bench.name, "--yes", "--repo", str(user.path), *words), bench.environ)
    try:
        assert run.process.stdout
        assert run.process.stdout.read(len(STAYING)) == STAYING, run.end()
        session = bench.sessions()[0]
        yield run, session, f"bottle/{session}"
    finally:
        run.process.terminate()
        run.end()


def inside(session: str, script: str) -> str:
    """Run a script in a bottle, as its agent does."""
    return docker("exec", "--interactive", "--user", "1000:1000", f"claude-bottle-{session}", "bash", "-ec", script)


def untouched(user: Repo, before: dict[str, tuple[int, bytes]], *branches: str) -> None:
    """Hold that the user's repository is as it was, but for new objects and these branches."""
    after = user.snapshot()
    assert {name: after[name] for name in before} == before
    files = {name for name in after.keys() - before.keys() if (user.path / name).is_file()}
    refs = {f".git/{kind}heads/{branch}" for branch in branches for kind in ("refs/", "logs/refs/")}
    assert {name for name in files if not name.startswith(".git/objects/")} == refs


def tree(repo: Repo, folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return what a checkout of `folder` holds."""
    found = Repo(folder, repo.env).snapshot()
    return {name: value for name, value in found.items() if name.split("/")[0] != ".git"}


def test_claude_commits_and_all_comes_back_byte_for_byte(bench: Bench, user: Repo) -> None:
    bench.write(repo=os.path.relpath(user.path, bench.agents))
    before = user.snapshot()
    make = f"echo {base64.b64encode(MAKE.encode()).decode()} | base64 --decode | python3 -"
    calls = (make, "git add --all && git commit --quiet -m 'by claude'", "git config user.name; echo left > left")
    ended = bench.start("--yes", "--print", "\n".join(f"RUN: {call}" for call in calls))
    assert (ended.code, ended.out.splitlines()[-1]) == (0, b"A User"), ended
    (branch,) = [name for name in user.git("branch", "--format=%(refname:short)").split() if name != "main"]
    assert f"branch  {branch} in {user.path}\n" in ended.err
    assert "1 uncommitted change not included; --with-changes includes them" in ended.err
    untouched(user, before, branch)
    assert user.git("log", "--format=%s", branch).splitlines() == [
        *("Keep what was left uncommitted", "by claude", "the user's"),
    ]
    for name, at in (("seen", branch), ("made", "main")):
        user.git("worktree", "add", "--quiet", "--detach", str(bench.folder / name), at)
    subprocess.run(("python3", "-c", MAKE), cwd=bench.folder / "made", check=True)
    (bench.folder / "made" / "left").write_text("left\n")
    assert tree(user, bench.folder / "seen") == tree(user, bench.folder / "made")


@pytest.mark.parametrize("how", ["INT", "TERM", "HUP", "QUIT", "stop", "sidecar"])
def test_work_comes_back_whatever_ends_the_session(bench: Bench, user: Repo, how: str) -> None:
    bench.puppet("stay")
    before = user.snapshot()
    with working(bench, user) as (run, session, branch):
        inside(session, "echo 1 > committed; git add .; git commit --quiet -m one; echo 2 > left")
        if how == "stop":
            assert bench.run((str(CLI), "stop", session), {}).code == 0
        elif how == "sidecar":
            docker("kill", f"claude-bottle-{session}-sidecar")
        else:
            run.process.send_signal(signal.Signals[f"SIG{how}"])
        ended = run.end()
    codes = {"stop": 128 + signal.SIGTERM, "sidecar": 70}
    assert ended.code == (codes[how] if how in codes else 128 + signal.Signals[f"SIG{how}"]), ended
    assert f"branch  {branch} in " in ended.err
    untouched(user, before, branch)
    assert user.git("diff", "--name-only", "main", branch).split() == ["committed", "left"]


def test_paths_that_are_no_utf8_lead_back_to_repository_and_manifest(bench: Bench) -> None:
    """Docker's labels, the only record of them, hold nothing else."""
    bench.puppet("stay")
    agents = bench.folder / os.fsdecode(b"man\xefests 100%")
    shutil.copytree(bench.agents, agents)
    bench.environ["CLAUDE_BOTTLE_AGENTS"] = str(agents)
    user = users(bench.folder / os.fsdecode(b"r\xe9po %41"), {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"})
    with working(bench, user) as (run, session, branch):
        inside(session, "echo 1 > new")
        assert bench.run((str(CLI), "fetch", session), {}).code == 0
        assert user.git("show", f"{branch}:new") == "1"
        inside(session, "echo 2 > new")
        saved = bench.run((str(CLI), "allow", session, "a.test", "--save"), {})
        assert (saved.code, "a.test" in (agents / "bottles" / f"{bench.name}.yaml").read_text()) == (0, True), saved
        assert bench.run((str(CLI), "stop", session), {}).code == 0
        assert f"branch  {branch} in " in run.end().err
    assert user.git("show", f"{branch}:new") == "2"


def test_the_bottle_ends_once_its_work_is_out(bench: Bench, user: Repo) -> None:
    """While what came out of it is still to be checked."""
    bench.puppet("stay")
    fifo = bench.folder / "checked"
    os.mkfifo(fifo)
    bench.environ["PATH"] = bench.program(
        "git", f'PATH={bench.environ["PATH"]}\n[[ "$*" = *" index-pack "* ]] && cat {fifo}\nexec git "$@"'
    )
    with working(bench, user) as (run, session, branch):
        inside(session, "echo 1 > left")
        run.process.terminate()
        with fifo.open("wb"):  # git is there
            end = time.monotonic() + GUARD
            while f"ps {session} claude-bottle-{session}" in bench.objects():
                assert time.monotonic() < end, "the bottle is still there"
            assert user.git("branch", "--list", branch) == ""
        assert f"branch  {branch} in " in run.end().err
    assert user.git("diff", "--name-only", "main", branch) == "left"


def test_a_killed_launcher_leaves_nothing_and_the_repository_as_it_was(bench: Bench, user: Repo) -> None:
    bench.puppet("stay")
    before = user.snapshot()
    with working(bench, user) as (run, session, _):
        inside(session, "echo 1 > left")
        run.process.kill()
        run.end()
    bench.await_nothing()
    assert user.snapshot() == before


def test_a_bottle_that_dies_takes_its_work_along(bench: Bench, user: Repo) -> None:
    bench.puppet("stay")
    before = user.snapshot()
    with working(bench, user) as (run, session, _):
        docker("rm", "--force", f"claude-bottle-{session}")
        ended = run.end()
    assert ended.code == 70, ended
    assert "nothing can be fetched any more, the bottle has ended" in ended.err
    assert user.snapshot() == before


def test_work_is_seen_and_fetched_while_it_goes_on(bench: Bench, user: Repo) -> None:
    bench.puppet("stay")
    (user.path / "uncommitted").write_text("2")
    with working(bench, user, "--with-changes") as (run, session, branch):
        inside(session, "printf '\\033[31m\\n' > 'new\033'")
        shown = bench.run((str(CLI), "diff", session[:-1]), {})
        assert (shown.code, b"\x1b" in shown.out, b"+\\x1b[31m" in shown.out) == (0, False, True), shown
        assert b"uncommitted" not in shown.out
        fetched = bench.run((str(CLI), "fetch", session[:-1]), {})
        assert (fetched.code, b"\x1b" in fetched.out) == (0, False), fetched
        assert f"branch  {branch} in {user.path}\n".encode() in fetched.out
        first = user.git("rev-parse", branch)
        assert user.git("log", "--format=%s", f"main..{branch}~1") == "Include uncommitted changes"
        assert inside(session, "git status --porcelain") == ""
        inside(session, "echo 2 > more; git add .; git commit --quiet -m more")
        run.process.terminate()
        assert f"branch  {branch} in " in run.end().err
    assert user.git("log", "--format=%s", f"{first}..{branch}") == "more"
    told = bench.run((str(CLI), "fetch", session), {})
    assert (told.code, told.out) == (2, b"")


def test_what_is_closed_comes_and_what_cannot_be_read_is_named(bench: Bench, user: Repo) -> None:
    bench.puppet("stay")
    with working(bench, user) as (run, session, branch):
        inside(
            session,
            "mkdir -p closed/deep; echo 1 > closed/deep/file; mkfifo fifo; git tag v1; chmod 0 closed; chmod 777 .",
        )
        docker("exec", "--user", "0", f"claude-bottle-{session}", "mkdir", "--mode", "700", f"{WORKDIR}/roots")
        fetched = bench.run((str(CLI), "fetch", "--tags", session), {})
        assert fetched.code == 74, fetched
        assert user.git("diff", "--name-only", "main", branch) == "closed/deep/file"
        assert user.git("rev-parse", f"refs/tags/{branch}/v1") == user.git("rev-parse", "main")
        told = fetched.out.decode()
        assert "warning: could not open directory 'roots/': Permission denied\n" in told
        assert "beware  not a regular file, stays in the bottle: fifo\n" in told
        docker("exec", "--user", "0", f"claude-bottle-{session}", "rmdir", f"{WORKDIR}/roots")
        run.process.terminate()
        ended = run.end()
    assert ended.code == 128 + signal.SIGTERM, ended
    assert "not all that was left" not in ended.err
    assert "beware  tags are lost with the bottle: v1\n" in ended.err


def test_one_branch_is_enough_for_all_of_a_merge(bench: Bench, user: Repo) -> None:
    bench.puppet("stay")
    with working(bench, user) as (_, session, branch):
        inside(
            session,
            "git checkout -qb other; echo a > x; git add x; git commit -qm a; git checkout -q -; echo b > x; git add x;"
            " git commit -qm b; git merge other || true",
        )
        for text in ("1", "2"):
            inside(session, f"echo {text} > x")
            assert bench.run((str(CLI), "fetch", session), {}).code == 0
            assert user.git("show", f"{branch}:x") == text
    names = user.git("branch", "--format=%(refname:short)", "--list", "bottle/*").split()
    assert names == [branch, f"{branch}-2"]  # the other is the agent's own


def test_sessions_on_one_repository_do_not_disturb_each_other(bench: Bench, user: Repo) -> None:
    from concurrent.futures import ThreadPoolExecutor

    before = user.snapshot()
    words = ("--yes", "--repo", str(user.path), "--print", "RUN: echo $RANDOM > new; git add .; git commit -qm new")
    with ThreadPoolExecutor(4) as pool:
        ends: list[Ended] = list(pool.map(lambda _: bench.start(*words), range(4)))
    assert [ended.code for ended in ends] == [0] * 4, ends
    branches = user.git("branch", "--format=%(refname:short)", "--list", "bottle/*").split()
    assert len(branches) == 4
    untouched(user, before, *branches)


def test_hooks_and_configuration_of_the_bottle_run_nowhere_but_there(bench: Bench, user: Repo) -> None:
    """Whatever git can be told to run is told, in the bottle, to leave a mark at a path that the host has, too."""
    bench.puppet("stay")
    mark = bench.folder / "mark"
    before = user.snapshot()
    keys = (
        *("core.fsmonitor", "core.sshCommand", "core.alternateRefsCommand", "core.pager", "core.editor"),
        *(
            "diff.external",
            "diff.x.textconv",
            "diff.x.command",
            "gpg.program",
            "merge.x.driver",
            "uploadpack.packObjectsHook",
        ),
        *("credential.helper", "sequence.editor", "core.askPass", "alias.bundle", "alias.add"),
    )
    told = f"mkdir -p {bench.folder}; touch {mark}; echo ran >> ~/ran"
    script = "\n".join(
        (
            *(f"git config {'--global ' if odd % 2 else ''}{key} '{told} #'" for odd, key in enumerate(keys)),
            "for hook in pre-commit post-commit post-checkout reference-transaction post-merge post-index-change; do",
            f"printf '#!/bin/sh\\n{told}\\n' > .git/hooks/$hook; chmod +x .git/hooks/$hook; done",
            f"git config filter.x.clean '{told}; cat'; git config filter.x.smudge '{told}; cat'",
            "mkdir -p .vscode .github/workflows hooks; echo '* filter=x diff=x merge=x' > .gitattributes",
            f"printf 'all:\\n\\t{told}\\n' | tee Makefile .vscode/tasks.json .github/workflows/x.yml .envrc >/dev/null",
            "echo /nonexistent >> .git/objects/info/alternates; ln -s .git/config config",
            "printf '[include]\\npath=../config\\n' > .gitconfig; echo left > 'n\033[31m'",
        )
    )
    with working(bench, user) as (run, session, branch):
        inside(session, script)
        fetched = bench.run((str(CLI), "fetch", session), {})
        assert fetched.code == 0, fetched
        assert bench.run((str(CLI), "diff", session), {}).code == 0
        assert "ran" in inside(session, "cat ~/ran")  # the filter, which is the bottle's own
        inside(session, "touch more")
        run.process.terminate()
        ended = run.end()
    assert not mark.exists()
    untouched(user, before, branch)
    files, links = (
        {line.strip() for line in part.splitlines()[1:]} for part in fetched.out.decode().split("beware")[1:]
    )
    tools = {".envrc", ".github/workflows/x.yml", ".vscode/tasks.json", "Makefile"}
    assert (files, links) == ({".gitattributes", ".gitconfig", *tools}, {"config"})
    assert "\x1b" not in ended.err + fetched.out.decode()


# After `exec --interactive --user` come the user and the container.
ALL_REFS = 'exec docker exec --user "$4" "$5" /usr/bin/git -C /work bundle create - --all'


@pytest.mark.parametrize(
    ("gives", "told"),
    [
        ("exec head --bytes 10G /dev/zero", "the work is larger than 1024 MiB"),
        (
            "exec head --bytes 1M /dev/zero",
            "the bottle's output is not a git bundle with one branch; the work is saved",
        ),
        (ALL_REFS, "the bottle's output is not a git bundle with one branch; the work is saved"),
        ('docker "$@" | head --bytes 300; exit', "the bundle's pack is damaged; the work is saved"),
        ("exit 1", "the bottle did not send its work: "),
    ],
    ids=["zeros", "junk", "all refs", "truncated", "none"],
)
def test_a_bottle_that_gives_something_hostile(bench: Bench, user: Repo, gives: str, told: str) -> None:
    """In place of docker's client, since no image's git is run: an agent would have to take over the exporter."""
    path = bench.wrap(f'*" - bundle "*) {gives};;')
    before = user.snapshot()
    question = "RUN: git tag x; head -c 4096 /dev/urandom > new"
    ended = bench.start("--yes", "--repo", str(user.path), "--print", question, PATH=path)
    assert ended.code == 74, ended
    assert [line for line in ended.err.splitlines() if line.startswith("claude-bottle: ") and told in line], ended.err
    assert user.snapshot() == before


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ("exec head --bytes 1M /dev/zero", "the bottle's answer is malformed: "),
        ('docker "$@" | sed "s/head/HEAD/"; exit', "the bottle's answer is malformed: "),
        ('docker "$@" | sed "s/[0-9a-f]\\{40\\}/--output=x/"; exit', "the bottle's answer is malformed: "),
        ("exit 1", "the bottle has no commit to fetch (exit status 1)"),
    ],
    ids=["zeros", "unknown", "option", "none"],
)
def test_a_bottle_that_answers_something_hostile(bench: Bench, user: Repo, answers: str, told: str) -> None:
    """In place of docker's client, as above: an image's python is not run either."""
    path = bench.wrap(f'*" - keep "*) {answers};;')
    before = user.snapshot()
    ended = bench.start("--yes", "--repo", str(user.path), "--print", "RUN: touch new", PATH=path)
    assert ended.code == 74, ended
    assert [line for line in ended.err.splitlines() if line.startswith("claude-bottle: ") and told in line], ended.err
    assert user.snapshot() == before


def test_what_cannot_be_taken_in_is_told_before_anything_is_made(bench: Bench, user: Repo) -> None:
    for words, code, told in (
        (("--repo", str(bench.folder / "none")), 74, "not a folder"),
        (("--repo", str(user.path), "--ref", "none"), 74, "unknown revision 'none'"),
        (("--ref", "main"), 2, "pass --repo"),
    ):
        ended = bench.start("--yes", *words)
        assert (ended.code, len(ended.err.splitlines())) == (code, 1), ended
        assert told in ended.err
