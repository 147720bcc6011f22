"""What a hostile bottle achieves: nothing. Most of its bundles are made by hand."""

import io
import stat
import struct
import zlib
from collections.abc import Callable
from hashlib import sha1

import pytest

from claude_bottle.errors import RepositoryError
from claude_bottle.repository import fetch, quarantine
from claude_bottle.repository.clone import OUT
from tests.support.packs import Blob, Commit, Tree, bundle, committed, give, name_of, packed, tree
from tests.support.repos import BRANCH, Ground


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


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_bundle_changes_nothing_and_is_saved(ground: Ground, case: str) -> None:
    bottle, before = ground.uncork(), ground.user.snapshot()
    ground.genie.commit("something")
    data = HOSTILE[case](bottle.work.commit)
    give(ground, data)
    with pytest.raises(RepositoryError) as caught:
        fetch.fetch(bottle)
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
    with pytest.raises(RepositoryError, match="unpacks to 8 MiB, more than the limit of 1 MiB"):
        fetch.fetch(bottle)
    assert ground.user.snapshot() == before


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
